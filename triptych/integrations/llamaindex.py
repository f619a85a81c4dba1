"""LlamaIndex: a vector store and a retriever over a collection, here or on a server.

The collection embeds texts and pictures itself; a node's own embedding is not stored, so an index
over the store needs no embedding model (`MockEmbedding(1)` stands for one).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from llama_index.core.base.base_retriever import BaseRetriever
from llama_index.core.bridge.pydantic import PrivateAttr
from llama_index.core.schema import (
    BaseNode,
    ImageNode,
    MetadataMode,
    NodeWithScore,
    QueryBundle,
    TextNode,
)
from llama_index.core.vector_stores.types import (
    BasePydanticVectorStore,
    FilterCondition,
    FilterOperator,
    MetadataFilter,
    MetadataFilters,
    VectorStoreQuery,
    VectorStoreQueryMode,
    VectorStoreQueryResult,
)
from llama_index.core.vector_stores.utils import metadata_dict_to_node

from triptych.errors import InvalidInput, NotAvailable
from triptych.integrations.sources import IMAGE, Awaited, Source, delete_matching, listed
from triptych.types import Item, Part

_NODE, _TYPE, _DOCUMENT = "_node_content", "_node_type", "ref_doc_id"
_PLAIN = {
    FilterOperator.EQ: "$eq",
    FilterOperator.NE: "$ne",
    FilterOperator.GT: "$gt",
    FilterOperator.GTE: "$gte",
    FilterOperator.LT: "$lt",
    FilterOperator.LTE: "$lte",
    FilterOperator.IN: "$in",
    FilterOperator.NIN: "$nin",
    FilterOperator.ANY: "$in",
    FilterOperator.CONTAINS: "$eq",  # a list matches where one of its elements does
}
_MODES = {
    VectorStoreQueryMode.DEFAULT: {},
    VectorStoreQueryMode.HYBRID: {"hybrid": 0.5},
    VectorStoreQueryMode.SEMANTIC_HYBRID: {"hybrid": 0.5},
    VectorStoreQueryMode.MMR: {"diversity": 0.5},
}


class TriptychVectorStore(BasePydanticVectorStore):
    """Nodes in a collection. It closes with `close`, or at the end of a `with`."""

    stores_text: bool = True
    is_embedding_query: bool = False  # it is asked with words
    _collection: Any = PrivateAttr()
    _awaited: Awaited = PrivateAttr()

    def __init__(self, collection: Source) -> None:
        super().__init__(stores_text=True)
        self._collection, self._awaited = collection, Awaited(collection)

    @property
    def client(self) -> Any:
        """The collection."""
        return self._collection

    def add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Store the nodes, replacing by id, and return their ids."""
        self._collection.upsert([_item(node) for node in nodes])
        return [node.node_id for node in nodes]

    async def async_add(self, nodes: Sequence[BaseNode], **kwargs: Any) -> list[str]:
        """Store as `add` does."""
        await self._awaited.call("upsert", [_item(node) for node in nodes])
        return [node.node_id for node in nodes]

    def delete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete all nodes of a document."""
        self._delete_where({_DOCUMENT: ref_doc_id})

    async def adelete(self, ref_doc_id: str, **delete_kwargs: Any) -> None:
        """Delete as `delete` does, in a thread: it takes several calls."""
        await asyncio.to_thread(self.delete, ref_doc_id)

    def delete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Delete the ids, or where filters are given those of them, or all, that match.

        Filters that hold none do not mean all: `clear` does.
        """
        wanted = to_filter(filters)
        if wanted is not None:
            self._delete_where(wanted, node_ids)
        else:
            self._collection.delete(node_ids or [])

    async def adelete_nodes(
        self,
        node_ids: list[str] | None = None,
        filters: MetadataFilters | None = None,
        **delete_kwargs: Any,
    ) -> None:
        """Delete as `delete_nodes` does, in a thread."""
        await asyncio.to_thread(self.delete_nodes, node_ids, filters)

    def clear(self) -> None:
        """Delete all nodes; the collection stays."""
        delete_matching(self._collection)

    async def aclear(self) -> None:
        """Delete as `clear` does, in a thread."""
        await asyncio.to_thread(self.clear)

    def get_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return the nodes with these ids, or that match; at most 10,000."""
        if node_ids is not None and filters is None:
            return [node(one) for one in self._collection.get(node_ids) if one is not None]
        found = listed(self._collection, to_filter(filters))
        return [node(one) for one in found if node_ids is None or one.id in set(node_ids)]

    async def aget_nodes(
        self, node_ids: list[str] | None = None, filters: MetadataFilters | None = None
    ) -> list[BaseNode]:
        """Return what `get_nodes` does, from a thread."""
        return await asyncio.to_thread(self.get_nodes, node_ids, filters)

    def query(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the nearest nodes, best first; similarities are cosines."""
        asked, options = _asked(query)
        return _result(self._collection.search(asked, **{**options, **kwargs}))

    async def aquery(self, query: VectorStoreQuery, **kwargs: Any) -> VectorStoreQueryResult:
        """Return the nearest nodes, best first; similarities are cosines."""
        asked, options = _asked(query)
        return _result(await self._awaited.call("search", asked, **{**options, **kwargs}))

    def close(self) -> None:
        """Close the collection."""
        self._collection.close()

    def __enter__(self) -> TriptychVectorStore:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _delete_where(self, wanted: Any, ids: list[str] | None = None) -> None:
        if ids is None:
            delete_matching(self._collection, wanted)
            return
        found = {hit.id for hit in listed(self._collection, wanted)}
        self._collection.delete([id for id in ids if id in found])


