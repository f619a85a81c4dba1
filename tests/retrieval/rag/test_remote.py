"""The same with a collection of a server."""

from pathlib import Path

import triptych
from tests.client.serving import served


def test_a_server_takes_documents_and_answers_as_a_folder_does(
    handbook: Path, tmp_path: Path
) -> None:
    with (
        served(tmp_path / "data") as url,
        triptych.connect(url, collection="handbook") as there,
        triptych.open(":memory:", model="hashing:64") as here,
    ):
        there.create()
        local, remote = triptych.Retriever(here), triptych.Retriever(there)
        assert remote.add(handbook).added == local.add(handbook).added == 3
        for question in ("wheel and compass", "a red square"):
            one, other = local.retrieve(question), remote.retrieve(question)
            assert {p.id for p in one} == {p.id for p in other}
            assert [p.citation for p in other if p.citation] and other[0].id == one[0].id
        assert remote.context("wheel").citations == local.context("wheel").citations
        picture = next(p for p in remote.retrieve("square") if p.kind == "picture")
        assert (remote.picture(picture) or b"").startswith(b"\xff\xd8")
        (handbook / "ship.pdf").unlink()
        again = remote.add(handbook)
        assert (again.unchanged, again.removed) == (2, 1)
