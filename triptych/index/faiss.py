"""FAISS, exact inner product with ids. The only file that knows FAISS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np
from numpy.typing import NDArray

from triptych.errors import CollectionDamaged
from triptych.index.base import (
    NOTHING,
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
_SPARE = 8
# up to so many numbers a second thread costs more than it brings: ten times as much on busy cores
_ONE_THREAD = 50_000_000


class FaissIndex:
    """`IndexFlatIP` under `IndexIDMap2`, scores made exact."""

    kind = "faiss"

    def __init__(self, dim: int) -> None:
        self._index: Any = faiss.IndexIDMap2(faiss.IndexFlatIP(checked_dim(dim)))

    @property
    def dim(self) -> int:
        return int(self._index.d)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def rows(self) -> Rows:
        return np.sort(faiss.vector_to_array(self._index.id_map).astype(np.int64))

    def add(self, rows_N: Rows, vectors_NM: NDArray[Any]) -> None:
        vectors_NM = checked_vectors(vectors_NM, self.dim)
        rows_N = checked_rows(rows_N, len(vectors_NM))
        last = last_of_each(rows_N)
        # FAISS would keep both copies of a row
        self.remove(rows_N)
        if len(last):
            self._index.add_with_ids(vectors_NM[last], rows_N[last])

    def remove(self, rows_N: Rows) -> int:
        held = np.intersect1d(np.asarray(rows_N, dtype=np.int64), self.rows())
        # removal moves the whole matrix, even for nothing
        return int(self._index.remove_ids(held)) if len(held) else 0

    def search(
        self, vectors_QM: NDArray[Any], k: int, *, allowed: Rows | None = None
    ) -> tuple[Rows, Matrix]:
        vectors_QM = checked_vectors(vectors_QM, self.dim)
        k = checked_k(k, len(self))
        ids_QK, scores_QK = nothing_found(len(vectors_QM), k)
        if allowed is not None:
            allowed = np.intersect1d(np.asarray(allowed, dtype=np.int64), self.rows())
        reachable = len(self) if allowed is None else len(allowed)
        if not reachable:
            return ids_QK, scores_QK
        with _threads(1 if len(self) * self.dim <= _ONE_THREAD else faiss.omp_get_max_threads()):
            for at, query_M in enumerate(vectors_QM):
                found_K, found_scores_K = self._best(query_M, min(k, reachable), reachable, allowed)
                ids_QK[at, : len(found_K)] = found_K
                scores_QK[at, : len(found_K)] = found_scores_K
        return ids_QK, scores_QK

    def save(self, path: Path) -> None:
        # through Python's file: FAISS's own writer takes no path that is not UTF-8
        path.write_bytes(faiss.serialize_index(self._index).data)

    @classmethod
    def load(cls, path: Path) -> Self:
        try:
            inner: Any = faiss.deserialize_index(np.fromfile(path, dtype=np.uint8))
        except (OSError, RuntimeError, MemoryError):
            raise CollectionDamaged(f"{path.name} is not a FAISS index.") from None
        flat = faiss.downcast_index(inner.index) if hasattr(inner, "id_map") else None
        if not isinstance(flat, faiss.IndexFlat) or inner.metric_type != faiss.METRIC_INNER_PRODUCT:
            raise CollectionDamaged(f"{path.name} is a FAISS index of another kind.")
        index = cls(int(inner.d))
        index._index = inner
        return index

    def _best(
        self, query_M: Vector, k: int, reachable: int, allowed: Rows | None
    ) -> tuple[Rows, Vector]:
        chosen = None
        if allowed is not None:
            # as a keyword, or FAISS does not keep the selector alive
            chosen = faiss.SearchParameters(sel=faiss.IDSelectorBatch(allowed))  # type: ignore[call-arg]
        wanted = min(k + _SPARE, reachable)
        while True:
            rough_1K, rows_1K = self._index.search(query_M[None], wanted, params=chosen)
            rows_K = rows_1K[0][rows_1K[0] != NOTHING]
            scores_K = exact_scores(self._index.reconstruct_batch(rows_K), query_M)
            best_K, best_scores_K = ranked(rows_K, scores_K, k)
            # beyond what was fetched nobody may still belong above the cut
            if wanted == reachable or rough_1K[0, -1] < best_scores_K[-1] - _DOUBT:
                return best_K, best_scores_K
            wanted = min(4 * wanted, reachable)


@contextmanager
def _threads(num: int) -> Iterator[None]:
    """OpenMP keeps the number per calling thread: other searches are not touched."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(num)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
