"""Vectors without a model's work, to fill collections with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from triptych.encoders.base import EmbeddingModel, unit_rows
from triptych.types import Item, Matrix


class RandomModel:
    """Stands in for a model while a collection is filled: the fingerprint is that model's.

    They lie near a plane of 24 dimensions, as those of a model do: an index of vectors that fill
    the whole space is one that nobody has.
    """

    def __init__(self, like: EmbeddingModel) -> None:
        self.name, self.fingerprint, self.dim = like.name, like.fingerprint, like.dim
        self.languages = like.languages
        self._random = np.random.default_rng(0)
        self._plane = self._random.standard_normal((24, self.dim)).astype(np.float32)

    def embed(self, items: Sequence[Item]) -> Matrix:
        inner = self._random.standard_normal((len(items), len(self._plane))).astype(np.float32)
        noise = self._random.standard_normal((len(items), self.dim)).astype(np.float32)
        return unit_rows(inner @ self._plane + noise)
