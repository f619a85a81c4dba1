"""Exact search with numpy alone: what every other index is measured against."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from triptych.errors import CollectionDamaged
from triptych.index.base import (
    checked_dim,
    checked_k,
    checked_rows,
    checked_vectors,
    exact_scores,
    last_of_each,
    nothing_found,
    ranked,
)
from triptych.types import Matrix, Rows, Vector

# float32 products are off by less than this: whoever is that close to the cut is looked at again
_DOUBT = 1e-5


class FlatIndex:
    """Every query against every vector."""

    kind = "flat"

    def __init__(self, dim: int) -> None:
        self._rows_N: Rows = np.empty(0, dtype=np.int64)
        self._vectors_NM: Matrix = np.empty((0, checked_dim(dim)), dtype=np.float32)

    @property
    def dim(self) -> int:
        return int(self._vectors_NM.shape[1])

    def __len__(self) -> int:
        return len(self._rows_N)

    def rows(self) -> Rows:
        return np.sort(self._rows_N)

    def add(self, rows_N: Rows, vectors_NM: NDArray[Any]) -> None:
        vectors_NM = checked_vectors(vectors_NM, self.dim)
        rows_N = checked_rows(rows_N, len(vectors_NM))
        last = last_of_each(rows_N)
        self.remove(rows_N)
        self._rows_N = np.concatenate([self._rows_N, rows_N[last]])
        self._vectors_NM = np.concatenate([self._vectors_NM, vectors_NM[last]])

    def remove(self, rows_N: Rows) -> int:
        gone_N = np.isin(self._rows_N, np.asarray(rows_N, dtype=np.int64))
        if gone_N.any():
            self._rows_N = self._rows_N[~gone_N]
            self._vectors_NM = self._vectors_NM[~gone_N]
        return int(gone_N.sum())

    def search(
        self, vectors_QM: NDArray[Any], k: int, *, allowed: Rows | None = None
    ) -> tuple[Rows, Matrix]:
        vectors_QM = checked_vectors(vectors_QM, self.dim)
        k = checked_k(k, len(self))
        ids_QK, scores_QK = nothing_found(len(vectors_QM), k)
        rows_N, vectors_NM = self._candidates(allowed)
        for at, query_M in enumerate(vectors_QM):
            found_K, found_scores_K = _best(rows_N, vectors_NM, query_M, k)
            ids_QK[at, : len(found_K)] = found_K
            scores_QK[at, : len(found_K)] = found_scores_K
        return ids_QK, scores_QK

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, rows=self._rows_N, vectors=self._vectors_NM)

    @classmethod
    def load(cls, path: Path) -> Self:
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                rows_N, vectors_NM = arrays["rows"], arrays["vectors"]
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise CollectionDamaged(f"{path.name} is not a flat index.") from None
        if vectors_NM.ndim != 2 or rows_N.shape != vectors_NM.shape[:1]:
            raise CollectionDamaged(f"{path.name}: rows and vectors differ in number.")
        index = cls(int(vectors_NM.shape[1]))
        index._rows_N = rows_N.astype(np.int64)
        index._vectors_NM = vectors_NM.astype(np.float32)
        return index

    def _candidates(self, allowed: Rows | None) -> tuple[Rows, Matrix]:
        if allowed is None:
            return self._rows_N, self._vectors_NM
        inside_N = np.isin(self._rows_N, np.asarray(allowed, dtype=np.int64))
        return self._rows_N[inside_N], self._vectors_NM[inside_N]


def _best(rows_N: Rows, vectors_NM: Matrix, query_M: Vector, k: int) -> tuple[Rows, Vector]:
    if k < len(rows_N):
        rough_N = vectors_NM @ query_M
        cut = np.partition(rough_N, len(rows_N) - k)[len(rows_N) - k]
        near_N = rough_N >= cut - _DOUBT
        rows_N, vectors_NM = rows_N[near_N], vectors_NM[near_N]
    return ranked(rows_N, exact_scores(vectors_NM, query_M), k)
