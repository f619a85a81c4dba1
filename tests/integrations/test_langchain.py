"""LangChain's own standard tests, and what they do not ask: pictures, scores, filters, closing."""

from __future__ import annotations

import asyncio
import base64
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("langchain_core")
pytest.importorskip("langchain_tests")

from langchain_core.documents import Document
from langchain_core.messages import HumanMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from langchain_core.vectorstores import VectorStore
from langchain_tests.integration_tests import (
    RetrieversIntegrationTests,
    VectorStoreIntegrationTests,
)

import triptych
from triptych.errors import InvalidInput, NotAvailable, TriptychError
from triptych.integrations.langchain import (
    TriptychPassages,
    TriptychRetriever,
    TriptychVectorStore,
)

pytestmark = pytest.mark.anyio  # runs what is async in the standard tests


class TestVectorStoreStandard(VectorStoreIntegrationTests):
    @pytest.fixture
    def vectorstore(self, collection: Any) -> VectorStore:
        return TriptychVectorStore(collection)


class TestRetrieverStandard(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def filled(self, collection: Any) -> None:
        self.collection = collection
        collection.upsert([{"id": str(n), "text": f"sentence number {n}"} for n in range(6)])

    @property
    def retriever_constructor(self) -> type[BaseRetriever]:
        return TriptychRetriever

    @property
    def retriever_constructor_params(self) -> dict[str, Any]:
        return {"collection": self.collection, "k": 2}

    @property
    def retriever_query_example(self) -> str:
        return "sentence number 3"


@pytest.fixture
def store(collection: Any, red: Path, blue: Path) -> TriptychVectorStore:
    store = TriptychVectorStore(collection)
    store.add_documents(
        [
            Document(id="note", page_content="a note on apples", metadata={"year": 2020}),
            Document(id="red", page_content="", metadata={"image": str(red), "year": 2024}),
        ]
    )
    assert store.add_images([str(blue)], [{"year": 2025}], ids=["blue"]) == ["blue"]
    return store


def test_a_picture_in_a_message_finds_pictures(store: TriptychVectorStore, blue: Path) -> None:
    data = base64.b64encode(blue.read_bytes()).decode()
    for block in (
        {"type": "image", "base64": data, "mime_type": "image/png"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
    ):
        (found,) = store.similarity_search(HumanMessage([block]), k=1)
        assert found.id == "blue"
        assert found.metadata == {"year": 2025, "image": str(blue)}
    (found,) = store.similarity_search([{"type": "text", "text": "apples"}], k=1)
    assert found.id == "note"


@pytest.mark.parametrize("url", ["/etc/passwd", "file:///etc/passwd", "~/.ssh/id_rsa", "./red.png"])
def test_a_message_reads_no_file(store: TriptychVectorStore, url: str) -> None:
    with pytest.raises(InvalidInput, match="not a path"):
        store.similarity_search([{"type": "image", "url": url}])


def test_a_message_fetches_no_address(store: TriptychVectorStore) -> None:
    with pytest.raises(TriptychError):
        store.similarity_search([{"type": "image", "url": "http://127.0.0.1:1/x.png"}])


def test_other_blocks_are_named(store: TriptychVectorStore) -> None:
    with pytest.raises(InvalidInput, match="'audio'"):
        store.similarity_search([{"type": "audio", "base64": "AAAA"}])


def test_filters_scores_and_variety(store: TriptychVectorStore) -> None:
    late = store.similarity_search("apples", k=3, filter="year >= 2024")
    assert {found.id for found in late} == {"red", "blue"}
    assert [d.id for d in store.similarity_search("apples", filter={"year": 2020})] == ["note"]
    scored = store.similarity_search_with_score("a note on apples", k=3)
    assert scored[0][1] == pytest.approx(1.0, abs=1e-5)
    assert [score for _, score in scored] == sorted((s for _, s in scored), reverse=True)
    relevance = store.similarity_search_with_relevance_scores("a note on apples", k=3)
    assert all(0 <= score <= 1 for _, score in relevance)
    assert len(store.max_marginal_relevance_search("apples", k=2)) == 2


async def test_awaiting_gives_the_same(store: TriptychVectorStore) -> None:
    expected = store.similarity_search_with_score("a note", k=3)
    many = await asyncio.gather(
        *(store.asimilarity_search_with_score("a note", k=3) for _ in range(8))
    )
    assert all(found == expected for found in many)


async def test_awaiting_leaves_the_loop_free(
    collection: Any, store: TriptychVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A search here waits until the loop has turned, which it only can beside the search."""
    if not isinstance(collection, triptych.Collection):
        pytest.skip("a server is awaited by its client")
    turned, search = threading.Event(), collection.search

    def slow(*args: Any, **options: Any) -> Any:
        assert turned.wait(10), "the loop stood still"
        return search(*args, **options)

    monkeypatch.setattr(collection, "search", slow)
    asyncio.get_running_loop().call_later(0.01, turned.set)
    assert await store.asimilarity_search("apples")


def test_threads_share_a_store(store: TriptychVectorStore) -> None:
    expected = [found.id for found in store.similarity_search("a note", k=3)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: store.similarity_search("a note", k=3), range(16)))
    assert all([one.id for one in each] == expected for each in found)


def test_a_chain_gets_scores_and_sources(collection: Any, store: TriptychVectorStore) -> None:
    retriever = TriptychRetriever(collection=collection, k=1, options={"hybrid": True})
    chain = retriever | RunnableLambda(lambda found: found[0].metadata)
    told = chain.invoke("apples")
    assert told["source"] == "note" and told["modality"] == "text" and told["score"] > 0
    store.add_texts(["a book on pears"], [{"source": "pears.pdf"}])
    assert chain.invoke("a book on pears")["source"] == "pears.pdf"
    passages = TriptychPassages(passages=triptych.Retriever(collection), k=1)
    assert passages.invoke("a book on pears")[0].metadata["source"] == "pears.pdf"
    assert len(retriever.invoke("apples", k=3, filter="year > 2020", hybrid=False)) == 2


def test_wrong_calls_say_so(store: TriptychVectorStore) -> None:
    with pytest.raises(InvalidInput, match="2 texts and 1 ids"):
        store.add_texts(["a", "b"], ids=["1"])
    with pytest.raises(InvalidInput, match="to be deleted"):
        store.delete()
    with pytest.raises(NotAvailable, match="embeds by itself"):
        TriptychVectorStore.from_texts(["a"])
    with pytest.raises(InvalidInput):
        store.similarity_search("apples", filter="year >=")


def test_a_store_closes_its_collection(tmp_path: Path) -> None:
    collection = triptych.open(tmp_path / "c", model="hashing:64")
    with TriptychVectorStore.from_texts(["apples"], ids=["1"], collection=collection) as store:
        assert [found.id for found in store.similarity_search("apples")] == ["1"]
    with triptych.open(tmp_path / "c") as again:  # nobody holds its lock any more
        assert again.delete("1") == 1
