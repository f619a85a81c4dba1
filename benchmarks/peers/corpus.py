"""Vectors of low intrinsic dimension with metadata, the queries on them, and the exact answers.

N items, Q queries, M = 512 numbers a vector, L = 48 latent dimensions, C clusters, K answers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.common import WORK

DIM = 512
K = 10
GROUPS = {"cat": 100, "shelf": 1000}  # how many values a field has: it keeps 1 %, 0.1 %
QUERIES = 1000
CHUNK = 10_000
CLUSTERS, LATENT, SPREAD, NOISE = 2000, 48, 0.7, 0.15

Floats = NDArray[np.float32]
Positions = NDArray[np.int64]


def metadata(at: int) -> dict[str, Any]:
    """Return the metadata of item `at`."""
    return {
        "cat": at % GROUPS["cat"],
        "lang": "en" if at % 3 else "de",
        "title": f"item {at}",
        "ts": 1_700_000_000 + at,
    }


class Mixture:
    """A Zipf mixture of Gaussian clusters in 48 dimensions, laid into 512 and made unit length.

    The map into 512 dimensions decays as an embedding's spectrum does; a little noise fills the
    rest. Chunk i depends on the seed and i alone, so a million can be streamed and never stored.
    """

    def __init__(self, *, seed: int) -> None:
        rng = np.random.default_rng(seed)
        scales_L = np.arange(1, LATENT + 1) ** -0.5
        basis_ML, _ = np.linalg.qr(rng.standard_normal((DIM, LATENT)))
        self._map_LM = (basis_ML.T * scales_L[:, None]).astype(np.float32)
        self._centres_CL = rng.standard_normal((CLUSTERS, LATENT), dtype=np.float32)
        weights_C = np.arange(1, CLUSTERS + 1) ** -0.5
        self._shares_C = weights_C / weights_C.sum()
        self._spread = np.float32(SPREAD)
        length = np.sqrt((scales_L**2).sum() * (1 + SPREAD**2))
        self._noise = np.float32(NOISE * length / np.sqrt(DIM))
        self._seed = seed

    def chunk(self, at: int) -> Floats:
        """Return the 10,000 unit vectors of chunk `at`; -1 is kept for queries."""
        rng = np.random.default_rng([self._seed, at + 1])
        chosen_N = rng.choice(len(self._centres_CL), CHUNK, p=self._shares_C)
        latent_NL = self._centres_CL[chosen_N]
        latent_NL += self._spread * rng.standard_normal(latent_NL.shape, dtype=np.float32)
        vectors_NM = latent_NL @ self._map_LM
        vectors_NM += self._noise * rng.standard_normal(vectors_NM.shape, dtype=np.float32)
        vectors_NM /= np.linalg.norm(vectors_NM, axis=1, keepdims=True)
        return vectors_NM

    def chunks(self, count: int) -> Iterator[tuple[int, Floats]]:
        """Yield (position of the first, vectors) over `count` vectors."""
        for start in range(0, count, CHUNK):
            yield start, self.chunk(start // CHUNK)[: count - start]


@dataclass(frozen=True)
class Corpus:
    """The first `count` vectors of the mixture in a file, made on first use, with queries."""

    count: int
    seed: int = 0
    folder: Path = WORK

    @cached_property
    def mixture(self) -> Mixture:
        """Return where the vectors come from."""
        return Mixture(seed=self.seed)

    @cached_property
    def vectors_NM(self) -> Floats:
        """Return all vectors, mapped from the file."""
        path = self._path("vectors")
        if not path.exists():
            made = path.with_suffix(".part")
            rows_NM = np.lib.format.open_memmap(
                made, mode="w+", dtype=np.float32, shape=(self.count, DIM)
            )
            for start, chunk_NM in self.mixture.chunks(self.count):
                rows_NM[start : start + len(chunk_NM)] = chunk_NM
            rows_NM.flush()
            made.rename(path)
        return np.load(path, mmap_mode="r")

    @cached_property
    def queries_QM(self) -> Floats:
        """Return held-out vectors of the same mixture."""
        return self.mixture.chunk(-1)[:QUERIES]

    @cached_property
    def truth_QK(self) -> Positions:
        """Return the exact answers among all."""
        return self._kept(
            "truth", lambda: nearest(self.queries_QM, self.mixture.chunks(self.count))
        )

    def truth_within(self, field: str) -> Positions:
        """Return the exact answers to each query among the items of its `only(at, field)`."""
        return self._kept(f"truth-{field}", lambda: self._find_within(GROUPS[field]))

    def part(self, start: int, stop: int) -> Floats:
        """Return vectors start..stop, drawn anew; beyond the end comes the beginning again."""
        wanted = np.arange(start, stop) % self.count
        parts = {at: self._chunk(at) for at in np.unique(wanted // CHUNK).tolist()}
        return np.stack([parts[at // CHUNK][at % CHUNK] for at in wanted.tolist()])

    @cached_property
    def _chunk(self) -> Callable[[int], Floats]:
        return lru_cache(maxsize=2)(self.mixture.chunk)

    def _find_within(self, groups: int) -> Positions:
        """Item i is of group i % groups, so a group is a slice of every chunk."""
        kept: list[list[Floats]] = [[] for _ in range(groups)]
        for start, chunk_NM in self.mixture.chunks(self.count):
            for group in range(min(groups, len(self.queries_QM))):
                kept[group].append(chunk_NM[(group - start) % groups :: groups].copy())
        found_QK = np.empty((len(self.queries_QM), K), dtype=np.int64)
        for group, parts in enumerate(kept):
            asked = slice(group, None, groups)
            if parts:
                found_QK[asked] = nearest(self.queries_QM[asked], [(0, np.concatenate(parts))])
        return found_QK * groups + np.arange(len(found_QK))[:, None] % groups

    def _path(self, what: str) -> Path:
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"mixture-{self.seed}-{self.count}-{what}.npy"

    def _kept(self, what: str, find: Callable[[], Positions]) -> Positions:
        path = self._path(what)
        if not path.exists():
            np.save(path, find())
        return np.load(path)


def only(at: int, field: str) -> dict[str, int]:
    """Return the filter of query `at` on a field."""
    return {field: at % GROUPS[field]}


def nearest(queries_QM: Floats, chunks: Iterable[tuple[int, Floats]]) -> Positions:
    """Return positions of the K largest inner products of each query, best first, exactly.

    `chunks` yields (position of the first, vectors_NM).
    """
    scores_QK = np.full((len(queries_QM), K), -np.inf, dtype=np.float32)
    found_QK = np.full((len(queries_QM), K), -1, dtype=np.int64)
    for start, chunk_NM in chunks:
        both_scores = np.hstack([scores_QK, queries_QM @ chunk_NM.T])
        positions_QN = np.tile(np.arange(start, start + len(chunk_NM)), (len(queries_QM), 1))
        both_found = np.hstack([found_QK, positions_QN])
        best_QK = np.argpartition(-both_scores, K - 1, axis=1)[:, :K]
        scores_QK = np.take_along_axis(both_scores, best_QK, axis=1)
        found_QK = np.take_along_axis(both_found, best_QK, axis=1)
    order_QK = np.argsort(-scores_QK, axis=1, kind="stable")
    return np.take_along_axis(found_QK, order_QK, axis=1)


def recall(found: Any, truth_QK: Positions) -> float:
    """Return the mean share of the true answers that were found."""
    pairs = zip(found, truth_QK, strict=True)
    return float(np.mean([len(set(one) & set(true.tolist())) / len(true) for one, true in pairs]))
