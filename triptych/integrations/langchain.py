"""LangChain: a vector store and a retriever over a collection, here or on a server.

Pictures: a document's picture is its metadata's `image` (a path, a data URI or bytes); what is
found has the picture's address there. A query is words, a message, or its content blocks.
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from types import TracebackType
from typing import Any, Self, TypeAlias
from uuid import uuid4

from langchain_core.callbacks import (
    AsyncCallbackManagerForRetrieverRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.messages import BaseMessage
from langchain_core.retrievers import BaseRetriever
from langchain_core.vectorstores import VectorStore
from pydantic import ConfigDict, Field, PrivateAttr

from triptych.errors import InvalidInput, NotAvailable
from triptych.integrations.sources import IMAGE, Awaited, Source, outside_picture, split_picture
from triptych.retrieval.rag.passage import Passage
from triptych.retrieval.rag.retriever import Retriever
from triptych.types import Hit, Item, Part

Asked: TypeAlias = "str | BaseMessage | Sequence[str | Mapping[str, Any] | Part]"


class TriptychVectorStore(VectorStore):
    """Documents in a collection, which embeds them itself; it closes with the store.

    `filter` of every search is one of Triptych's; further keywords are those of
    `Collection.search` (image, minus, like, hybrid, diversity, threshold ...).
    """

    def __init__(self, collection: Source) -> None:
        self.collection = collection
        self._awaited = Awaited(collection)

    @property
    def embeddings(self) -> Embeddings | None:
        """None: the collection's own model embeds pictures too, and is not replaced."""
        return None

    def add_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Store the texts, replacing by id, and return their ids; a missing one is made up."""
        items = _items(texts, metadatas, ids)
        self.collection.upsert(items)
        return [item.id for item in items]

    async def aadd_texts(
        self,
        texts: Iterable[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
        **kwargs: Any,
    ) -> list[str]:
        """Store as `add_texts` does."""
        items = _items(texts, metadatas, ids)
        await self._awaited.call("upsert", items)
        return [item.id for item in items]

    def add_images(
        self,
        uris: Sequence[str],
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: Sequence[str | None] | None = None,
    ) -> list[str]:
        """Store pictures, named by their paths or data URIs, and return their ids."""
        metadatas = metadatas or [{} for _ in uris]
        pictured = [{**given, IMAGE: uri} for given, uri in zip(metadatas, uris, strict=True)]
        return self.add_texts([""] * len(uris), pictured, ids=ids)

    def delete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Delete the ids, unknown ones too; raises InvalidInput without any."""
        self.collection.delete(_some(ids))
        return True

    async def adelete(self, ids: list[str] | None = None, **kwargs: Any) -> bool | None:
        """Delete as `delete` does."""
        await self._awaited.call("delete", _some(ids))
        return True

    def get_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents that are there."""
        return [document(found) for found in self.collection.get(list(ids)) if found is not None]

    async def aget_by_ids(self, ids: Sequence[str], /) -> list[Document]:
        """Return the documents that are there."""
        found = await self._awaited.call("get", list(ids))
        return [document(one) for one in found if one is not None]

    def similarity_search(self, query: Asked, k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the `k` nearest documents, best first."""
        return [found for found, _ in self.similarity_search_with_score(query, k, **kwargs)]

    async def asimilarity_search(self, query: Asked, k: int = 4, **kwargs: Any) -> list[Document]:
        """Return the `k` nearest documents, best first."""
        return [found for found, _ in await self.asimilarity_search_with_score(query, k, **kwargs)]

    def similarity_search_with_score(
        self, query: Asked, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return documents with their cosines: higher is better."""
        return _scored(self.collection.search(parts(query), limit=k, **kwargs))

    async def asimilarity_search_with_score(
        self, query: Asked, k: int = 4, **kwargs: Any
    ) -> list[tuple[Document, float]]:
        """Return documents with their cosines: higher is better."""
        return _scored(await self._awaited.call("search", parts(query), limit=k, **kwargs))

    def similarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """Return the documents nearest to a vector of the collection's own model."""
        return [found for found, _ in _scored(self._near(embedding, k, **kwargs))]

    async def asimilarity_search_by_vector(
        self, embedding: list[float], k: int = 4, **kwargs: Any
    ) -> list[Document]:
        """Return the documents nearest to a vector of the collection's own model."""
        hits = await self._awaited.call("search", vector=embedding, limit=k, **kwargs)
        return [found for found, _ in _scored(hits)]

    def max_marginal_relevance_search(
        self, query: Asked, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Return near documents that differ; the collection itself chooses how many to look at."""
        return self.similarity_search(query, k, diversity=1 - lambda_mult, **kwargs)

    async def amax_marginal_relevance_search(
        self, query: Asked, k: int = 4, fetch_k: int = 20, lambda_mult: float = 0.5, **kwargs: Any
    ) -> list[Document]:
        """Return near documents that differ."""
        return await self.asimilarity_search(query, k, diversity=1 - lambda_mult, **kwargs)

    @classmethod
    def from_texts(
        cls,
        texts: list[str],
        embedding: Embeddings | None = None,
        metadatas: list[dict[str, Any]] | None = None,
        *,
        ids: list[str] | None = None,
        collection: Source | None = None,
        **kwargs: Any,
    ) -> Self:
        """Return a store with the texts; `collection` embeds them, so `embedding` must be None."""
        if embedding is not None or collection is None:
            raise NotAvailable(
                "The collection embeds by itself: pass embedding=None and a collection.",
                hint="collection=triptych.open('folder', model=...)",
            )
        store = cls(collection)
        store.add_texts(texts, metadatas, ids=ids)
        return store

    def close(self) -> None:
        """Close the collection."""
        self.collection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _near(self, embedding: list[float], k: int, **kwargs: Any) -> list[Hit]:
        return self.collection.search(vector=embedding, limit=k, **kwargs)

    def _select_relevance_score_fn(self) -> Any:
        return lambda cosine: (1.0 + cosine) / 2  # LangChain wants 0..1


class TriptychRetriever(BaseRetriever):
    """Finds words and pictures for a chain; each document's metadata say how well and where.

    `k`, `filter` and any other option of a search may also be given to `invoke`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    collection: Any
    k: int = 4
    filter: Any = None
    options: dict[str, Any] = Field(default_factory=dict)  # hybrid, threshold, diversity ...
    _awaited: Awaited = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        """Prepare for being awaited."""
        self._awaited = Awaited(self.collection)

    def _get_relevant_documents(
        self, query: Asked, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return _told(self.collection.search(parts(query), **self._options(kwargs)))

    async def _aget_relevant_documents(
        self, query: Asked, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return _told(await self._awaited.call("search", parts(query), **self._options(kwargs)))

    def _options(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"k": self.k, "filter": self.filter, **self.options, **given}


class TriptychPassages(BaseRetriever):
    """Finds passages of documents and the pictures in them, each with its citation.

    `passages` is a `triptych.Retriever`; `options` are those of its `retrieve` (words, expand ...).
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    passages: Retriever
    k: int = 4
    filter: Any = None
    options: dict[str, Any] = Field(default_factory=dict)

    def _get_relevant_documents(
        self, query: Asked, *, run_manager: CallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        return self._found(query, kwargs)

    async def _aget_relevant_documents(
        self, query: Asked, *, run_manager: AsyncCallbackManagerForRetrieverRun, **kwargs: Any
    ) -> list[Document]:
        # several searches and a walk along links, in turns
        return await asyncio.to_thread(self._found, query, kwargs)

    def _found(self, query: Asked, given: dict[str, Any]) -> list[Document]:
        k = given.pop("k", self.k)
        options = {"filter": self.filter, **self.options, **given}
        found = self.passages.retrieve(parts(query), limit=k, **options)
        return [_cited(passage) for passage in found]


def parts(asked: Asked) -> str | list[Part]:
    """Return what a string, a message or content blocks ask for.

    Raises InvalidInput for a block that is neither words nor a picture.
    """
    if isinstance(asked, str):
        return asked
    return list(_parts(asked.content if isinstance(asked, BaseMessage) else asked))


def document(found: Any, **more: Any) -> Document:
    """Return a hit or a record as a document."""
    metadata = {**found.metadata, **more}
    if found.modality in ("image", "both") and found.uri is not None:
        metadata[IMAGE] = found.uri
    return Document(page_content=found.text or "", metadata=metadata, id=found.id)


def _parts(blocks: str | Sequence[Any]) -> Iterator[Part]:
    for block in [blocks] if isinstance(blocks, str) else blocks:
        match block:
            case Part():
                yield block
            case str() | {"type": "text", "text": str()}:
                words = block if isinstance(block, str) else block["text"]
                if words.strip():
                    yield Part(text=words)
            case {"type": "image_url", "image_url": {"url": url} | str(url)}:
                yield Part(image=outside_picture(url))
            case {"type": "image", "url": url} if url:
                yield Part(image=outside_picture(url))
            case {"type": "image", "base64": str(data)} | {"type": "image", "data": str(data)}:
                yield Part(image=outside_picture(f"data:image/png;base64,{data}"))
            case {"type": "image", "data": bytes(data)}:
                encoded = base64.b64encode(data).decode("ascii")
                yield Part(image=outside_picture(f"data:image/png;base64,{encoded}"))
            case _:
                kind = block.get("type") if isinstance(block, Mapping) else type(block).__name__
                raise InvalidInput(f"A query holds text and image blocks, got {kind!r}.")


def _items(
    texts: Iterable[str],
    metadatas: Sequence[Mapping[str, Any]] | None,
    ids: Sequence[str | None] | None,
) -> list[Item]:
    given = list(texts)
    for name, values in (("metadatas", metadatas), ("ids", ids)):
        if values and len(values) != len(given):
            raise InvalidInput(f"Got {len(given)} texts and {len(values)} {name}.")
    items = []
    for text, metadata, id in zip(
        given, metadatas or repeat({}), ids or repeat(None), strict=False
    ):
        rest, picture = split_picture(metadata)
        items.append(Item(id=id or str(uuid4()), text=text or None, image=picture, metadata=rest))
    return items


def _some(ids: list[str] | None) -> list[str]:
    if ids is None:
        raise InvalidInput("Which documents are to be deleted?", hint="Give ids=[...].")
    return ids


def _cited(passage: Passage) -> Document:
    source = passage.uri or passage.metadata.get("document") or passage.id
    told = {"source": source, "kind": passage.kind, **passage.metadata, "score": passage.score}
    if passage.citation is not None:
        told["citation"] = str(passage.citation)
    return Document(id=passage.id, page_content=passage.text, metadata=told)


def _scored(hits: Sequence[Hit]) -> list[tuple[Document, float]]:
    return [(document(hit), hit.score) for hit in hits]


def _told(hits: Sequence[Hit]) -> list[Document]:
    # a document that a loader made says itself where it is from
    return [
        document(
            hit,
            score=hit.score,
            modality=hit.modality,
            source=hit.metadata.get("source") or hit.uri or hit.id,
        )
        for hit in hits
    ]
