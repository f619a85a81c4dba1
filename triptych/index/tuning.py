"""The cheapest knobs that reach a recall, measured on vectors that were held back from the index.

Letters: N vectors, Q queries, K neighbours, M embedding width.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from triptych.index.base import Cancelled, Positions, Source
from triptych.index.holdout import Holdout
from triptych.index.segments import Base, Knobs
from triptych.types import Matrix, Vector

Found = TypeVar("Found")

K = 10
"""The recall is that of the first ten."""

_CHUNK = 8_192
_REFINES = {
    "hnsw": (1,),
    "ivf_fp16": (1,),
    "hnsw_sq8": (1, 2, 4),
    "ivf_sq8": (1, 2, 4),
}
_COARSE_REFINES = (2, 4, 8, 16, 32, 64)
_SAME = 1e-5  # a product in float32 is off by less

_ALL: dict[str, None] = {"removed_N": None, "allowed": None}

# of the hard half: the length of the offset that all share, and of each one's own noise
_OFFSET = 1.0
_NOISE = 0.5
_LOOKS = (40, 100, 200, 400)  # after so many queries
_HOPELESS = 3  # standard errors


@dataclass(frozen=True, slots=True, eq=False)
class Questions:
    """Queries, the true scores of their best ten, and which of them are of the harder half."""

    vectors_QM: Matrix
    truth_QK: Matrix
    hard_Q: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Tuned:
    """Knobs, the recall of the half that they serve worse, and the median seconds of a search.

    The recall is what was measured less its standard error: the cheapest knobs of many that were
    tried are those that had some luck. Where nothing is `reached`, they are the best seen.
    """

    knobs: Knobs
    recall: float
    seconds: float
    reached: bool


def fit(
    base: Base,
    recall: float,
    *,
    insist: bool = False,
    cancelled: Callable[[], bool] = lambda: False,
) -> tuple[Knobs, float] | None:
    """Return the base's cheapest knobs that reach `recall`, and the recall to be counted on.

    Its Ann is not whole yet: who asks for what it holds already is answered too well. None where
    no knobs do, or none in less time than a scan takes, or nothing is held back to ask for; who
    does `insist` on the kind gets the best knobs all the same. Raises Cancelled.
    """
    if base.ann is None:
        return base.knobs, 1.0
    questions = ask(base.rows, cancelled=cancelled)
    if not len(questions.vectors_QM):
        return None

    def search(query_M: Vector, k: int, knobs: Knobs) -> Vector:
        if cancelled():
            raise Cancelled
        return replace(base, knobs=knobs).best(query_M, k, **_ALL)[1]

    scanned = replace(base, ann=None)
    scans = (partial(scanned.best, query_M, K, **_ALL) for query_M in questions.vectors_QM[:5])
    slowest = np.inf if insist else float(np.median([_timed(scan)[1] for scan in scans]))
    refines = _REFINES.get(base.kind, _COARSE_REFINES)
    tuned = tune(search, base.ann.efforts(), refines, questions, recall, slowest=slowest)
    return (tuned.knobs, tuned.recall) if tuned.reached or insist else None


def ask(source: Source, *, cancelled: Callable[[], bool] = lambda: False) -> Questions:
    """Return queries with their truth among what is not held back; one pass over all vectors.

    Raises Cancelled.
    """
    held_H = Holdout(len(source)).positions_H
    vectors_QM, hard_Q = questions_of(source.gather(held_H))
    truth_QK = best_scores(source, vectors_QM, K, without=held_H, cancelled=cancelled)
    return Questions(vectors_QM, truth_QK, hard_Q)


def questions_of(held_HM: Matrix, *, seed: int = 0) -> tuple[Matrix, NDArray[np.bool_]]:
    """Return unit queries_QM, and which are of the harder half: two of each vector held back.

    The first is the vector as it is: a new one of the same kind as all others. The second is
    like words asked of pictures: moved by an offset that all share, and by noise; it takes about
    twice the candidates.
    """
    rng = np.random.default_rng(seed)
    offset_M = _units(rng.standard_normal((1, held_HM.shape[1])))
    noise_HM = _units(rng.standard_normal(held_HM.shape))
    moved_HM = _units(held_HM + _OFFSET * offset_M + _NOISE * noise_HM).astype(np.float32)
    both_QM = np.stack([held_HM, moved_HM], axis=1).reshape(-1, held_HM.shape[1])
    return both_QM, np.arange(len(both_QM)) % 2 == 1


def best_scores(
    source: Source,
    vectors_QM: Matrix,
    k: int,
    *,
    without: Positions | None = None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Matrix:
    """Return the k best cosines of each query over the source, descending, -inf where too few."""
    best_QK = np.full((len(vectors_QM), k), -np.inf, dtype=np.float32)
    for start in range(0, len(source), _CHUNK):
        if cancelled():
            raise Cancelled
        positions = np.arange(start, min(start + _CHUNK, len(source)))
        if without is not None:
            positions = np.setdiff1d(positions, without, assume_unique=True)
        both = np.hstack([best_QK, vectors_QM @ source.gather(positions).T])
        best_QK = np.partition(both, -k, axis=1)[:, -k:]
    return -np.sort(-best_QK, axis=1)


def tune(
    search: Callable[[Vector, int, Knobs], Vector],
    efforts: Sequence[int],
    refines: Sequence[int],
    questions: Questions,
    recall: float,
    *,
    slowest: float = np.inf,
) -> Tuned:
    """Return the knobs of least median time that reach the recall@10 in both halves.

    `search` returns the exact scores of what it found; efforts and refines ascend, and the recall
    grows with both: so the less is refined, the more effort it takes, and each is tried on the
    way up only. Beyond `slowest` seconds a search is not worth it.
    """
    best: Tuned | None = None
    closest: Tuned | None = None
    least = 0
    for refine in reversed(refines):
        limit = slowest if best is None else best.seconds
        for at in range(least, len(efforts)):
            found = _measured(search, Knobs(efforts[at], refine), questions, recall)
            if found.seconds >= limit:
                break
            if closest is None or found.recall > closest.recall:
                closest = found
            if found.reached:
                best, least = found, at
                break
    if best is not None:
        return best
    return closest or Tuned(Knobs(efforts[0], refines[-1]), 0.0, np.inf, reached=False)


def _measured(
    search: Callable[[Vector, int, Knobs], Vector],
    knobs: Knobs,
    questions: Questions,
    recall: float,
) -> Tuned:
    """Return how the knobs do; after a few queries only, where they are hopeless."""
    hits_Q: list[float] = []
    seconds_Q: list[float] = []
    for query_M, truth_K in zip(questions.vectors_QM, questions.truth_QK, strict=True):
        scores_K, seconds = _timed(partial(search, query_M, K, knobs))
        there_K = truth_K[np.isfinite(truth_K)]
        hits = np.count_nonzero(scores_K[: len(there_K)] >= there_K[-1] - _SAME)
        hits_Q.append(hits / len(there_K))
        seconds_Q.append(seconds)
        if len(hits_Q) in _LOOKS and _at_least(np.array(hits_Q), -_HOPELESS) < recall:
            break
    hard_Q = questions.hard_Q[: len(hits_Q)]
    halves = [np.array(hits_Q)[half] for half in (hard_Q, ~hard_Q) if half.any()]
    worse = min(_at_least(half, 1) for half in halves)
    complete = len(hits_Q) == len(questions.vectors_QM)
    return Tuned(knobs, worse, float(np.median(seconds_Q)), complete and worse >= recall)


def _at_least(hits_Q: NDArray[np.float64], errors: float) -> float:
    """Return the mean less so many standard errors."""
    return float(hits_Q.mean() - errors * hits_Q.std() / math.sqrt(len(hits_Q)))


def _timed(call: Callable[[], Found]) -> tuple[Found, float]:
    start = time.perf_counter()
    found = call()
    return found, time.perf_counter() - start


def _units(vectors_NM: NDArray[Any]) -> NDArray[Any]:
    norm_N1 = np.linalg.norm(vectors_NM, axis=1, keepdims=True)
    return np.asarray(vectors_NM / np.maximum(norm_N1, 1e-12))
