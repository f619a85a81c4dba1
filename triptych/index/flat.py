"""Exact search with numpy alone: what every other index is measured against."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from triptych.errors import CollectionDamaged
from triptych.index.base import (
    best_of,
    checked_dim,
    checked_k,
    checked_rows,
    checked_vectors,
    last_of_each,
    nothing_found,
)
from triptych.types import Matrix, Rows

_FIRST = 16
_GROWTH = 8  # what is not written to takes no memory; what is copied takes time


class FlatIndex:
    """Every query against every vector. Room grows by doubling, the last fills a removed place."""

    kind = "flat"

    def __init__(self, dim: int) -> None:
        self._rows_N: Rows = np.empty(_FIRST, dtype=np.int64)
        self._vectors_NM: Matrix = np.empty((_FIRST, checked_dim(dim)), dtype=np.float32)
        self._place: dict[int, int] = {}

    @property
    def dim(self) -> int:
        return int(self._vectors_NM.shape[1])

    def __len__(self) -> int:
        return len(self._place)

    def __contains__(self, row: int) -> bool:
        return row in self._place

    def rows(self) -> Rows:
        return np.sort(self._rows_N[: len(self)])

    def vectors_of(self, rows_K: Rows) -> Matrix:
        """Return the vectors of rows that are held, in their order; raises KeyError of another."""
        places = [self._place[row] for row in rows_K.tolist()]
        return self._vectors_NM[places]

    def add(self, rows_N: Rows, vectors_NM: NDArray[Any]) -> None:
        vectors_NM = checked_vectors(vectors_NM, self.dim)
        self.put(checked_rows(rows_N, len(vectors_NM)), vectors_NM)

    def put(self, rows_N: Rows, vectors_NM: Matrix) -> None:
        """Add or replace, what was checked before."""
        if not (rows_N[1:] > rows_N[:-1]).all():
            last = last_of_each(rows_N)
            rows_N, vectors_NM = rows_N[last], vectors_NM[last]
        start, end = len(self), len(self) + len(rows_N)
        self._make_room(end)
        rows = rows_N.tolist()
        # a row that is held is written over, where it is
        places = [self._place.setdefault(row, len(self._place)) for row in rows]
        where = slice(start, end) if len(self) == end else places  # one block is copied faster
        self._rows_N[where] = rows_N
        self._vectors_NM[where] = vectors_NM

    def remove(self, rows_N: Rows) -> int:
        before = len(self)
        for row in np.asarray(rows_N, dtype=np.int64).tolist():
            place = self._place.pop(row, None)
            if place is None:
                continue
            end = len(self)
            if place != end:
                self._rows_N[place] = self._rows_N[end]
                self._vectors_NM[place] = self._vectors_NM[end]
                self._place[int(self._rows_N[end])] = place
        return before - len(self)

    def search(
        self, vectors_QM: NDArray[Any], k: int, *, allowed: Rows | None = None
    ) -> tuple[Rows, Matrix]:
        vectors_QM = checked_vectors(vectors_QM, self.dim)
        k = checked_k(k, len(self))
        ids_QK, scores_QK = nothing_found(len(vectors_QM), k)
        rows_N, vectors_NM = self.candidates(allowed)
        for at, query_M in enumerate(vectors_QM):
            found_K, found_scores_K = best_of(rows_N, vectors_NM, query_M, k)
            ids_QK[at, : len(found_K)] = found_K
            scores_QK[at, : len(found_K)] = found_scores_K
        return ids_QK, scores_QK

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, rows=self._rows_N[: len(self)], vectors=self._vectors_NM[: len(self)])

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
        index._place = {row: place for place, row in enumerate(rows_N.tolist())}
        return index

    def candidates(self, allowed: Rows | None) -> tuple[Rows, Matrix]:
        """Return the rows that may be found, in any order, and their vectors."""
        rows_N, vectors_NM = self._rows_N[: len(self)], self._vectors_NM[: len(self)]
        if allowed is None:
            return rows_N, vectors_NM
        inside_N = np.isin(rows_N, np.asarray(allowed, dtype=np.int64))
        return rows_N[inside_N], vectors_NM[inside_N]

    def _make_room(self, num: int) -> None:
        if num > len(self._rows_N):
            room = max(num, _GROWTH * len(self._rows_N))
            spare_rows = np.empty(room, dtype=np.int64)
            spare = np.empty((room, self.dim), dtype=np.float32)
            spare_rows[: len(self)], spare[: len(self)] = (
                self._rows_N[: len(self)],
                self._vectors_NM[: len(self)],
            )
            self._rows_N, self._vectors_NM = spare_rows, spare
