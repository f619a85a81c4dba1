"""What an index is: int64 rows and unit vectors in, neighbours out, higher is better (law 1).

Letters: N stored rows, Q queries, K neighbours, M embedding width.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, Self, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InvalidInput
from triptych.types import Matrix, Rows, Vector

Positions: TypeAlias = NDArray[np.intp]
"""Places 0..N-1 in something immutable."""

NOTHING = -1
"""The row that fills an answer where nothing more was found; its score is -inf."""

_UNIT_TOLERANCE = 1e-6
# float32 products are off by less than this: whoever is that close to the cut is looked at again
_DOUBT = 1e-5
# one short vector in a thousand creeps on by last bits: 700 rounds are the most that was seen
_HALVINGS = 4_096
_WIDEST = 65_536


@runtime_checkable
class VectorIndex(Protocol):
    """Rows by cosine. Equal scores come in the order of their rows, at the cut as well."""

    kind: str

    def __init__(self, dim: int) -> None: ...

    @property
    def dim(self) -> int: ...

    def __len__(self) -> int: ...

    def rows(self) -> Rows:
        """Return the rows held, rows_N, ascending."""

    def add(self, rows_N: Rows, vectors_NM: NDArray[Any]) -> None:
        """Add or replace; of a row given twice the last stays.

        Raises InvalidInput on a negative row, a wrong shape, NaN, infinity or a zero vector.
        """

    def remove(self, rows_N: Rows) -> int:
        """Return how many of the rows were there and are gone."""

    def search(
        self, vectors_QM: NDArray[Any], k: int, *, allowed: Rows | None = None
    ) -> tuple[Rows, Matrix]:
        """Return ids_QK and scores_QK, descending, K = min(k, rows held); filled up with -1, -inf.

        `allowed` restricts the answer to these rows. Raises InvalidInput where k < 1 or the
        vectors are unusable.
        """

    def save(self, path: Path) -> None:
        """Write the index to `path`; atomic replacement and checksums are the caller's."""

    @classmethod
    def load(cls, path: Path) -> Self:
        """Return the index saved at `path`; raises CollectionDamaged where it is none."""


class Cancelled(Exception):
    """Whoever started a build asked it to stop."""


class Source(Protocol):
    """Vectors by position, too many to hold: what an Ann is built from."""

    @property
    def dim(self) -> int: ...

    def __len__(self) -> int: ...

    def gather(self, positions_K: Positions) -> Matrix:
        """Return float32 unit rows, vectors_KM."""


class Ann(Protocol):
    """Approximate neighbours among the positions 0..N-1 of something immutable.

    Any number of threads may search at once.
    """

    kind: str

    @classmethod
    def build(
        cls,
        kind: str,
        source: Source,
        *,
        threads: int,
        cancelled: Callable[[], bool],
        whole: bool = True,
    ) -> Self:
        """Train and fill an index; raises Cancelled soon after `cancelled()` says so.

        One that is not `whole` lacks what a Holdout holds back of them, until `complete`.
        """

    def complete(self, source: Source) -> None:
        """Add what was held back: after that nothing changes any more."""

    def __len__(self) -> int: ...

    @property
    def dim(self) -> int: ...

    def efforts(self) -> tuple[int, ...]:
        """Return values for `effort`, ascending; with the last nothing reachable is left out."""

    def search(
        self, query_M: Vector, k: int, *, effort: int, allowed: Positions | None = None
    ) -> Positions:
        """Return at most k positions, best first as far as the index can tell."""

    def save(self, path: Path) -> None:
        """Write the index to `path`; fsync and checksums are the caller's."""

    @classmethod
    def load(cls, kind: str, path: Path, *, mapped: bool = False) -> Self:
        """Return the index saved at `path`, mapped instead of read where memory is short.

        Raises CollectionDamaged where it is none of this kind.
        """


def checked_dim(dim: int) -> int:
    """Return `dim`; raises InvalidInput outside of 1..65536."""
    if not 1 <= dim <= _WIDEST:
        raise InvalidInput(f"An index has 1 to {_WIDEST} dimensions, got {dim}.")
    return dim


def checked_vectors(vectors_NM: NDArray[Any], dim: int) -> Matrix:
    """Return contiguous float32 unit rows; raises InvalidInput with what was got and expected."""
    array = np.asarray(vectors_NM)
    if array.ndim != 2 or array.shape[1] != dim:
        raise InvalidInput(f"Got vectors of shape {array.shape}, expected (n, {dim}).")
    if array.dtype.kind not in "fiu":
        raise InvalidInput(f"Got vectors of {array.dtype}, expected real numbers.")
    if array.dtype == np.float32 and _are_units(array):
        return np.ascontiguousarray(array)
    wide_NM = array.astype(np.float64)
    if not np.isfinite(wide_NM).all():
        raise InvalidInput("A vector holds NaN or infinity, expected finite numbers.")
    if (np.linalg.norm(wide_NM, axis=1) < 1e-30).any():
        raise InvalidInput("A vector is zero: it points nowhere, so it has no cosine.")
    return _rescaled(wide_NM)