class TriptychRetriever(BaseRetriever):
    """Finds text and image nodes by words, by `QueryBundle(image_path=...)`, or by both.

    `options` are those of `Collection.search`: hybrid, diversity, threshold ...
    """

    def __init__(
        self,
        collection: Source,
        *,
        similarity_top_k: int = 4,
        filters: MetadataFilters | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self._collection, self._awaited = collection, Awaited(collection)
        self._options = {**options, "limit": similarity_top_k, "filter": to_filter(filters)}

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _scored(self._collection.search(_parts(query_bundle), **self._options))

    async def _aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return _scored(await self._awaited.call("search", _parts(query_bundle), **self._options))


def node(found: Any) -> BaseNode:
    """Return a hit or a record as the node that was stored, or one made of what is there."""
    metadata = dict(found.metadata)
    if _NODE in metadata:
        stored: BaseNode = metadata_dict_to_node(metadata, text=found.text)
        return stored
    plain = {"id_": found.id, "text": found.text or "", "metadata": metadata}
    if found.modality in ("image", "both"):
        return ImageNode(image_path=found.uri, **plain)
    return TextNode(**plain)


def to_filter(filters: MetadataFilters | None) -> dict[str, Any] | None:
    """Return the filters in Triptych's language; raises NotAvailable for text_match."""
    if filters is None or not filters.filters:
        return None
    nodes = [
        to_filter(one) if isinstance(one, MetadataFilters) else _filter(one)
        for one in filters.filters
    ]
    given = [one for one in nodes if one is not None]
    if filters.condition is FilterCondition.OR:
        return {"$or": given}
    return {"$not": {"$or": given}} if filters.condition is FilterCondition.NOT else {"$and": given}


def _filter(one: MetadataFilter) -> dict[str, Any]:
    if one.operator in _PLAIN:
        return {one.key: {_PLAIN[one.operator]: one.value}}
    if one.operator is FilterOperator.ALL and isinstance(one.value, list):
        return {"$and": [{one.key: value} for value in one.value]}
    if one.operator is FilterOperator.IS_EMPTY:
        # a list without elements is there, and has no value of any kind
        values = [{"$gte": ""}, {"$gte": 0}, {"$lt": 0}, {"$in": [True, False]}]
        return {"$not": {"$or": [{one.key: value} for value in values]}}
    raise NotAvailable(f"The filter operator {one.operator.value!r} is not known here.")


def _item(given: BaseNode) -> Item:
    """The node itself lies in the metadata as JSON; its text, picture and fields where we look."""
    whole = given.model_dump(mode="json")
    whole["embedding"] = None
    picture: Any = None
    if isinstance(given, ImageNode):
        picture, whole["image"] = _picture(given), None
    text = given.get_content(metadata_mode=MetadataMode.NONE)
    whole.pop("text_resource", None)
    whole["text"] = ""
    metadata = {
        **given.metadata,
        _NODE: json.dumps(whole),
        _TYPE: given.class_name(),
        _DOCUMENT: given.ref_doc_id,
    }
    return Item(id=given.node_id, text=text or None, image=picture, metadata=metadata)


def _picture(given: ImageNode) -> Any:
    if given.image is not None:
        return f"data:image/png;base64,{given.image}"
    return given.image_path or given.image_url or given.metadata.get(IMAGE)


def _asked(query: VectorStoreQuery) -> tuple[list[Part], dict[str, Any]]:
    if query.mode not in _MODES:
        known = ", ".join(mode.value for mode in _MODES)
        raise NotAvailable(f"The mode {query.mode.value!r} is not known here.", hint=known)
    if not query.query_str:
        raise InvalidInput("The query has no words.", hint="The store is asked with words.")
    if query.node_ids is not None:
        raise NotAvailable(
            "A search among node_ids is not known here.", hint="Use doc_ids, or filters."
        )
    options: dict[str, Any] = dict(_MODES[query.mode])
    if "hybrid" in options and query.alpha is not None:
        options["hybrid"] = 1 - query.alpha  # theirs is the share of the vectors
    if "diversity" in options and query.mmr_threshold is not None:
        options["diversity"] = 1 - query.mmr_threshold
    narrowed = [to_filter(query.filters)]
    if query.doc_ids:
        narrowed.append({_DOCUMENT: {"$in": query.doc_ids}})
    given = [one for one in narrowed if one is not None]
    options["filter"] = {"$and": given} if given else None
    return [Part(text=query.query_str)], {**options, "limit": query.similarity_top_k}


def _result(hits: Any) -> VectorStoreQueryResult:
    return VectorStoreQueryResult(
        nodes=[node(hit) for hit in hits],
        similarities=[hit.score for hit in hits],
        ids=[hit.id for hit in hits],
    )


def _scored(hits: Any) -> list[NodeWithScore]:
    return [NodeWithScore(node=node(hit), score=hit.score) for hit in hits]


def _parts(bundle: QueryBundle) -> list[Part]:
    parts = [Part(text=bundle.query_str)] if bundle.query_str.strip() else []
    return [*parts, Part(image=bundle.image_path)] if bundle.image_path else parts
