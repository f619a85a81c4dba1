"""FAISS: approximate neighbours among positions."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import faiss
import numpy as np

from triptych.errors import CollectionDamaged
from triptych.index.base import NOTHING, Cancelled, Positions, Source
from triptych.index.copies import Copies
from triptych.index.holdout import Holdout
from triptych.types import Matrix, Vector

_SAMPLE = 39  # vectors that k-means wants for each list
_FEWEST_SAMPLES = 4096
_SLACK_BYTES = 1 << 26  # tables that are made while reading
_SAMPLE_BYTES = 400_000_000
_ADDED_AT_ONCE = 8_192
_LINKED_AT_ONCE = 1_024  # into a graph: the longest wait for `cancelled`, about 0.2 seconds
_LADDER = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)

_api: Any = faiss  # its annotations lag behind what it has


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind as FAISS's factory spells it, with {lists} and {subspaces} filled in."""

    factory: str
    type: str
    codec: int | None = None

    @property
    def graph(self) -> bool:
        return self.factory.startswith("HNSW")


# a single list scans all codes, and unlike FAISS's own flat RaBitQ it takes a selector
_KINDS = {
    "hnsw": _Kind("HNSW24", "IndexHNSWFlat"),
    "hnsw_sq8": _Kind("HNSW24,SQ8", "IndexHNSWSQ"),
    "ivf_sq8": _Kind("IVF{lists},SQ8", "IndexIVFScalarQuantizer", _api.ScalarQuantizer.QT_8bit),
    "ivf_fp16": _Kind("IVF{lists},SQfp16", "IndexIVFScalarQuantizer", _api.ScalarQuantizer.QT_fp16),
    "ivf_pq": _Kind("IVF{lists},PQ{subspaces}x4fs", "IndexIVFPQFastScan"),
    "ivf_rabitq": _Kind("IVF{lists},RaBitQfs", "IndexIVFRaBitQFastScan"),
    "rabitq": _Kind("IVF1,RaBitQfs", "IndexIVFRaBitQFastScan"),
}
_CANDIDATES_AT_BUILD = 60
_loading = threading.Lock()  # FAISS's limits for reading are the process's


