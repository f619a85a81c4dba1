import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych import metrics
from triptych.errors import InvalidInput

SCORES = np.array([[0.9, 0.5, 0.1], [0.2, 0.8, 0.3]], dtype=np.float32)
RIGHT = np.array([[True, False, False], [True, False, True]])


def test_first_ranks_by_hand() -> None:
    assert metrics.first_ranks(SCORES, RIGHT).tolist() == [1, 2]


def test_a_query_without_a_right_candidate_ranks_behind_all() -> None:
    assert metrics.first_ranks(SCORES, np.zeros_like(RIGHT)).tolist() == [4, 4]


def test_ties_count_against_the_model() -> None:
    flat = np.ones((1, 5), dtype=np.float32)
    right = np.array([[True, False, False, False, False]])
    assert metrics.first_ranks(flat, right).tolist() == [5]
    assert metrics.mean_average_precision(flat, right) == pytest.approx(0.2)


def test_table_by_hand() -> None:
    table = metrics.retrieval_table(SCORES, RIGHT)
    assert table == {"recall@1": 0.5, "recall@5": 1.0, "recall@10": 1.0, "median_rank": 1.5}


def test_average_precision_by_hand() -> None:
    # second query ranks wrong, right, right: (1/2 + 2/3) / 2
    assert metrics.mean_average_precision(SCORES, RIGHT) == pytest.approx((1 + 7 / 12) / 2)


def test_ndcg_by_hand() -> None:
    d = 1 / np.log2([2, 3, 4])
    expected = (1 + (d[1] + d[2]) / (d[0] + d[1])) / 2
    assert metrics.ndcg_at(SCORES, RIGHT, 3) == pytest.approx(expected)


def test_reciprocal_rank() -> None:
    assert metrics.mean_reciprocal_rank(np.array([1, 2, 4])) == pytest.approx(7 / 12)


@given(st.integers(1, 12), st.integers(1, 12), st.randoms(use_true_random=False))
def test_first_rank_agrees_with_sorting(num_queries: int, num_candidates: int, rng) -> None:
    values = [[rng.random() for _ in range(num_candidates)] for _ in range(num_queries)]
    scores = np.array(values, dtype=np.float32)
    right = np.array([[rng.random() < 0.3 for _ in row] for row in values])
    for row, mask, rank in zip(scores, right, metrics.first_ranks(scores, right), strict=True):
        order = sorted(range(len(row)), key=lambda at: (-row[at], mask[at]))  # ties: wrong first
        found = np.flatnonzero(mask[order])
        assert rank == (found[0] + 1 if len(found) else num_candidates + 1)


def test_no_gap_between_samples_of_one_distribution() -> None:
    draw = np.random.default_rng(0)
    same = draw.standard_normal((2, 4000, 16)).astype(np.float32)
    gap = metrics.modality_gap(same[0], same[1])
    assert gap.distance < 0.05 and gap.separability < 0.05  # of a spread of 1 in each of 16


def test_no_gap_at_all_between_the_same_rows() -> None:
    rows = np.random.default_rng(1).standard_normal((50, 8))
    assert metrics.modality_gap(rows, rows) == (0.0, 0.0)


def test_the_gap_is_the_distance_of_the_means_and_a_plane_finds_it() -> None:
    draw = np.random.default_rng(2)
    one, other = draw.standard_normal((2, 1000, 8))
    other[:, 3] += 20
    gap = metrics.modality_gap(one, other)
    assert gap.distance == pytest.approx(20, rel=0.01)
    assert gap.separability == 1.0
    half = metrics.modality_gap(one, other + np.r_[0, 0, 0, -19, 0, 0, 0, 0])
    assert half.distance == pytest.approx(1, rel=0.15)
    # two unit normals one apart: the plane between them is right for 69 % of each
    assert half.separability == pytest.approx(2 * 0.6915 - 1, abs=0.06)


def test_a_gap_needs_a_few_rows_of_one_width() -> None:
    with pytest.raises(InvalidInput, match=r"\(3, 2\) and \(9, 2\)"):
        metrics.modality_gap(np.zeros((3, 2)), np.zeros((9, 2)))
    with pytest.raises(InvalidInput, match="one width"):
        metrics.modality_gap(np.zeros((9, 3)), np.zeros((9, 2)))


def test_a_gap_of_constant_rows_is_their_distance() -> None:
    gap = metrics.modality_gap(np.zeros((4, 3)), np.ones((5, 3)))
    assert gap.distance == pytest.approx(3**0.5) and gap.separability == 1.0
