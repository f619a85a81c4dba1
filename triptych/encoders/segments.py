"""A long text in the parts that a model reads one by one, so that others get in between.

S segments, N texts, M embedding width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np

from triptych.encoders.base import unit_rows
from triptych.types import Matrix


class Segment(str):
    """A part of a text, as the tokens that its model made of it; the string itself is empty."""

    __slots__ = ("ids",)
    ids: list[int]

    @classmethod
    def of(cls, ids: list[int]) -> Segment:
        """Return a segment of these tokens."""
        made = cls()
        made.ids = ids
        return made


@runtime_checkable
class ReadsSegments(Protocol):
    """A vector is the mean of those of its text's segments, unit again: they can be embedded apart.

    An `EmbeddingModel` may offer it beside.
    """

    def segmented(self, text: str, *, pictured: bool) -> Sequence[str]:
        """Return what `embed` takes as texts in the place of this one; one or more.

        Of a text that is `pictured` each goes with the picture.
        """


def mean_of_segments(vectors_SM: Matrix, owners: Sequence[int], num_texts: int) -> Matrix:
    """Return emb_NM, unit rows: the mean of what each text owns."""
    sums_NM = np.zeros((num_texts, vectors_SM.shape[1]), dtype=np.float32)
    np.add.at(sums_NM, owners, vectors_SM)
    return unit_rows(sums_NM)
