"""The vocabulary of the house: what is stored, what is asked, what is found.

Frozen values, numpy only; nothing of ours is imported here.

Letters in array names: N stored items, Q queries, K neighbours, M embedding width,
B batch, T tokens or patches, D model width.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InvalidInput

if TYPE_CHECKING:
    from PIL.Image import Image

Modality: TypeAlias = Literal["text", "image", "both", "vector"]
Metadata: TypeAlias = Mapping[str, Any]
Vector: TypeAlias = NDArray[np.float32]
Matrix: TypeAlias = NDArray[np.float32]
Cube: TypeAlias = NDArray[np.float32]
Rows: TypeAlias = NDArray[np.int64]
Precision: TypeAlias = Literal["fp32", "fp16"]
"""How vectors are stored."""

ImageSource: TypeAlias = "str | Path | bytes | Image | NDArray[Any]"
"""A path, an http(s) URL (refused unless allowed), a data URI, encoded bytes, a PIL picture,
or an array H x W (x 3 or 4): uint8, or floating point in 0..1."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Item:
    """One thing that can be found: a text, a picture, both, or a vector of the caller's own.

    `metadata` is what filters, facets and groups look at; `uri` says where it comes from, of a
    picture's path the path itself unless another is given.
    """

    id: str
    text: str | None = None
    image: ImageSource | None = None
    vector: NDArray[Any] | Sequence[float] | None = None
    metadata: Metadata = field(default_factory=dict)
    uri: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise InvalidInput(f"An item's id is a non-empty string, got {self.id!r}.")
        if self.text is None and self.image is None and self.vector is None:
            raise InvalidInput(
                f"Item {self.id!r} is empty.", hint="Give it a text, an image or a vector."
            )

    @property
    def modality(self) -> Modality:
        """What the item's vector is made from."""
        if self.text is not None and self.image is not None:
            return "both"
        if self.text is not None:
            return "text"
        return "image" if self.image is not None else "vector"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Part:
    """One term of a query: a text, image, id or vector; a weight below 0 means not this."""

    weight: float = 1.0
    text: str | None = None
    image: ImageSource | None = None
    id: str | None = None
    vector: NDArray[Any] | Sequence[float] | None = None

    def __post_init__(self) -> None:
        given = sum(x is not None for x in (self.text, self.image, self.id, self.vector))
        if given != 1:
            raise InvalidInput(
                f"A part of a query has exactly one of text, image, id or vector, got {given}."
            )
        if not math.isfinite(self.weight) or self.weight == 0:
            raise InvalidInput(f"A weight is a finite number other than 0, got {self.weight!r}.")


@dataclass(frozen=True, slots=True, eq=False)
class Query:
    """The weighted sum of its parts, each a unit vector; the sum is normalised again."""

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise InvalidInput(
                "The query is empty.", hint="Give words, an image, a stored id or a vector."
            )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Heat:
    """How much of a cosine each place of a picture answers for, over a grid that covers it all."""

    grid_RC: Matrix  # what the cosine loses when the place is hidden; below 0, the place disturbs
    png: bytes  # the same as a small picture to lay over the other: opaque where it is hottest


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WordHeat(Heat):
    """The same for one word of the query."""

    word: str
    part: int  # of the query's parts, from 0
    start: int  # characters start:stop of the part's text
    stop: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Explanation:
    """Why a hit has its score."""

    shares: tuple[float, ...]  # of the query's parts, in their order; they add up to the score
    tier: str  # what answered: the index, for what is explained is never out of a cache
    stages_ms: Mapping[str, float]  # of the whole search, and of explaining it ("explain")
    heat: Heat | None = None  # of the whole query
    words: tuple[WordHeat, ...] = ()
    note: str | None = None  # where there is no heat, a sentence why


@dataclass(frozen=True, slots=True, kw_only=True)
class Hit:
    """One answer. `score` is a cosine in -1..1, higher is better.

    `found` is the kind of index that gave it, with "+words" where words found it too, "+rerank" or
    "+near". `words` is its BM25 score in a hybrid search, `explanation` is there where asked for.
    """

    id: str
    score: float
    metadata: Metadata
    uri: str | None
    text: str | None = None
    modality: Modality = "image"
    found: str = "flat"
    words: float | None = None
    explanation: Explanation | None = field(default=None, compare=False)
