"""A passage is found by the headings above it, and cited without them."""

from collections.abc import Sequence
from math import ceil
from pathlib import Path

import numpy as np
import pytest

from triptych.encoders.hashing import HashingEncoder
from triptych.retrieval.collection import Collection
from triptych.retrieval.maintenance.migrate import migrate
from triptych.retrieval.prepare import as_read
from triptych.retrieval.rag.retriever import Retriever
from triptych.retrieval.rag.tokens import count_tokens
from triptych.types import Item, Matrix

ENGINES = f"Engines of {'very ' * 15}large ships"
SOURCE = f"# Ships\n\n## {ENGINES}\n\n" + "They burn coal and drive a screw. " * 200


class Told(HashingEncoder):
    """Remembers what it was shown."""

    def __init__(self, dim: int = 64) -> None:
        super().__init__(dim=dim)
        self.texts: list[str] = []

    def embed(self, items: Sequence[Item]) -> Matrix:
        self.texts += [item.text or "" for item in items]
        return super().embed(items)


def test_headings_above_a_passage_are_read_with_it_and_not_stored(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(SOURCE)
    model = Told()
    with Collection.open(":memory:", embedder=model) as collection:
        retriever = Retriever(collection)
        assert retriever.add(tmp_path).passages > 2
        found = retriever.retrieve("coal", limit=9)
    later = [one for one in found if one.metadata["start"]]
    assert later and all(one.metadata["heading"] == f"Ships > {ENGINES}" for one in later)
    for passage in found:
        assert passage.citation is not None and passage.citation.text() == passage.text
        headed = f"Ships\n{ENGINES}\n{passage.text}" if passage in later else passage.text
        assert (headed if passage.metadata["headed"] else passage.text) in model.texts
        # a segment of a few words would count as much as one of 254 tokens
        segments = [ceil(count_tokens(text) / 254) for text in (passage.text, headed)]
        assert passage.metadata["headed"] == (segments[0] == segments[1])
    assert {one.metadata["headed"] for one in later} == {True, False}


def test_a_migration_reads_what_the_first_model_read(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text(SOURCE)
    first, second = Told(64), Told(128)
    with Collection.open(tmp_path / "c", embedder=first) as collection:
        Retriever(collection).add(tmp_path / "a.md")
        migrate(collection, second)
        ids = [hit.id for hit in collection.search("coal")]
        vectors = collection.vectors(ids)
        items = [Item(id=one.id, text=one.text) for one in collection.get(ids) if one is not None]
    assert {*first.texts} - {"coal"} == {*second.texts} - {"coal"}
    assert not np.allclose(vectors, second.embed(items), atol=1e-3)


@pytest.mark.parametrize(
    ("metadata", "read"),
    [
        ({"headed": True, "heading": "Ships > Engines"}, "Ships\nThe Engines"),
        ({"headed": True, "heading": ""}, "The Engines"),
        ({"headed": True, "heading": 7}, "The Engines"),
        ({"headed": False, "heading": "Ships"}, "The Engines"),
        ({"heading": "Ships"}, "The Engines"),
    ],
)
def test_only_a_passage_is_read_with_what_it_does_not_say(
    metadata: dict[str, object], read: str
) -> None:
    assert as_read(Item(id="1", text="The Engines", metadata=metadata)).text == read
