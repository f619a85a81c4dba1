"""Fusion, diversity and groups against slow definitions."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.retrieval.fakes import unit_vectors
from triptych.errors import InvalidInput
from triptych.index.base import exact_scores
from triptych.retrieval import ranking
from triptych.retrieval.ranking import (
    Scores,
    first_of_each,
    maximal_marginal_relevance,
    reciprocal_rank_fusion,
    woven,
)
from triptych.types import Matrix, Vector

RANKED = st.lists(st.integers(0, 20), unique=True, max_size=10)
KEYS = st.one_of(st.none(), st.booleans(), st.integers(0, 2), st.sampled_from(["a", "b", ""]))


def named(keys: list[Any]) -> list[str]:
    return [f"alone {at}" if key is None else repr(key) for at, key in enumerate(keys)]


@given(st.lists(st.tuples(RANKED, st.floats(0, 4)), max_size=4), st.integers(0, 100))
def test_fusion_is_the_sum_over_the_lists(pairs: list[tuple[list[int], float]], k: int) -> None:
    lists, weights = [p[0] for p in pairs], [p[1] for p in pairs]
    sums: dict[int, float] = {}
    for rows, weight in pairs:
        for rank, row in enumerate(rows, 1):
            sums[row] = sums.get(row, 0.0) + weight / (k + rank)
    expected = sorted(sums, key=lambda row: (-sums[row], row))
    fused, scores = reciprocal_rank_fusion([np.array(rows) for rows in lists], weights, k=k)
    assert fused.dtype == np.int64
    assert fused.tolist() == expected
    np.testing.assert_allclose(scores, [sums[row] for row in expected])


def test_a_row_of_two_lists_comes_before_the_first_of_one() -> None:
    fused, scores = reciprocal_rank_fusion([np.array([7, 3]), np.array([5, 3])])
    assert fused.tolist() == [3, 5, 7]  # equal sums in the order of their rows
    np.testing.assert_allclose(scores, [2 / 62, 1 / 61, 1 / 61])
    assert reciprocal_rank_fusion([])[0].tolist() == []


def test_weights_and_lists_that_cannot_be_fused() -> None:
    with pytest.raises(InvalidInput, match="1 weights for 2 lists"):
        reciprocal_rank_fusion([np.array([1]), np.array([2])], [1.0])
    for weight in (-1.0, np.nan, np.inf):
        with pytest.raises(InvalidInput, match="Weights are finite"):
            reciprocal_rank_fusion([np.array([1])], [weight])
    with pytest.raises(InvalidInput, match="0 or more, got -1"):
        reciprocal_rank_fusion([], k=-1)
    with pytest.raises(InvalidInput, match="names a row twice"):
        reciprocal_rank_fusion([np.array([1, 2, 1])])


@given(RANKED, RANKED, st.randoms(), st.floats(0, 1), st.integers(0, 12))
def test_woven_rankings_keep_their_order_their_places_and_what_is_due(
    first: list[int], second: list[int], chance: Random, share: float, due: int
) -> None:
    second = [row + 100 for row in second]
    places = [*first, *second]
    chance.shuffle(places)
    places = places[: chance.randint(0, len(places))]
    order = woven(np.array(first, int), np.array(second, int), np.array(places, int), share, due)
    assert [row for row in order.tolist() if row < 100] == first
    assert [row for row in order.tolist() if row >= 100] == second
    is_judged = [row < 100 for row in order.tolist()]
    for n in range(1, len(order) + 1):
        if second:
            assert sum(is_judged[:n]) >= min(int(share * n), due, len(first))
    if due == 0:
        assert is_judged[: len(places)] == [row < 100 for row in places]


def slow_mmr(
    vectors: np.ndarray,
    scores: np.ndarray,
    limit: int,
    diversity: float,
    groups: list[str],
    size: int,
) -> list[int]:
    chosen: list[int] = []
    while len(chosen) < limit:
        full = [name for name in groups if [groups[at] for at in chosen].count(name) == size]
        best, best_value = -1, -np.inf
        for candidate in range(len(scores)):
            if candidate in chosen or groups[candidate] in full:
                continue
            value = float(scores[candidate])
            if chosen:
                like = max(
                    float(np.float32(np.clip(vectors[candidate].astype(float) @ vectors[c], -1, 1)))
                    for c in chosen
                )
                value = (1 - diversity) * value - diversity * like
            if value > best_value + 1e-9:
                best, best_value = candidate, value
        if best < 0:
            break
        chosen.append(best)
    return chosen


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 12),
    st.integers(0, 14),
    st.floats(0, 1),
    st.integers(0, 10_000),
    st.none() | st.lists(KEYS, min_size=12, max_size=12),
    st.integers(1, 3),
)
def test_diversity_is_that_of_the_definition(
    count: int, limit: int, diversity: float, seed: int, keys: list[Any] | None, size: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.standard_normal((count, 6)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = rng.uniform(-1, 1, count)
    keys = keys and keys[:count]
    found = maximal_marginal_relevance(vectors, scores, limit, diversity, groups=keys, size=size)
    names = named(keys or [None] * count)
    assert found.tolist() == slow_mmr(vectors, scores, limit, diversity, names, size)


def eager_mmr(vectors: Matrix, scores: Vector, limit: int, diversity: float) -> list[int]:
    """Every candidate against each that is chosen."""
    marginal = scores.astype(np.float64)
    likeness = np.full(len(scores), -np.inf)
    chosen: list[int] = []
    while len(chosen) < min(limit, len(scores)):
        marginal[chosen] = -np.inf
        chosen.append(int(marginal.argmax()))
        likeness = np.maximum(likeness, exact_scores(vectors, vectors[chosen[-1]]))
        marginal = (1 - diversity) * scores.astype(np.float64) - diversity * likeness
    return chosen


@pytest.mark.parametrize("diversity", [0.0, 0.3, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("copies", [1, 3])
def test_of_many_most_are_compared_with_few(
    monkeypatch: pytest.MonkeyPatch, diversity: float, copies: int
) -> None:
    rng = np.random.default_rng(copies)
    vectors = np.tile(unit_vectors(3000 // copies, dim=48, seed=copies), (copies, 1))
    vectors = rng.permutation(vectors)
    scores = exact_scores(vectors, vectors[5]).round(3)  # so that some are equal
    multiplied, product = [], ranking._largest_products

    def counted(rows_PM: Scores, others_LM: Scores) -> Scores:
        multiplied.append(len(rows_PM) * len(others_LM))
        return product(rows_PM, others_LM)

    monkeypatch.setattr(ranking, "_largest_products", counted)
    found = maximal_marginal_relevance(vectors, scores, 100, diversity)
    assert found.tolist() == eager_mmr(vectors, scores, 100, diversity)
    assert sum(multiplied) < 0.7 * len(vectors) * len(found)


def test_a_product_is_one_of_those_that_blas_makes_alone() -> None:
    rows, others = unit_vectors(64, dim=512), unit_vectors(100, dim=512, seed=1)
    sizes: list[int] = []

    class Noted(np.ndarray):  # type: ignore[type-arg]
        def __matmul__(self, other: Any) -> Any:
            sizes.append(self.size * other.shape[1])
            return np.asarray(self) @ np.asarray(other)

    found = ranking._largest_products(rows.astype(np.float64).view(Noted), others.astype(float))
    np.testing.assert_allclose(found, (rows @ others.T).max(axis=1), atol=1e-6)
    assert len(sizes) > 1 and max(sizes) <= 64**3


@given(st.lists(st.integers(0, 3), max_size=10))
def test_no_diversity_is_the_plain_order_ties_included(values: list[int]) -> None:
    scores = np.array(values, dtype=np.float32)
    vectors = np.ones((len(scores), 1), dtype=np.float32)
    expected = np.argsort(-scores, kind="stable")
    np.testing.assert_array_equal(maximal_marginal_relevance(vectors, scores, 99, 0.0), expected)


def test_a_duplicate_comes_last_where_diversity_is_all() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1], [-1, 0]], dtype=np.float32)
    scores = np.array([0.9, 0.8, 0.7, 0.1])
    assert maximal_marginal_relevance(vectors, scores, 4, 1.0).tolist() == [0, 3, 2, 1]
    assert maximal_marginal_relevance(vectors, scores, 2, 0.5).tolist() == [0, 3]
    assert maximal_marginal_relevance(vectors, scores, 2, 0.1).tolist() == [0, 2]


def test_arguments_of_diversity_are_checked() -> None:
    vectors, scores = np.ones((2, 1), np.float32), np.ones(2)
    for diversity in (-0.1, 1.1, float("nan")):
        with pytest.raises(InvalidInput, match="from 0 to 1"):
            maximal_marginal_relevance(vectors, scores, 1, diversity)
    with pytest.raises(InvalidInput, match="2 vectors and 1 scores"):
        maximal_marginal_relevance(vectors, scores[:1], 1, 0.5)
    with pytest.raises(InvalidInput, match="limit is 0 or more"):
        maximal_marginal_relevance(vectors, scores, -1, 0.5)


@given(st.lists(KEYS, max_size=15), st.integers(1, 4))
def test_the_first_of_each_group_are_kept(keys: list[Any], size: int) -> None:
    names = named(keys)
    expected = [at for at, name in enumerate(names) if names[:at].count(name) < size]
    assert first_of_each(keys, size) == expected
