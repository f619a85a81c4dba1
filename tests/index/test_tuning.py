"""Held-out queries, their truth, and the knobs that reach a recall."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from triptych.index import ANNS
from triptych.index.base import Cancelled, Positions
from triptych.index.holdout import Holdout
from triptych.index.rowfile import RowFile
from triptych.index.segments import Base, Knobs
from triptych.index.tuning import (
    K,
    Questions,
    Tuned,
    ask,
    best_scores,
    fit,
    questions_of,
    tune,
)
from triptych.types import Matrix, Vector

EFFORTS = (1, 2, 4, 8, 16, 32)
REFINES = (1, 2, 4, 8)


def clustered(count: int, dim: int, *, seed: int = 0) -> Matrix:
    """Return unit rows of low intrinsic dimension, as embeddings are."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(4, count // 300), 24))
    latent = centres[rng.integers(0, len(centres), count)]
    latent = latent + 0.5 * rng.standard_normal((count, 24))
    vectors = latent @ np.random.default_rng(1).standard_normal((24, dim))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32)


class Held:
    """A source in memory."""

    def __init__(self, vectors_NM: Matrix) -> None:
        self.vectors_NM = vectors_NM
        self.dim = vectors_NM.shape[1]

    def __len__(self) -> int:
        return len(self.vectors_NM)

    def gather(self, positions_K: Positions) -> Matrix:
        vectors_KM: Matrix = self.vectors_NM[positions_K]
        return vectors_KM


class Synthetic:
    """Finds the share of the truth that the knobs are worth, in a time that grows with them."""

    def __init__(self, questions: Questions, *, ceiling: float = 1.0) -> None:
        self.asked: list[Knobs] = []
        self._truth = {
            query.tobytes(): (truth, hard)
            for query, truth, hard in zip(
                questions.vectors_QM, questions.truth_QK, questions.hard_Q, strict=True
            )
        }
        self._ceiling = ceiling

    def recall(self, knobs: Knobs, hard: bool) -> float:
        worth = min(1.0, knobs.effort / 8) * min(1.0, knobs.refine / (4 if hard else 2))
        return min(worth, self._ceiling)

    def seconds(self, knobs: Knobs) -> float:
        return 2e-5 * (knobs.effort + 2 * knobs.refine)

    def search(self, query_M: Vector, k: int, knobs: Knobs) -> Vector:
        if not self.asked or self.asked[-1] != knobs:
            self.asked.append(knobs)
        end = time.perf_counter() + self.seconds(knobs)
        truth_K, hard = self._truth[query_M.tobytes()]
        found: Vector = truth_K[: round(k * self.recall(knobs, bool(hard)))]
        while time.perf_counter() < end:
            pass
        return found


@pytest.fixture(scope="module")
def questions() -> Questions:
    return ask(Held(clustered(500, 16)))


def test_the_truth_is_that_of_a_sort() -> None:
    vectors = clustered(9_000, 8)  # more than one chunk
    queries = vectors[:5]
    scores = queries @ vectors.T
    expected = -np.sort(-scores, axis=1)[:, :K]
    np.testing.assert_allclose(best_scores(Held(vectors), queries, K), expected, atol=1e-6)
    out = np.array([0, 1, 2, 3, 4, 8_500])
    expected = -np.sort(-np.delete(scores, out, axis=1), axis=1)[:, :K]
    found = best_scores(Held(vectors), queries, K, without=out)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_questions_are_what_was_held_back_and_the_same_moved() -> None:
    source = Held(clustered(3_000, 32))
    held = source.gather(Holdout(3_000).positions_H)
    queries, hard = questions_of(held)
    assert queries.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(queries[~hard], held)
    assert 0.4 < (queries[hard] * held).sum(axis=1).mean() < 0.8
    np.testing.assert_array_equal(queries, questions_of(held)[0])
    truth = ask(source).truth_QK
    assert truth[~hard, 0].max() < 1 - 1e-4, "nothing finds itself"


@pytest.mark.parametrize("count", [10, 11, 19])
def test_fewer_vectors_than_neighbours(count: int) -> None:
    questions = ask(Held(clustered(count, 4)))
    assert questions.truth_QK.shape == (2, K)
    assert np.isfinite(questions.truth_QK).sum() == 2 * min(K, count - 1)
    ann = Synthetic(questions)
    assert tune(ann.search, (32,), (8,), questions, 0.9).recall == 1.0


