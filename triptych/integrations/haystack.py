"""Haystack: a document store and a retriever component over a collection, here or on a server.

Pictures: a document's `blob` of a picture's type, or `meta["image"]`, a path or a data URI. The
collection embeds what is written; a document's own `embedding` is not stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from haystack import Document, component, default_from_dict, default_to_dict
from haystack.dataclasses import ByteStream, ImageContent
from haystack.document_stores.errors import DuplicateDocumentError
from haystack.document_stores.types import DuplicatePolicy
from haystack.errors import FilterError

from triptych.errors import InvalidInput
from triptych.integrations.haystack_filters import to_filter
from triptych.integrations.sources import (
    IMAGE,
    Awaited,
    Source,
    delete_matching,
    listed,
    split_picture,
)
from triptych.registry import Registry
from triptych.types import Hit, Item, Part

OPENERS = Registry(
    "way to a collection",
    {
        "folder": "triptych.settings:open",
        "server": "triptych.client.collection:connect",
    },
    extras={"server": "client"},
)


class TriptychDocumentStore:
    """Documents in a collection.

    Named by `path` (a folder), or by `url` and `name` (a server's), it can be saved in a pipeline;
    `key` is then left out and has to be given again. `collection` is one that is open already.
    """

    def __init__(
        self,
        *,
        path: str | None = None,
        url: str | None = None,
        name: str = "default",
        model: str | None = None,
        key: str | None = None,
        collection: Source | None = None,
    ) -> None:
        if sum(given is not None for given in (path, url, collection)) != 1:
            raise InvalidInput("Give one of path=, url= and collection=.")
        self._path, self._url, self._name, self._model = path, url, name, model
        if collection is not None:
            self.collection = collection
        elif path is not None:
            self.collection = OPENERS.resolve("folder")(path, model=model)
        else:
            self.collection = OPENERS.resolve("server")(url, collection=name, key=key)
        self.awaited = Awaited(self.collection)

    def to_dict(self) -> dict[str, Any]:
        """Return how to open it again; raises InvalidInput for one that was open already."""
        if self._path is None and self._url is None:
            raise InvalidInput("An open collection cannot be saved.", hint="Give path= or url=.")
        said = {"path": self._path, "url": self._url, "name": self._name, "model": self._model}
        saved: dict[str, Any] = default_to_dict(self, **said)
        return saved

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TriptychDocumentStore:
        """Return the store that `to_dict` described."""
        store: TriptychDocumentStore = default_from_dict(cls, data)
        return store

    def count_documents(self) -> int:
        """Return how many documents there are."""
        return self.collection.count()

    async def count_documents_async(self) -> int:
        """Return how many documents there are."""
        return int(await self.awaited.call("count"))

    def count_documents_by_filter(self, filters: dict[str, Any]) -> int:
        """Return how many match; raises FilterError."""
        return self.collection.count(to_filter(filters))

    async def count_documents_by_filter_async(self, filters: dict[str, Any]) -> int:
        """Return how many match, as `count_documents_by_filter` does."""
        return int(await self.awaited.call("count", to_filter(filters)))

    def filter_documents(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Return all that match, at most 10,000; raises FilterError."""
        return [document(hit) for hit in listed(self.collection, to_filter(filters))]

    async def filter_documents_async(self, filters: dict[str, Any] | None = None) -> list[Document]:
        """Return what `filter_documents` does, from a thread: it takes several calls."""
        return await asyncio.to_thread(self.filter_documents, filters)

    def write_documents(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Return how many were written; NONE means FAIL. Raises DuplicateDocumentError."""
        items = _items(documents)
        if policy is DuplicatePolicy.OVERWRITE:
            return self.collection.upsert(items)
        new = self._new(items, self.collection.get([item.id for item in items]), policy)
        return self.collection.add(new) if new else 0

    async def write_documents_async(
        self, documents: list[Document], policy: DuplicatePolicy = DuplicatePolicy.NONE
    ) -> int:
        """Return how many were written, as `write_documents` does."""
        items = _items(documents)
        if policy is DuplicatePolicy.OVERWRITE:
            return int(await self.awaited.call("upsert", items))
        known = await self.awaited.call("get", [item.id for item in items])
        new = self._new(items, known, policy)
        return int(await self.awaited.call("add", new)) if new else 0

    def delete_documents(self, document_ids: list[str]) -> None:
        """Delete the ids; unknown ones are passed over."""
        self.collection.delete(document_ids)

    async def delete_documents_async(self, document_ids: list[str]) -> None:
        """Delete the ids; unknown ones are passed over."""
        await self.awaited.call("delete", document_ids)

    def delete_by_filter(self, filters: dict[str, Any]) -> int:
        """Delete all that match and return how many they were; raises FilterError, for {} too."""
        if not filters:
            raise FilterError("Got no filter, expected one: delete_all_documents deletes all.")
        return delete_matching(self.collection, to_filter(filters))

    async def delete_by_filter_async(self, filters: dict[str, Any]) -> int:
        """Delete as `delete_by_filter` does, in a thread: it takes several calls."""
        return await asyncio.to_thread(self.delete_by_filter, filters)

    def delete_all_documents(self) -> None:
        """Delete all documents; the collection stays."""
        delete_matching(self.collection)

    async def delete_all_documents_async(self) -> None:
        """Delete as `delete_all_documents` does, in a thread."""
        await asyncio.to_thread(self.delete_all_documents)

    def close(self) -> None:
        """Close the collection."""
        self.collection.close()

    def __enter__(self) -> TriptychDocumentStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _new(self, items: list[Item], known: Sequence[Any], policy: DuplicatePolicy) -> list[Item]:
        seen = {record.id for record in known if record is not None}
        new = []
        for item in items:
            if item.id not in seen:
                new.append(item)
                seen.add(item.id)
            elif policy is not DuplicatePolicy.SKIP:
                raise DuplicateDocumentError(f"There is a document {item.id!r} already.")
        return new


@component
class TriptychRetriever:
    """Finds documents by words, a picture, or both; their scores are cosines."""

    def __init__(
        self,
        document_store: TriptychDocumentStore,
        *,
        top_k: int = 10,
        filters: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        """`options` are those of `Collection.search`: hybrid, diversity, threshold ..."""
        self.document_store = document_store
        self.top_k, self.filters, self.options = top_k, filters, options or {}

    def to_dict(self) -> dict[str, Any]:
        """Return how to make it again."""
        saved: dict[str, Any] = default_to_dict(
            self,
            document_store=self.document_store.to_dict(),
            top_k=self.top_k,
            filters=self.filters,
            options=self.options,
        )
        return saved

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> TriptychRetriever:
        """Return the retriever that `to_dict` described."""
        given = dict(data["init_parameters"])
        store = TriptychDocumentStore.from_dict(given.pop("document_store"))
        return cls(store, **given)

    @component.output_types(documents=list[Document])
    def run(
        self,
        query: str | None = None,
        image: ImageContent | ByteStream | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Return the nearest documents, best first."""
        options = self._options(filters, top_k)
        hits = self.document_store.collection.search(_parts(query, image), **options)
        return {"documents": [document(hit, score=hit.score) for hit in hits]}

    @component.output_types(documents=list[Document])
    async def run_async(
        self,
        query: str | None = None,
        image: ImageContent | ByteStream | None = None,
        filters: dict[str, Any] | None = None,
        top_k: int | None = None,
    ) -> dict[str, list[Document]]:
        """Return the nearest documents, best first."""
        options = self._options(filters, top_k)
        asked = _parts(query, image)
        hits = await self.document_store.awaited.call("search", asked, **options)
        return {"documents": [document(hit, score=hit.score) for hit in hits]}

    def _options(self, filters: dict[str, Any] | None, top_k: int | None) -> dict[str, Any]:
        wanted = self.filters if filters is None else filters
        limit = self.top_k if top_k is None else top_k
        return {**self.options, "filter": to_filter(wanted), "limit": limit}


def document(hit: Hit, *, score: float | None = None) -> Document:
    """Return a hit as a document; a picture's address is its meta's `image`."""
    meta = dict(hit.metadata)
    if hit.modality in ("image", "both") and hit.uri is not None:
        meta[IMAGE] = hit.uri
    return Document(id=hit.id, content=hit.text, meta=meta, score=score)


def _items(documents: list[Document]) -> list[Item]:
    if not isinstance(documents, list) or not all(isinstance(one, Document) for one in documents):
        raise InvalidInput("Documents are a list of Haystack's Documents.")
    return [_item(one) for one in documents]


def _item(given: Document) -> Item:
    meta, picture = split_picture(given.meta)
    if given.blob is not None and (given.blob.mime_type or "").startswith("image/"):
        picture = given.blob.data
    return Item(id=given.id, text=given.content or None, image=picture, metadata=meta)


def _parts(query: str | None, image: ImageContent | ByteStream | None) -> list[Part]:
    parts = [Part(text=query)] if query else []
    if isinstance(image, ByteStream):
        parts.append(Part(image=image.data))
    elif image is not None:
        # the type that is said is not believed: what it is, is seen in the bytes
        parts.append(Part(image=f"data:image/png;base64,{image.base64_image}"))
    return parts
