"""Haystack's own standard tests, and pictures, pipelines and awaiting."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from haystack import Document, Pipeline
from haystack.dataclasses import ByteStream, ImageContent
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError
from haystack.testing.document_store import (
    CountDocumentsByFilterTest,
    DeleteAllTest,
    DeleteByFilterTest,
    DocumentStoreBaseTests,
)
from haystack.testing.document_store_async import (
    CountDocumentsAsyncTest,
    CountDocumentsByFilterAsyncTest,
    DeleteAllAsyncTest,
    DeleteByFilterAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    WriteDocumentsAsyncTest,
)

from triptych.errors import InvalidInput, TriptychError
from triptych.integrations.haystack import TriptychDocumentStore, TriptychRetriever
from triptych.integrations.haystack_filters import to_filter


@pytest.mark.anyio
class TestStandard(
    DocumentStoreBaseTests,
    DeleteAllTest,
    DeleteByFilterTest,
    CountDocumentsByFilterTest,
    CountDocumentsAsyncTest,
    CountDocumentsByFilterAsyncTest,
    DeleteAllAsyncTest,
    DeleteByFilterAsyncTest,
    DeleteDocumentsAsyncTest,
    FilterDocumentsAsyncTest,
    WriteDocumentsAsyncTest,
):
    @pytest.fixture
    def document_store(self, served: Any) -> TriptychDocumentStore:
        return TriptychDocumentStore(collection=served)  # the narrower way of the two

    @staticmethod
    def assert_documents_are_equal(received: list[Document], expected: list[Document]) -> None:
        """Embeddings are the collection's own, and a store has no order."""

        def plain(documents: list[Document]) -> list[Any]:
            return sorted((d.id, d.content, sorted(d.meta.items())) for d in documents)

        assert plain(received) == plain(expected)

    def test_write_documents(self, document_store: Any) -> None:
        one = Document(content="test doc")
        assert document_store.write_documents([one]) == 1
        with pytest.raises(DuplicateDocumentError):
            document_store.write_documents([one])

    async def test_write_documents_async(self, document_store: Any) -> None:
        one = Document(content="test doc")
        assert await document_store.write_documents_async([one]) == 1
        with pytest.raises(DuplicateDocumentError):
            await document_store.write_documents_async([one])


@pytest.fixture
def store(collection: Any, red: Path, blue: Path) -> TriptychDocumentStore:
    store = TriptychDocumentStore(collection=collection)
    store.write_documents(
        [
            Document(id="note", content="a note on apples", meta={"year": 2020}),
            Document(id="red", meta={"image": str(red), "year": 2024}),
            Document(id="blue", blob=ByteStream(blue.read_bytes(), mime_type="image/png")),
        ]
    )
    return store


def test_pictures_and_words_find(store: TriptychDocumentStore, blue: Path, red: Path) -> None:
    retriever = TriptychRetriever(store, top_k=1)
    data = blue.read_bytes()
    for image in (ByteStream(data), ImageContent(base64.b64encode(data).decode(), "image/png")):
        (found,) = retriever.run(image=image)["documents"]
        assert found.id == "blue" and found.score == pytest.approx(1, abs=1e-3)
    (found,) = retriever.run("apples")["documents"]
    assert found.content == "a note on apples"
    late = {"field": "meta.year", "operator": ">", "value": 2020}
    (found,) = retriever.run("apples", filters=late, top_k=5)["documents"]
    assert found.meta == {"image": str(red), "year": 2024}
    with pytest.raises(InvalidInput, match="empty"):
        retriever.run()


def test_an_id_that_comes_twice_at_once_is_a_duplicate(store: TriptychDocumentStore) -> None:
    twice = [Document(id="pear", content="pears"), Document(id="pear", content="more pears")]
    with pytest.raises(DuplicateDocumentError, match="'pear'"):
        store.write_documents(twice, DuplicatePolicy.FAIL)
    assert store.write_documents(twice, DuplicatePolicy.SKIP) == 1
    store.write_documents(twice, DuplicatePolicy.OVERWRITE)

    (found,) = [one for one in store.filter_documents() if one.id == "pear"]
    assert found.content == "more pears"


@pytest.mark.anyio
async def test_awaiting_does_the_same(store: TriptychDocumentStore) -> None:
    more = Document(id="more", content="pears")
    assert await store.write_documents_async([more]) == 1
    assert await store.write_documents_async([more], DuplicatePolicy.SKIP) == 0
    found = await TriptychRetriever(store, top_k=1).run_async("pears")
    assert found["documents"][0].id == "more"
    await store.delete_documents_async(["more"])
    assert await store.count_documents_async() == 3


def test_a_pipeline_is_saved_and_loaded(tmp_path: Path) -> None:
    with TriptychDocumentStore(path=str(tmp_path / "c"), model="hashing:64") as store:
        store.write_documents([Document(id="1", content="apples")])
        pipeline = Pipeline()
        pipeline.add_component("find", TriptychRetriever(store, options={"hybrid": True}))
        saved = pipeline.dumps()
    again = Pipeline.loads(saved, allowed_modules=["triptych.integrations.haystack"])
    assert again.run({"find": {"query": "apples"}})["find"]["documents"][0].id == "1"
    again.get_component("find").document_store.close()


@pytest.mark.parametrize(
    "wrong",
    [
        {"operator": "XOR", "conditions": []},
        {"field": "meta.a", "operator": "~", "value": 1},
        {"field": "meta.a", "operator": ">", "value": {}},
        {"operator": "AND", "conditions": ["a"]},
        {"field": "id", "operator": "==", "value": "1"},
        {"field": "content", "operator": "==", "value": "a note on apples"},
    ],
)
def test_malformed_filters_are_refused(wrong: Any) -> None:
    with pytest.raises(FilterError):
        to_filter(wrong)


@pytest.mark.parametrize("nothing", [{}, None])
def test_without_a_filter_nothing_is_deleted(store: TriptychDocumentStore, nothing: Any) -> None:
    with pytest.raises(FilterError, match="delete_all_documents"):
        store.delete_by_filter(nothing)
    assert store.count_documents() == 3


def test_more_are_deleted_than_are_listed_at_once(
    store: TriptychDocumentStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triptych.integrations.sources._LISTED", 2)
    store.write_documents([Document(id=f"{at}", content=f"pear {at}") for at in range(5)])
    store.delete_all_documents()
    assert store.count_documents() == 0


def test_one_way_to_the_collection_is_given(collection: Any) -> None:
    with pytest.raises(InvalidInput, match="one of path="):
        TriptychDocumentStore()
    with pytest.raises(TriptychError, match="cannot be saved"):
        TriptychDocumentStore(collection=collection).to_dict()
