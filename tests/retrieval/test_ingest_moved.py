"""Files that were moved or copied inside of what is indexed: nothing is embedded again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import apsw
import pytest

from tests.retrieval.fakes import BLACK, BLUE, GREEN, CountingModel, encoded, paint
from tests.retrieval.test_ingest import PRUNE, collection, counts, embedded, root
from triptych.errors import InvalidInput
from triptych.index.sqlite.pages import CHECKED
from triptych.retrieval.collection import Collection
from triptych.retrieval.folder import STORE
from triptych.retrieval.ingest.run import index_folder

__all__ = ["collection", "root"]  # fixtures


def whole(collection: Collection, path: Path) -> tuple[list[float], bytes | None, str | None]:
    record = collection.get(str(path))[0]
    assert record is not None and record.uri == record.id
    vector_M = collection.vectors([record.id])[0]
    return vector_M.tolist(), collection.thumbnail(record.id), record.content


def test_a_renamed_file_moves(collection: Collection, root: Path) -> None:
    index_folder(collection, root)
    before = whole(collection, root / "a.png")
    embedded(collection)
    (root / "a.png").rename(root / "renamed.png")
    report = index_folder(collection, root)
    assert report.moved == 1 and report.done == 4 and counts(report) == (0, 0, 3, 0, 0)
    assert embedded(collection) == [] and whole(collection, root / "renamed.png") == before
    assert collection.search("red", limit=1)[0].id == str(root / "renamed.png")
    assert collection.count() == 4
    assert counts(index_folder(collection, root)) == (0, 0, 4, 0, 0)


def test_a_folder_renamed_inside_moves_whole(collection: Collection, root: Path) -> None:
    for name in ("a.png", "b.png", "d.JPG"):
        (root / name).rename(root / "sub" / name)
    index_folder(collection, root)
    embedded(collection)
    (root / "sub").rename(root / "other")  # all of it: nothing is lost, so nothing is refused
    report = index_folder(collection, root)
    assert report.moved == 4 and counts(report) == (0, 0, 0, 0, 0) and embedded(collection) == []
    assert {hit.id for hit in collection.search("red", limit=9)} == {
        str(root / "other" / name) for name in ("a.png", "b.png", "c.png", "d.JPG")
    }


def test_copies_take_over_what_is_stored(collection: Collection, root: Path) -> None:
    index_folder(collection, root)
    embedded(collection)
    shutil.copy(root / "a.png", root / "sub" / "copy.png")
    shutil.copy(root / "a.png", root / "another.png")
    (root / "b.png").rename(root / "moved.png")
    shutil.copy(root / "moved.png", root / "moved too.png")
    report = index_folder(collection, root)
    assert report.moved == 1 and counts(report) == (3, 0, 3, 0, 0)
    assert embedded(collection) == [] and collection.count() == 7
    assert whole(collection, root / "moved.png") == whole(collection, root / "moved too.png")
    away = root.rename(root.parent / "elsewhere")  # another folder: the items of the old one stay
    report = index_folder(collection, away)
    assert counts(report) == (7, 0, 0, 0, 0) and report.gone == {str(root): 7}
    assert embedded(collection) == [] and collection.count() == 14


def test_names_that_go_round_are_known_by_their_bytes(collection: Collection, root: Path) -> None:
    (root / "b.png").write_bytes(encoded(GREEN).ljust(300, b"\0"))  # none has another's size
    (root / "d.JPG").write_bytes(encoded(BLACK).ljust(400, b"\0"))
    index_folder(collection, root)
    before = [whole(collection, root / name) for name in ("a.png", "b.png", "d.JPG")]
    embedded(collection)
    for old, new in (("d.JPG", "e.png"), ("b.png", "d.JPG"), ("a.png", "b.png")):
        (root / old).rename(root / new)
    assert counts(index_folder(collection, root)) == (1, 2, 1, 1, 0)
    assert embedded(collection) == []
    assert [whole(collection, root / name) for name in ("b.png", "d.JPG", "e.png")] == before


def test_what_only_looks_moved_is_embedded_and_drops_nothing(
    collection: Collection, root: Path
) -> None:
    for at, path in enumerate(sorted(root.rglob("*.*"))):
        paint(path, (at, 0, 0)).write_bytes(encoded((at, 0, 0)).ljust(300, b"\0"))
        os.utime(path, (1, 1))
    index_folder(collection, root)
    embedded(collection)
    for name in ("a.png", "b.png", "d.JPG"):
        (root / name).unlink()
        paint(root / f"new {name}", BLUE)
        (root / f"new {name}").write_bytes(encoded((0, 0, len(name) + ord(name[0]))).ljust(300))
        os.utime(root / f"new {name}", (1, 1))
    with pytest.raises(InvalidInput, match=r"3 of the 4 .*--prune"):
        index_folder(collection, root)
    assert len(embedded(collection)) == 3 and collection.count() == 7
    assert counts(index_folder(collection, root, PRUNE)) == (0, 0, 4, 3, 0)


def test_a_twin_that_is_damaged_is_embedded_anew(tmp_path: Path, root: Path) -> None:
    with Collection.open(tmp_path / "c", embedder=CountingModel()) as collection:
        index_folder(collection, root)
    connection = apsw.Connection(str(tmp_path / "c" / STORE), vfs=CHECKED)
    connection.execute("UPDATE thumbnails SET jpeg = x'00'")
    connection.close()
    shutil.copy(root / "a.png", root / "copy.png")
    with Collection.open(tmp_path / "c", embedder=CountingModel()) as collection:
        assert counts(index_folder(collection, root)) == (1, 0, 4, 0, 0)
        assert embedded(collection) == ["copy.png"]
        assert (collection.thumbnail(str(root / "copy.png")) or b"").startswith(b"\xff\xd8")


def test_token_states_move_too_and_through_the_process_that_writes(
    tmp_path: Path, root: Path
) -> None:
    with (
        Collection.open(tmp_path / "c", embedder=CountingModel(), tokens=True) as first,
        Collection.open(tmp_path / "c", embedder=CountingModel()) as second,
    ):
        index_folder(first, root)
        before = first.search("red", limit=9, rerank=9)
        (root / "a.png").rename(root / "moved.png")
        report = index_folder(second, root)
        assert report.moved == 1 and embedded(second) == []
        after = first.search("red", limit=9, rerank=9)
    renamed = {str(root / "a.png"): str(root / "moved.png")}
    assert [hit.id for hit in after] == [renamed.get(hit.id, hit.id) for hit in before]
    assert [hit.score for hit in after] == [hit.score for hit in before]
