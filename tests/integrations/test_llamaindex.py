"""LlamaIndex: nodes go in and come out whole, text and image nodes are found, filters mean the same."""

from __future__ import annotations

import base64
import threading
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.schema import (
    ImageNode,
    NodeRelationship,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)
from llama_index.core.vector_stores.types import (
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
)

from triptych.errors import InvalidInput, NotAvailable
from triptych.filters import matches, parse_filter
from triptych.integrations.llamaindex import TriptychRetriever, TriptychVectorStore, to_filter


@pytest.fixture
def store(collection: Any, red: Path, blue: Path) -> TriptychVectorStore:
    store = TriptychVectorStore(collection)
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="book")}
    store.add(
        [
            TextNode(
                id_="note", text="a note on apples", metadata={"year": 2020}, relationships=source
            ),
            ImageNode(id_="red", image_path=str(red), metadata={"year": 2024}),
            ImageNode(id_="blue", image=base64.b64encode(blue.read_bytes()).decode()),
        ]
    )
    return store


def test_nodes_come_back_whole(store: TriptychVectorStore, red: Path) -> None:
    note, picture = store.get_nodes(["note", "red", "gone"])
    assert isinstance(note, TextNode) and note.text == "a note on apples"
    assert note.metadata == {"year": 2020} and note.ref_doc_id == "book"
    assert isinstance(picture, ImageNode) and picture.image_path == str(red)
    assert {one.node_id for one in store.get_nodes()} == {"note", "red", "blue"}


def test_words_and_pictures_find(collection: Any, store: TriptychVectorStore, blue: Path) -> None:
    retriever = TriptychRetriever(collection, similarity_top_k=1)
    (found,) = retriever.retrieve("apples")
    assert found.node_id == "note" and found.score is not None and found.score > 0.1
    (found,) = retriever.retrieve(QueryBundle("", image_path=str(blue)))
    assert isinstance(found.node, ImageNode) and found.node_id == "blue"


@pytest.mark.anyio
async def test_awaiting_does_the_same(collection: Any, store: TriptychVectorStore) -> None:
    await store.async_add([TextNode(id_="more", text="pears")])
    result = await store.aquery(VectorStoreQuery(query_str="pears", similarity_top_k=1))
    assert result.ids == ["more"]
    assert (await TriptychRetriever(collection).aretrieve("pears"))[0].node_id == "more"


@pytest.mark.anyio
async def test_deleting_and_getting_leave_the_loop_free(
    store: TriptychVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = []
    for name in ("delete_nodes", "get_nodes", "delete", "clear"):
        done = getattr(TriptychVectorStore, name)

        def noted(self: Any, *args: Any, done: Any = done) -> Any:
            threads.append(threading.current_thread())
            return done(self, *args)

        monkeypatch.setattr(TriptychVectorStore, name, noted)
    (found,) = await store.aget_nodes(["red"])
    assert found.node_id == "red"
    await store.adelete_nodes(["red"])
    await store.adelete("book")
    assert [one.node_id for one in await store.aget_nodes()] == ["blue"]
    await store.aclear()
    assert len(threads) == 5 and threading.main_thread() not in threads


def test_queries_modes_and_filters(store: TriptychVectorStore) -> None:
    late = MetadataFilters(filters=[MetadataFilter(key="year", operator=">", value=2020)])
    for mode in (
        VectorStoreQueryMode.DEFAULT,
        VectorStoreQueryMode.HYBRID,
        VectorStoreQueryMode.MMR,
    ):
        asked = VectorStoreQuery(query_str="apples", similarity_top_k=3, mode=mode)
        assert store.query(asked).ids[0] == "note"  # type: ignore[index]
    asked = VectorStoreQuery(query_str="apples", similarity_top_k=3, filters=late)
    assert store.query(asked).ids == ["red"]
    asked = VectorStoreQuery(query_str="apples", similarity_top_k=3, doc_ids=["book"])
    assert store.query(asked).ids == ["note"]
    with pytest.raises(NotAvailable, match="svm"):
        store.query(VectorStoreQuery(query_str="a", mode=VectorStoreQueryMode.SVM))
    with pytest.raises(NotAvailable, match="node_ids"):
        store.query(VectorStoreQuery(query_str="apples", node_ids=["red"]))
    with pytest.raises(InvalidInput, match="no words"):
        store.query(VectorStoreQuery(query_embedding=[1.0]))


def test_documents_and_nodes_are_deleted(store: TriptychVectorStore) -> None:
    store.delete("book")
    assert {one.node_id for one in store.get_nodes()} == {"red", "blue"}
    store.delete_nodes(filters=MetadataFilters(filters=[MetadataFilter(key="year", value=2024)]))
    store.delete_nodes(["gone"])
    store.delete_nodes(filters=MetadataFilters(filters=[]))
    assert [one.node_id for one in store.get_nodes()] == ["blue"]
    store.clear()
    assert store.get_nodes() == []


@pytest.mark.parametrize(
    ("operator", "value", "field", "expected"),
    [
        ("==", 3, 3, True),
        ("!=", 3, None, True),
        (">=", 3, 2, False),
        ("in", ["a", "b"], "b", True),
        ("nin", ["a"], "a", False),
        ("any", ["a", "b"], ["b", "c"], True),
        ("all", ["a", "b"], ["b", "c"], False),
        ("contains", "c", ["b", "c"], True),
        ("is_empty", None, None, True),
        ("is_empty", None, [], True),
        ("is_empty", None, "x", False),
        ("is_empty", None, [-1], False),
        ("is_empty", None, False, False),
    ],
)
def test_operators_mean_the_same(operator: str, value: Any, field: Any, expected: bool) -> None:
    one = MetadataFilter(key="k", operator=FilterOperator(operator), value=value)
    for condition in FilterCondition:
        told = to_filter(MetadataFilters(filters=[one], condition=condition))
        wanted = parse_filter(told)
        assert wanted is not None
        metadata = {} if field is None else {"k": field}
        meant = not expected if condition is FilterCondition.NOT else expected
        assert matches(wanted, metadata, "text") is meant
    with pytest.raises(NotAvailable, match="text_match"):
        to_filter(
            MetadataFilters(filters=[MetadataFilter(key="k", operator="text_match", value="a")])
        )


def test_a_store_closes_its_collection(tmp_path: Path) -> None:
    import triptych

    with TriptychVectorStore(triptych.open(tmp_path / "c", model="hashing:64")) as store:
        store.add([TextNode(id_="1", text="apples")])
    with triptych.open(tmp_path / "c") as again:
        assert again.delete("1") == 1
