"""The scan of halves leaves out nothing, whatever lies near the cut, goes, or comes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conformance.segments import based
from triptych.index.base import checked_vectors
from triptych.index.flat import FlatIndex
from triptych.index.halves import Halves
from triptych.index.segments import Knobs, SegmentedIndex

DIM = 24


def crowded(num: int, seed: int, spread: float) -> np.ndarray:
    """Return unit rows so near to one another that halves cannot tell many of them apart."""
    chance = np.random.default_rng(seed)
    middle = chance.standard_normal(DIM)
    return checked_vectors(middle + spread * chance.standard_normal((num, DIM)), DIM)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**16),
    spread=st.sampled_from([1e-6, 1e-4, 1e-2, 1.0]),
    k=st.integers(1, 40),
    gone=st.sampled_from([0.0, 0.3, 0.99]),
)
def test_the_best_are_always_among_those_near_the_cut(
    seed: int, spread: float, k: int, gone: float
) -> None:
    vectors_NM = crowded(300, seed, spread)
    query_M = crowded(1, seed + 1, 1.0)[0]
    without_N = np.random.default_rng(seed).random(300) < gone
    near = Halves(vectors_NM).near_the_cut(query_M, k, without_N)
    exact_N = vectors_NM.astype(np.float64) @ query_M
    exact_N[without_N] = -2
    best = np.argsort(-exact_N)[: min(k, int((~without_N).sum()))]
    assert set(best.tolist()) <= set(near.tolist())
    assert not without_N[near].any()


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_index_answers_alike_before_and_after_it_has_halves(
    monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr("triptych.index.scan._FEWEST", 100)
    rows_N, vectors_NM = np.arange(3, 503), crowded(500, 1, 0.05)
    index = SegmentedIndex(DIM, based(rows_N, vectors_NM, "flat", precision, Knobs(1, 1)))
    index.add(np.arange(1_000, 1_300), crowded(300, 2, 0.05))
    queries_QM = crowded(50, 3, 0.5)
    for change in (lambda: 0, lambda: index.remove(np.arange(3, 200)), lambda: index.add(
        np.arange(1_299, 1_310), crowded(11, 4, 0.05)
    )):  # fmt: skip
        change()
        reference = FlatIndex(DIM)
        reference.add(index.rows(), index.vectors_of(index.rows()))
        expected_QK, expected_scores_QK = reference.search(queries_QM, 10)
        for at in range(len(queries_QM)):
            found_1K, scores_1K = index.search(queries_QM[at : at + 1], 10)
            np.testing.assert_array_equal(found_1K[0], expected_QK[at])
            np.testing.assert_array_equal(scores_1K[0], expected_scores_QK[at])


def test_few_vectors_and_few_scans_get_no_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(
        "triptych.index.halves.Halves.__init__", lambda self, vectors_NM: made.append(1)
    )
    index = SegmentedIndex(DIM)
    index.add(np.arange(500), crowded(500, 1, 1.0))
    for _ in range(40):
        index.search(crowded(1, 2, 1.0), 10)
    assert not made
    monkeypatch.setattr("triptych.index.scan._FEWEST", 100)
    for at in range(40):
        index.remove(np.array([at]))  # never the same for long
        index.search(crowded(1, 2, 1.0), 10)
    assert not made
