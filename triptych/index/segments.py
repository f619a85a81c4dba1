"""An immutable base on the disk, what came since in memory, and what went since as a mask.

Letters: N positions in the base, Q queries, K neighbours, M embedding width.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.errors import NotFound
from triptych.index.base import (
    Ann,
    Positions,
    best_of,
    checked_dim,
    checked_k,
    checked_rows,
    checked_vectors,
    exact_scores,
    nothing_found,
    ranked,
)
from triptych.index.flat import FlatIndex
from triptych.index.rowfile import RowFile
from triptych.index.scan import Scan
from triptych.types import Matrix, Rows, Vector

Mask: TypeAlias = NDArray[np.bool_]

# m rows gathered cost about 0.4 us each, a filtered graph search about 65 us x N / m: the first
# is cheaper while m squared is below this many times N
_GATHER = 170
# beyond a candidate in eight, asked for or kept in mind on the way, the scan of everything is
# cheaper, and exact
_SCAN = 8
_TUNED = 10  # neighbours that the knobs are tuned for; more of them take more effort
_DEEPER = 4
# removed rows come among the candidates: so many more are asked for
_MARGIN = 1.25
_SPARE = 8
_CHUNK = 4096


@dataclass(frozen=True, slots=True)
class Knobs:
    """How hard an Ann looks; `refine` x k candidates are scored exactly."""

    effort: int
    refine: int


@dataclass(frozen=True, slots=True)
class Base:
    """A row file and, unless it is scanned, an Ann over its positions. Nothing here changes."""

    kind: str
    rows: RowFile
    ann: Ann | None = None
    knobs: Knobs = Knobs(effort=1, refine=1)

    @property
    def last_row(self) -> int:
        return int(self.rows.rows_N[-1]) if len(self.rows) else -1

    def best(
        self, query_M: Vector, k: int, *, removed_N: Mask | None, allowed: Positions | None
    ) -> tuple[Rows, Vector]:
        """Return at most k rows and exact cosines; `allowed` holds no removed position."""
        left = len(self.rows) if allowed is None else len(allowed)
        if allowed is None and removed_N is not None:
            left -= int(np.count_nonzero(removed_N))
        k = min(k, left)
        if k and self.ann is not None and (allowed is None or left**2 > _GATHER * len(self.rows)):
            found = self._approximate(self.ann, query_M, k, left, removed_N, allowed)
            if found is not None:
                return found
        if allowed is not None:
            return self.rows.best(query_M, k, allowed)
        return self.rows.best_of_all(query_M, k, without=removed_N)

    def _approximate(
        self,
        ann: Ann,
        query_M: Vector,
        k: int,
        left: int,
        removed_N: Mask | None,
        allowed: Positions | None,
    ) -> tuple[Rows, Vector] | None:
        """Return None where the k best cannot be had for less than a scan."""
        candidates = min(self.knobs.refine * k, left)
        share = len(self.rows) / left
        effort = int(self.knobs.effort * share * max(1.0, k / _TUNED))
        wanted = candidates
        if removed_N is not None and allowed is None:
            wanted = int(_MARGIN * candidates * share) + _SPARE
        while _SCAN * max(wanted, effort) <= left:
            found = ann.search(query_M, wanted, effort=effort, allowed=allowed)
            if removed_N is not None:
                found = found[~removed_N[found]]
            # fewer are a sign that most of what is near is gone: those left are not the best
            if len(found) >= max(k, candidates // 2):
                return ranked(self.rows.rows_N[found], self.rows.scores(query_M, found), k)
            wanted, effort = _DEEPER * wanted, _DEEPER * effort
        return None


class SegmentedIndex:
    """Every row by cosine: base and delta, less what was removed. The caller guards threads."""

    def __init__(self, dim: int, base: Base | None = None) -> None:
        self._dim = checked_dim(dim)
        self._base = base
        self._delta = FlatIndex(dim)
        self._base_scan, self._delta_scan = Scan(), Scan()
        self._removed_N: Mask | None = None
        self._num_removed = 0

    @property
    def kind(self) -> str:
        return "flat" if self._base is None else self._base.kind

    @property
    def exact(self) -> bool:
        """Whether every row is looked at."""
        return self._base is None or self._base.ann is None

    @property
    def pending(self) -> int:
        """How many rows the base lacks, or has and should not have."""
        return len(self._delta) + self._num_removed

    @property
    def dim(self) -> int:
        return self._dim

    def __len__(self) -> int:
        return self._num_base - self._num_removed + len(self._delta)

    def rows(self) -> Rows:
        return np.sort(np.concatenate([self._base_rows(), self._delta.rows()]))

    def vectors_of(self, rows_K: Rows) -> Matrix:
        """Return the unit vectors of rows, in their order; raises NotFound of a row not held."""
        vectors_KM = np.empty((len(rows_K), self._dim), dtype=np.float32)
        new_K = np.fromiter((row in self._delta for row in rows_K.tolist()), bool, len(rows_K))
        vectors_KM[new_K] = self._delta.vectors_of(rows_K[new_K])
        old_K = rows_K[~new_K]
        at = self._positions(old_K)
        if len(at) != len(old_K):
            raise NotFound(f"The index holds only {len(at)} of {len(old_K)} rows.")
        if self._base is not None:
            vectors_KM[~new_K] = self._base.rows.gather(at)
        return vectors_KM

    def add(self, rows_N: Rows, vectors_NM: NDArray[Any]) -> None:
        vectors_NM = checked_vectors(vectors_NM, self._dim)
        self.put(checked_rows(rows_N, len(vectors_NM)), vectors_NM)

    def put(self, rows_N: Rows, vectors_NM: Matrix) -> None:
        """Add or replace, what was checked before."""
        self._mark_removed(rows_N)
        self._delta_scan.changed()
        self._delta.put(rows_N, vectors_NM)

    def remove(self, rows_N: Rows) -> int:
        rows_N = np.asarray(rows_N, dtype=np.int64)
        if not len(rows_N):
            return 0
        self._delta_scan.changed()
        return self._mark_removed(rows_N) + self._delta.remove(rows_N)

    def search(
        self, vectors_QM: NDArray[Any], k: int, *, allowed: Rows | None = None
    ) -> tuple[Rows, Matrix]:
        vectors_QM = checked_vectors(vectors_QM, self._dim)
        k = checked_k(k, len(self))
        ids_QK, scores_QK = nothing_found(len(vectors_QM), k)
        if not k:
            return ids_QK, scores_QK
        at = None
        if allowed is not None:
            allowed = _ascending(np.asarray(allowed, dtype=np.int64))
            at = self._positions(allowed)
        new = self._delta.candidates(allowed) if len(self._delta) else None
        for q, query_M in enumerate(vectors_QM):
            rows_K, found_K = self._best_of_base(query_M, k, at)
            if new is not None:
                new_rows_K, new_found_K = self._best_of_delta(*new, query_M, k, allowed)
                rows_K = np.concatenate([rows_K, new_rows_K])
                found_K = np.concatenate([found_K, new_found_K])
                rows_K, found_K = ranked(rows_K, found_K, k)
            ids_QK[q, : len(rows_K)], scores_QK[q, : len(rows_K)] = rows_K, found_K
        return ids_QK, scores_QK

    def save(self, path: Path) -> None:
        """Write all rows as one row file, without an Ann."""
        path.unlink(missing_ok=True)  # whoever has mapped what was there keeps it
        precision = "fp32" if self._base is None else self._base.rows.precision
        RowFile.write(path, self._chunks(), dim=self._dim, precision=precision)

    @classmethod
    def load(cls, path: Path) -> Self:
        rows = RowFile.open(path)
        return cls(rows.dim, Base("flat", rows))

    @property
    def _num_base(self) -> int:
        return 0 if self._base is None else len(self._base.rows)

    def _base_rows(self) -> Rows:
        if self._base is None:
            return np.empty(0, dtype=np.int64)
        rows_N = self._base.rows.rows_N
        return rows_N if self._removed_N is None else rows_N[~self._removed_N]

    def _positions(self, rows_K: Rows) -> Positions:
        """Return where in the base those rows are that it has and that were not removed."""
        if self._base is None:
            return np.empty(0, dtype=np.intp)
        at = self._base.rows.positions_of(rows_K)
        return at if self._removed_N is None else at[~self._removed_N[at]]

    def _best_of_base(
        self, query_M: Vector, k: int, allowed: Positions | None
    ) -> tuple[Rows, Vector]:
        if self._base is None:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.float32)
        base, removed_N = self._base, self._removed_N
        if base.ann is None and allowed is None and k < len(self) - len(self._delta):
            rows = base.rows
            near = self._base_scan.near(
                query_M, k, (len(rows), rows.dim),
                lambda: rows.gather(np.arange(len(rows))), removed_N,
            )  # fmt: skip
            if near is not None:
                return ranked(rows.rows_N[near], rows.scores(query_M, near), k)
        return base.best(query_M, k, removed_N=removed_N, allowed=allowed)

    def _best_of_delta(
        self, rows_N: Rows, vectors_NM: Matrix, query_M: Vector, k: int, allowed: Rows | None
    ) -> tuple[Rows, Vector]:
        near = None
        if allowed is None and k < len(rows_N):
            near = self._delta_scan.near(query_M, k, vectors_NM.shape, lambda: vectors_NM)
        if near is None:
            return best_of(rows_N, vectors_NM, query_M, k)
        return ranked(rows_N[near], exact_scores(vectors_NM[near], query_M), k)

    def _mark_removed(self, rows_N: Rows) -> int:
        if self._base is None or (len(rows_N) and rows_N.min() > self._base.last_row):
            return 0  # as new rows are
        at = self._positions(_ascending(rows_N))
        if len(at):
            if self._removed_N is None:
                self._removed_N = np.zeros(self._num_base, dtype=bool)
            self._removed_N[at] = True
            self._num_removed += len(at)
        return len(at)

    def _chunks(self) -> Iterator[tuple[Rows, Matrix]]:
        rows_N = self.rows()
        for start in range(0, len(rows_N), _CHUNK):
            some = rows_N[start : start + _CHUNK]
            yield some, self.vectors_of(some)


def _ascending(rows_N: Rows) -> Rows:
    """Return each row once; most callers' rows ascend, and to see that is far cheaper."""
    return rows_N if (rows_N[1:] > rows_N[:-1]).all() else np.unique(rows_N)