class FaissAnn:
    """Positions 0..N-1 by approximate inner product of unit vectors; obeys `Ann`."""

    def __init__(self, kind: str, index: Any, count: int, copies: Copies) -> None:
        self.kind = kind
        self._index = index
        self._holdout = Holdout(count)
        self._copies = copies
        self._most = max(1, count if _KINDS[kind].graph else int(index.nlist))

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
        count, dim = len(source), source.dim
        index: Any = faiss.index_factory(
            dim,
            _KINDS[kind].factory.format(lists=_lists(count, dim), subspaces=_subspaces(dim)),
            faiss.METRIC_INNER_PRODUCT,
        )
        if _KINDS[kind].graph:
            index.hnsw.efConstruction = _CANDIDATES_AT_BUILD
        else:
            for trained in (index, getattr(index, "pq", index)):
                trained.cp.min_points_per_centroid = 1  # else it warns on the standard error
        graph = _KINDS[kind].graph
        copies = Copies.among(source, Holdout(count)) if graph else Copies.none()
        built = cls(kind, index, count, copies)
        with num_threads(threads):
            if cancelled():
                raise Cancelled
            if not index.is_trained:
                index.train(source.gather(_sample(count, dim)))
            built._fill(source, built._holdout.num_others, cancelled)
        if whole:
            built.complete(source)
        return built

    def complete(self, source: Source) -> None:
        with num_threads(1):
            self._fill(source, len(source), lambda: False)

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        return int(self._index.d)

    def efforts(self) -> tuple[int, ...]:
        least = 8 if _KINDS[self.kind].graph else 1
        return (*(step for step in _LADDER if least <= step < self._most), self._most)

    def search(
        self, query_M: Vector, k: int, *, effort: int, allowed: Positions | None = None
    ) -> Positions:
        params = self._parameters(effort, allowed)
        with num_threads(1):
            _, found_1K = self._index.search(query_M[None], min(k, len(self)), params=params)
        found_K = found_1K[0]
        found_K = found_K[found_K != NOTHING]
        if not len(self._copies):
            return self._holdout.positions_of(found_K)
        return self._with_copies(found_K, k, allowed)

    def save(self, path: Path) -> None:
        with path.open("wb") as file:
            # through Python's file: FAISS's own writer takes no path that is not UTF-8
            faiss.write_index(self._index, _api.PyCallbackIOWriter(file.write, 1 << 20))
            file.write(self._copies.appended())

    @classmethod
    def load(cls, kind: str, path: Path, *, mapped: bool = False) -> Self:
        try:
            with path.open("rb") as file, _limited(path.stat().st_size):
                flags = faiss.IO_FLAG_MMAP_IFC if mapped else 0
                index: Any = faiss.read_index(f"/proc/self/fd/{file.fileno()}", flags)
        except (OSError, RuntimeError, MemoryError):
            raise CollectionDamaged(f"The index's {path.name} is not a FAISS index.") from None
        codec = index.sq.qtype if hasattr(index, "sq") else None
        got = (type(index).__name__, codec, index.metric_type)
        if got != (_KINDS[kind].type, _KINDS[kind].codec, faiss.METRIC_INNER_PRODUCT):
            raise CollectionDamaged(f"The index's {path.name} is a FAISS index of another kind.")
        count = int(index.ntotal)
        return cls(kind, index, count, Copies.read(path, count))

    def _fill(self, source: Source, end: int, cancelled: Callable[[], bool]) -> None:
        """Add, in the order of its numbers, all that is missing before `end`."""
        size = _LINKED_AT_ONCE if _KINDS[self.kind].graph else _ADDED_AT_ONCE
        for start in range(len(self), end, size):
            if cancelled():
                raise Cancelled
            numbers = np.arange(start, min(start + size, end))
            self._add(source.gather(self._holdout.positions_of(numbers)))

    def _add(self, vectors_NM: Matrix) -> None:
        linked_N = self._copies.linked(len(self), len(self) + len(vectors_NM))
        turns = np.flatnonzero(np.diff(linked_N)) + 1
        for some_NM, linked in zip(
            np.split(vectors_NM, turns), linked_N[[0, *turns]].tolist(), strict=True
        ):
            if linked:
                self._index.add(some_NM)
            else:
                self._index.storage.add(some_NM)
                self._index.hnsw.prepare_level_tab(len(some_NM))
                self._index.ntotal = self._index.storage.ntotal

    def _with_copies(self, found_K: Positions, k: int, allowed: Positions | None) -> Positions:
        numbers_K = self._copies.expanded(found_K)
        positions_K = self._holdout.positions_of(numbers_K[numbers_K < len(self)])
        if allowed is not None:
            positions_K = positions_K[np.isin(positions_K, allowed)]
        return positions_K[:k]

    def _parameters(self, effort: int, allowed: Positions | None) -> Any:
        """Return the knobs for one call: other threads' searches have their own."""
        graph, effort = _KINDS[self.kind].graph, min(effort, self._most)
        if allowed is None:
            return _knobs(graph, effort)
        inside_N = self._copies.with_firsts(self._holdout.chosen(allowed))
        selector = _api.IDSelectorBitmap(np.packbits(inside_N, bitorder="little"))
        # as a keyword, or FAISS does not keep the selector alive
        return _knobs.__wrapped__(graph, effort, sel=selector)


@lru_cache(maxsize=256)
def _knobs(graph: bool, effort: int, **more: Any) -> Any:
    """Return FAISS's object for them; to make one costs a tenth of a search."""
    if graph:
        return _api.SearchParametersHNSW(efSearch=effort, **more)
    return _api.SearchParametersIVF(nprobe=effort, **more)


def _lists(count: int, dim: int) -> int:
    """Return how many lists: four roots of the count, as far as the sample feeds them."""
    fed = min(count, _SAMPLE_BYTES // (4 * dim)) // _SAMPLE
    return max(1, min(4 * math.isqrt(count), fed))


def _subspaces(dim: int) -> int:
    """Return how many pieces of at least two numbers divide a vector evenly."""
    return next(num for num in range(max(1, dim // 2), 0, -1) if dim % num == 0)


def _sample(count: int, dim: int) -> Positions:
    """Return the positions to train on; the few that are held back do not matter among them."""
    wanted = min(count, max(_FEWEST_SAMPLES, _SAMPLE * _lists(count, dim)))
    chosen = np.random.default_rng(0).choice(count, wanted, replace=False, shuffle=False)
    return np.sort(chosen)


@contextmanager
def _limited(num_bytes: int) -> Iterator[None]:
    """Let no array be much larger than the file that it is read from."""
    with _loading:
        before = faiss.get_deserialization_vector_byte_limit()
        faiss.set_deserialization_vector_byte_limit(num_bytes + _SLACK_BYTES)
        try:
            yield
        finally:
            faiss.set_deserialization_vector_byte_limit(before)


@contextmanager
def num_threads(num: int) -> Iterator[None]:
    """OpenMP keeps the number per calling thread: other searches are not touched."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(num)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