def test_too_few_to_hold_any_back_are_scanned(tmp_path: Path) -> None:
    rows = written(tmp_path, clustered(9, 4))
    ann = ANNS.resolve("hnsw").build("hnsw", rows, threads=1, cancelled=lambda: False)
    assert fit(Base("hnsw", rows, ann), 0.5) is None


def test_the_cheapest_knobs_that_reach_the_recall_are_taken(questions: Questions) -> None:
    ann = Synthetic(questions)
    tuned = tune(ann.search, EFFORTS, REFINES, questions, 0.95)
    assert tuned.knobs == Knobs(effort=8, refine=4)
    assert tuned.reached
    assert tuned.recall == 1.0
    assert tuned.seconds >= ann.seconds(tuned.knobs)
    assert len(ann.asked) <= len(EFFORTS) + 2 * len(REFINES)


def test_the_recall_is_demanded_of_the_harder_half(questions: Questions) -> None:
    easy = replace(questions, hard_Q=np.zeros_like(questions.hard_Q))
    assert tune(Synthetic(easy).search, EFFORTS, REFINES, easy, 0.95).knobs.refine == 2
    assert tune(Synthetic(questions).search, EFFORTS, REFINES, questions, 0.95).knobs.refine == 4


def test_a_recall_out_of_reach_is_said(questions: Questions) -> None:
    ann = Synthetic(questions, ceiling=0.9)
    tuned = tune(ann.search, EFFORTS, REFINES, questions, 0.95)
    assert not tuned.reached
    assert tuned.recall == pytest.approx(0.9)


def test_knobs_slower_than_a_scan_are_not_taken(questions: Questions) -> None:
    tuned = tune(Synthetic(questions).search, EFFORTS, REFINES, questions, 0.95, slowest=1e-9)
    assert tuned == Tuned(Knobs(1, 8), 0.0, np.inf, reached=False)


def written(folder: Path, vectors: Matrix) -> RowFile:
    chunk = (np.arange(len(vectors), dtype=np.int64), vectors)
    RowFile.write(folder / "rows", [chunk], dim=vectors.shape[1], precision="fp32")
    return RowFile.open(folder / "rows")


@pytest.mark.parametrize("kind", ["hnsw", "hnsw_sq8", "ivf_rabitq", "ivf_sq8"])
def test_real_kinds_keep_their_recall_on_queries_that_were_not_tuned_on(
    kind: str, tmp_path: Path
) -> None:
    vectors = clustered(30_200, 64)
    rows, fresh = written(tmp_path, vectors[:30_000]), vectors[30_000:]
    ann = ANNS.resolve(kind).build(kind, rows, threads=1, cancelled=lambda: False, whole=False)
    # 30,000 are scanned so fast that on a busy machine no kind is worth it: it is insisted upon
    tuned = fit(Base(kind, rows, ann), 0.95, insist=True)
    assert tuned is not None
    assert tuned[1] >= 0.95
    ann.complete(rows)
    assert len(ann) == len(rows)
    base = Base(kind, rows, ann, tuned[0])
    truth = best_scores(rows, fresh, K)
    found = [base.best(query, K, removed_N=None, allowed=None)[1] for query in fresh]
    recall = np.mean(
        [(got >= true[-1] - 1e-5).mean() for got, true in zip(found, truth, strict=True)]
    )
    assert recall >= tuned[1] - 0.01


def test_a_base_without_an_ann_is_exact(tmp_path: Path) -> None:
    assert fit(Base("flat", written(tmp_path, clustered(50, 8))), 0.97) == (Knobs(1, 1), 1.0)


def test_a_fit_can_be_cancelled(tmp_path: Path) -> None:
    rows = written(tmp_path, clustered(600, 8))
    ann = ANNS.resolve("rabitq").build("rabitq", rows, threads=1, cancelled=lambda: False)
    with pytest.raises(Cancelled):
        fit(Base("rabitq", rows, ann), 0.97, cancelled=lambda: True)
    calls = iter([False] * 3)
    with pytest.raises(Cancelled):
        fit(Base("rabitq", rows, ann), 0.97, cancelled=lambda: next(calls, True))
