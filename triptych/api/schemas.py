"""What bodies look like, and how they become the words of the house."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from triptych.api.config import Limits
from triptych.api.explained import explanation_json
from triptych.types import Hit, Precision

_MOST = Limits()

Name: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$", examples=["photos"])]
Text: TypeAlias = Annotated[StrictStr, Field(min_length=1, max_length=_MOST.text_chars)]
Picture: TypeAlias = Annotated[
    StrictStr,
    Field(min_length=1, description="A data URI, bare base64, part:NAME, or an allowed URL."),
]
Id: TypeAlias = Annotated[StrictStr, Field(min_length=1, max_length=10_000)]
Ids: TypeAlias = Annotated[list[Id], Field(max_length=_MOST.ids)]
Number: TypeAlias = Annotated[float, Field(strict=True)]
Vector: TypeAlias = Annotated[list[Number], Field(min_length=1, max_length=_MOST.dim)]
Metadata: TypeAlias = dict[str, Any]
Filter: TypeAlias = Annotated[
    dict[str, Any] | StrictStr | None, Field(description="JSON or a string, see docs/filters.md")
]
Share: TypeAlias = Annotated[Number, Field(ge=0, le=1)]


class Strict(BaseModel):
    """A body: unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())


class NewCollection(Strict):
    name: Name
    model: Annotated[StrictStr, Field(max_length=200)] | None = None
    precision: Precision = "fp32"
    tokens: StrictBool = False


class ItemBody(Strict):
    id: Id
    text: Text | None = None
    image: Picture | None = None
    vector: Vector | None = None
    metadata: Metadata = {}
    uri: Annotated[StrictStr, Field(max_length=10_000)] | None = None


class Items(Strict):
    # taken apart one by one: an item that is wrong is named, the others are stored
    items: Annotated[list[Any], Field(min_length=1)]


class SomeIds(Strict):
    ids: Ids


class GetItems(Strict):
    ids: Ids
    vectors: StrictBool = False


class CountItems(Strict):
    filter: Filter = None


class PartBody(Strict):
    weight: Number = 1.0
    text: Text | None = None
    image: Picture | None = None
    id: Id | None = None
    vector: Vector | None = None


class SearchOptions(Strict):
    limit: Annotated[StrictInt, Field(ge=1, le=_MOST.hits)] = 10
    offset: Annotated[StrictInt, Field(ge=0, le=_MOST.hits)] = 0
    filter: Filter = None
    threshold: Number | None = None
    hybrid: StrictBool | Share = False
    rerank: Annotated[StrictInt, Field(ge=0, le=_MOST.hits)] = 0
    diversity: Share = 0.0
    group_by: Annotated[StrictStr, Field(min_length=1, max_length=1_000)] | None = None
    group_size: Annotated[StrictInt, Field(ge=1, le=_MOST.hits)] = 1
    near: Annotated[Number, Field(gt=0, le=1)] | None = None
    explain: StrictBool | Ids = False


class SearchBody(SearchOptions):
    query: Text | None = None
    image: Picture | list[Picture] | None = None
    minus: Text | PartBody | list[Text | PartBody] = []
    like: Id | list[Id] = []
    vector: Vector | None = None
    parts: list[PartBody] = []


class RecommendBody(SearchOptions):
    positive: Annotated[list[Id], Field(min_length=1, max_length=_MOST.parts)]
    negative: Annotated[list[Id], Field(max_length=_MOST.parts)] = []
    negative_weight: Annotated[Number, Field(gt=0, le=10)] = 0.5


class FacetsBody(Strict):
    fields: Annotated[
        list[Annotated[StrictStr, Field(min_length=1, max_length=1_000)]],
        Field(min_length=1, max_length=_MOST.fields),
    ]
    filter: Filter = None
    limit: Annotated[StrictInt, Field(ge=1, le=_MOST.hits)] = 20


class Input(Strict):
    """One input of an embedding or a rerank: words, a picture, or both."""

    text: Text | None = None
    image: Picture | None = None


class MessagePart(Strict):
    type: Literal["text", "image_url"]
    text: Text | None = None
    image_url: dict[Literal["url", "detail"], Picture] | None = None


class Message(Strict):
    role: Annotated[StrictStr, Field(max_length=64)] = "user"
    content: Text | list[MessagePart]


class EmbeddingsBody(Strict):
    model: Annotated[StrictStr, Field(max_length=200)] | None = None
    input: Text | Input | Annotated[list[Text | Input], Field(min_length=1)] | None = None
    messages: Annotated[list[Message], Field(min_length=1)] | None = None
    modality: Literal["text", "image"] = "text"
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[StrictInt, Field(ge=1)] | None = None
    user: Annotated[StrictStr, Field(max_length=1_000)] | None = None


class RerankBody(Strict):
    model: Annotated[StrictStr, Field(max_length=200)] | None = None
    query: Text | Input
    documents: Annotated[list[Text | Input], Field(min_length=1, max_length=_MOST.documents)]
    top_n: Annotated[StrictInt, Field(ge=1)] | None = None
    return_documents: StrictBool = True


class ErrorDetail(BaseModel):
    code: str
    message: str
    hint: str | None
    taken_in: int | None = Field(
        None,
        description="Of items or lines that were broken off, where some are done with: at least "
        "so many, from the first on",
    )


class ErrorReply(BaseModel):
    error: ErrorDetail


class ItemError(BaseModel):
    index: int
    id: str | None
    error: ErrorDetail


class Written(BaseModel):
    written: int
    errors: list[ItemError]
    num_errors: int


class Record(BaseModel):
    id: str
    modality: str
    text: str | None
    uri: str | None
    metadata: Metadata
    vector: list[float] | None = None


class HeatReply(BaseModel):
    grid: list[list[float]]
    png: str


class WordHeatReply(HeatReply):
    word: str
    part: int
    start: int
    stop: int


class HitReply(BaseModel):
    id: str
    score: float
    metadata: Metadata
    uri: str | None
    text: str | None
    modality: str
    found: str
    words: float | None
    has_image: bool
    shares: list[float] | None = None
    heat: HeatReply | None = None
    word_heats: list[WordHeatReply] | None = None
    note: str | None = None


class SearchReply(BaseModel):
    hits: list[HitReply]
    limit: int
    offset: int
    explain: dict[str, Any] | None = None


class JobReply(BaseModel):
    id: str
    collection: str
    mode: str
    status: Literal["queued", "running", "done", "cancelled", "failed"]
    total: int
    done: int
    written: int
    num_errors: int
    errors: list[ItemError]
    created: float
    finished: float | None
    error: ErrorDetail | None = None


def hit_json(hit: Hit) -> dict[str, Any]:
    """Return a hit as a reply shows it."""
    said = {
        "id": hit.id,
        "score": hit.score,
        "metadata": hit.metadata,
        "uri": hit.uri,
        "text": hit.text,
        "modality": hit.modality,
        "found": hit.found,
        "words": hit.words,
        "has_image": hit.modality in ("image", "both"),
    }
    if hit.explanation is not None:
        said |= explanation_json(hit.explanation)
    return said