def _rescaled(wide_NM: NDArray[np.float64]) -> Matrix:
    norm_N1 = np.sqrt(np.einsum("nm,nm->n", wide_NM, wide_NM))[:, None]
    # a row that is a unit already keeps its bits: rebuilt and loaded indexes agree exactly
    wide_NM = wide_NM / np.where(np.abs(norm_N1 - 1) > _UNIT_TOLERANCE, norm_N1, 1.0)
    return np.ascontiguousarray(wide_NM, dtype=np.float32)


def halved(vectors_NM: Matrix) -> NDArray[np.float16]:
    """Return unit rows as float16, such that what `widened` makes of it halves to itself again.

    So a vector that went through one file of halves goes through the next one unchanged.
    """
    halves_NM = vectors_NM.astype(np.float16)
    moved_K = np.arange(len(halves_NM))
    for _ in range(_HALVINGS):
        again_KM = widened(halves_NM[moved_K]).astype(np.float16)
        moves_K = (again_KM != halves_NM[moved_K]).any(axis=1)
        moved_K = moved_K[moves_K]
        if not len(moved_K):
            break
        halves_NM[moved_K] = again_KM[moves_K]
    return halves_NM


def widened(halves_NM: NDArray[np.float16]) -> Matrix:
    """Return what was halved as float32 unit rows."""
    # straight to float64 takes four times as long
    return _rescaled(halves_NM.astype(np.float32).astype(np.float64))


def _are_units(vectors_NM: Matrix) -> bool:
    squares_N = np.einsum("nm,nm->n", vectors_NM, vectors_NM, dtype=np.float64)
    # written so that NaN is no unit
    return bool((np.abs(np.sqrt(squares_N) - 1) <= _UNIT_TOLERANCE).all())


def checked_rows(rows_N: Rows, count: int) -> Rows:
    """Return rows_N as int64; raises InvalidInput on a wrong count or a negative row."""
    rows_N = np.ascontiguousarray(rows_N, dtype=np.int64)
    if rows_N.shape != (count,):
        raise InvalidInput(f"Got rows of shape {rows_N.shape}, expected ({count},).")
    if count and rows_N.min() < 0:
        raise InvalidInput(f"A row is 0 or more, got {int(rows_N.min())}.")
    return rows_N


def checked_k(k: int, count: int) -> int:
    """Return how many neighbours to look for, at most `count`; raises InvalidInput below 1."""
    try:
        k = operator.index(k)
    except TypeError:
        raise InvalidInput(f"k is a whole number, got {k!r}.") from None
    if k < 1:
        raise InvalidInput(f"k is 1 or more, got {k}.")
    return min(k, count)


def last_of_each(rows_N: Rows) -> NDArray[np.intp]:
    """Return the positions of the last occurrence of each row."""
    if (rows_N[1:] > rows_N[:-1]).all():
        return np.arange(len(rows_N))
    _, first_of_reversed = np.unique(rows_N[::-1], return_index=True)
    return np.sort(len(rows_N) - 1 - first_of_reversed)


def exact_scores(vectors_KM: Matrix, query_M: Vector) -> Vector:
    """Return the cosines, the same for equal vectors wherever they stand.

    A product in float32 depends on the position within the block; rounding one made in float64
    takes that away.
    """
    scores_K = np.einsum("km,m->k", vectors_KM, query_M, dtype=np.float64)
    return np.asarray(np.minimum(np.maximum(scores_K, -1.0), 1.0), dtype=np.float32)


def ranked(rows_K: Rows, scores_K: Vector, k: int) -> tuple[Rows, Vector]:
    """Return the k best: score descending, then row ascending."""
    order = np.lexsort((rows_K, -scores_K))[:k]
    return rows_K[order], scores_K[order]


def rough_scores(vectors_NM: Matrix, query_M: Vector) -> Vector:
    """Return cosines good to 1e-5, by one thread: BLAS wakes a second, which costs milliseconds."""
    return np.asarray(np.einsum("nm,m->n", vectors_NM, query_M), dtype=np.float32)


def near_the_cut(rough_N: Vector, k: int) -> NDArray[np.intp]:
    """Return the positions of all that may be among the k best, judged by rough scores."""
    if k >= len(rough_N):
        return np.arange(len(rough_N))
    cut = np.partition(rough_N, len(rough_N) - k)[len(rough_N) - k]
    return np.flatnonzero(rough_N >= cut - _DOUBT)


def best_of(rows_N: Rows, vectors_NM: Matrix, query_M: Vector, k: int) -> tuple[Rows, Vector]:
    """Return the k best rows with their exact cosines, ties by row at the cut as well."""
    if k < len(rows_N):
        near = near_the_cut(rough_scores(vectors_NM, query_M), k)
        rows_N, vectors_NM = rows_N[near], vectors_NM[near]
    return ranked(rows_N, exact_scores(vectors_NM, query_M), k)


def nothing_found(num_queries: int, k: int) -> tuple[Rows, Matrix]:
    """Return ids_QK of -1 and scores_QK of -inf."""
    ids_QK = np.full((num_queries, k), NOTHING, dtype=np.int64)
    return ids_QK, np.full((num_queries, k), -np.inf, dtype=np.float32)
