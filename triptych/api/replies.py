"""What replies look like, for the description; the routes write their bytes themselves."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from triptych.api.schemas import JobReply, Record


class Reply(BaseModel):
    """A reply: what is not described is not in it."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class CollectionName(Reply):
    name: str


class CollectionNames(Reply):
    collections: list[CollectionName]


class Generations(Reply):
    tenant: str
    generations: dict[str, str]


class KeptPictures(Reply):
    count: int
    bytes: int


class CollectionInfo(Reply):
    name: str
    count: int
    model: str
    fingerprint: str
    dim: int
    precision: str
    index: str
    recall_at_10: float | None
    pending: int
    pictures: KeptPictures
    sequence: int
    format: int
    created: float
    damaged: list[str]


class Deleted(Reply):
    deleted: int


class Records(Reply):
    items: list[Record | None]


class Count(Reply):
    count: int


class FacetValue(Reply):
    value: Any
    count: int


class Facets(Reply):
    facets: dict[str, list[FacetValue]]


class ModelReply(Reply):
    id: str
    name: str
    object: Literal["model"]
    created: int
    owned_by: str
    dim: int
    fingerprint: str
    languages: list[str]


class Models(Reply):
    object: Literal["list"]
    data: list[ModelReply]


class EmbeddingReply(Reply):
    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingUsage(Reply):
    prompt_tokens: int
    total_tokens: int


class Embeddings(Reply):
    object: Literal["list"]
    data: list[EmbeddingReply]
    model: str
    usage: EmbeddingUsage


class RankedDocument(Reply):
    text: str | None


class Ranked(Reply):
    index: int
    relevance_score: float
    document: RankedDocument | None = None


class RerankUsage(Reply):
    total_tokens: int


class Reranked(Reply):
    model: str
    results: list[Ranked]
    usage: RerankUsage


class Jobs(Reply):
    jobs: list[JobReply]


class Check(Reply):
    ok: bool
    ms: float | None = None
    age_s: float | None = None


class Ready(Reply):
    status: Literal["ready", "not_ready"]
    checks: dict[str, Check]


class Root(Reply):
    service: str
    openapi: str
    ready: str


class Map(Reply):
    count: int
    side: int
    ids: list[str]
    texts: list[str | None]
    has_image: list[bool]
    cells: list[list[int]]
    fields: list[str]
