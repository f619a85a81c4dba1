"""What an encoder is: unit vectors for search, and what a model may offer beside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from triptych.errors import InvalidInput
from triptych.types import Cube, Item, Matrix, Vector

if TYPE_CHECKING:
    from PIL.Image import Image


@runtime_checkable
class EmbeddingModel(Protocol):
    """Items to unit vectors; an item embeds alone as it does in a batch (law 2)."""

    @property
    def name(self) -> str: ...

    @property
    def fingerprint(self) -> str:
        """Hex digest of artefact, preprocessing, tokenizer, quantisation and dimension (law 4)."""

    @property
    def dim(self) -> int: ...

    @property
    def languages(self) -> tuple[str, ...]:
        """BCP 47 tags of the languages served."""

    def embed(self, items: Sequence[Item]) -> Matrix:
        """Return emb_NM, float32 unit rows, in the order of `items`.

        Raises PictureError for a picture that cannot be read.
        """


@runtime_checkable
class CountsTokens(Protocol):
    """An `EmbeddingModel` may say how much it reads."""

    def num_tokens(self, texts: Sequence[str], num_pictures: int) -> int:
        """Return the tokens of the texts, as far as they are read, and of so many pictures."""


@runtime_checkable
class LateInteraction(Protocol):
    """Items to states of their tokens, all in one space, that answer each other one by one.

    An `EmbeddingModel` may offer it beside; its fingerprint covers both.
    """

    @property
    def token_width(self) -> int:
        """W, the same for texts and pictures; raises NotAvailable where there are no states."""

    def token_states(self, items: Sequence[Item]) -> list[Matrix]:
        """Return states_TW of each item, float32 unit rows, T >= 1; alone equals in a batch.

        Raises PictureError for a picture that cannot be read.
        """


@runtime_checkable
class PairScoring(Protocol):
    """A text and a picture that look at each other, from the token states of both.

    A model with token states may offer it beside; its fingerprint covers both.
    """

    @property
    def has_scorer(self) -> bool: ...

    @property
    def pair_weight(self) -> float:
        """How many cosines a unit of the score is worth."""

    @property
    def num_patches(self) -> int:
        """How many of an item's states are its picture's; they come last."""

    def score_pairs(self, text_TW: Matrix, pictures: Sequence[Matrix]) -> Vector:
        """Return scores_K of a text beside each picture, higher is better; no cosines.

        A score does not depend on what else is scored.
        """


@runtime_checkable
class Occlusion(Protocol):
    """What a picture's vector loses when a place of the picture is hidden; for explanations.

    An `EmbeddingModel` may offer it beside.
    """

    @property
    def has_places(self) -> bool:
        """Whether `hidden_places` answers."""

    def hidden_places(self, pictures: Sequence[Image]) -> list[Cube]:
        """Return lost_RCM of each upright RGB picture: its unit vector less that without a place.

        R rows and C columns of places cover the whole picture. The product with a query's vector
        is what its cosine loses.
        """


def unit_rows(emb_NM: np.ndarray[Any, Any]) -> Matrix:
    """Rows scaled to unit length, as float32; raises InvalidInput on a zero or non-finite row."""
    with np.errstate(over="ignore"):
        emb_NM = np.ascontiguousarray(emb_NM, dtype=np.float32)
    # float64 for the norm: a row of 1e38 would overflow its own square
    norm_N1 = np.sqrt(np.einsum("nm,nm->n", emb_NM, emb_NM, dtype=np.float64))[:, None]
    # written so that NaN, which is the least and the greatest of all, passes neither
    if not norm_N1.max(initial=0.0) < np.inf:
        raise InvalidInput(
            "A vector holds NaN or infinity, or more than 3.4e38: expected finite float32 numbers."
        )
    if not norm_N1.min(initial=np.inf) >= 1e-30:
        raise InvalidInput("A vector is zero: it points nowhere, so it has no cosine.")
    unit_NM: Matrix = np.empty_like(emb_NM)
    np.divide(emb_NM, norm_N1, out=unit_NM, casting="same_kind")
    return unit_NM


def real_numbers(vector: Any, of: str) -> np.ndarray[Any, Any]:
    """Return what is meant as a vector, as float32 or float64; raises InvalidInput.

    `of` says whose it is.
    """
    try:
        numbers = np.asarray(vector)
    except ValueError:  # lists of unequal length
        numbers = np.empty(0, dtype=object)
    if numbers.dtype == np.float32:  # what is float32 already need not be copied
        return numbers
    if numbers.dtype.kind not in "fiu":
        raise InvalidInput(f"The vector of {of} is not a list of real numbers.")
    return numbers.astype(np.float64)
