"""Retrieval metrics over score matrices: pure numpy functions, fractions from 0 to 1.

Q queries, N candidates, M width of a vector. Ties count against the model: among equal scores the
right candidate comes last, so a constant score earns nothing.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InvalidInput
from triptych.types import Matrix

Ranks = NDArray[np.int64]
Mask = NDArray[np.bool_]


class ModalityGap(NamedTuple):
    """How far two clouds of vectors lie apart; both are 0 for one and the same distribution."""

    distance: float  # between the means, in the vectors' own unit
    separability: float  # 1: a plane parts them wholly, 0: none does better than chance


def first_ranks(scores_QN: Matrix, relevant_QN: Mask) -> Ranks:
    """Return for each query the rank (from 1) of its best right candidate; N + 1 without one."""
    best_Q1 = np.where(relevant_QN, scores_QN, -np.inf).max(axis=1, keepdims=True)
    ahead_Q = ((scores_QN >= best_Q1) & ~relevant_QN).sum(axis=1)
    ranks_Q: Ranks = np.where(relevant_QN.any(axis=1), ahead_Q + 1, scores_QN.shape[1] + 1)
    return ranks_Q


def recall_at(ranks_Q: Ranks, k: int) -> float:
    """Return the share of queries with a right candidate among the first k."""
    return float((ranks_Q <= k).mean()) if len(ranks_Q) else 0.0


def retrieval_table(scores_QN: Matrix, relevant_QN: Mask) -> dict[str, float]:
    """Return recall@1, recall@5, recall@10 and the median rank of the first right candidate."""
    ranks_Q = first_ranks(scores_QN, relevant_QN)
    table = {f"recall@{k}": recall_at(ranks_Q, k) for k in (1, 5, 10)}
    return table | {"median_rank": float(np.median(ranks_Q)) if len(ranks_Q) else 0.0}


def mean_reciprocal_rank(ranks_Q: Ranks) -> float:
    """Return the mean of 1 / rank."""
    return float((1.0 / ranks_Q).mean()) if len(ranks_Q) else 0.0


def mean_average_precision(scores_QN: Matrix, relevant_QN: Mask) -> float:
    """Return the mean over queries of average precision (Manning et al. 2008, eq. 8.8).

    Queries without a right candidate are left out.
    """
    sorted_QN, some_Q = _sorted_relevance(scores_QN, relevant_QN)
    if not some_Q.any():
        return 0.0
    hits_QN = sorted_QN[some_Q].astype(np.float64)
    precision_QN = hits_QN.cumsum(axis=1) / np.arange(1, hits_QN.shape[1] + 1)
    return float(((precision_QN * hits_QN).sum(axis=1) / hits_QN.sum(axis=1)).mean())


def ndcg_at(scores_QN: Matrix, relevant_QN: Mask, k: int) -> float:
    """Return the mean normalised discounted cumulative gain of the first k, with binary gain."""
    sorted_QN, some_Q = _sorted_relevance(scores_QN, relevant_QN)
    if not some_Q.any():
        return 0.0
    k = min(k, sorted_QN.shape[1])
    discount_K = 1.0 / np.log2(np.arange(2, k + 2))
    gained_Q = (sorted_QN[some_Q, :k] * discount_K).sum(axis=1)
    num_right_Q = sorted_QN[some_Q].sum(axis=1).clip(max=k)
    return float((gained_Q / discount_K.cumsum()[num_right_Q - 1]).mean())


def modality_gap(one_NM: Matrix, other_NM: Matrix) -> ModalityGap:
    """Return the gap between, say, unit vectors of texts and of pictures (Liang et al. 2022).

    The distance is freed of what the noise of two finite samples adds to it. The plane is fitted
    to every other row by least squares, and judged on the rows in between.

    Raises InvalidInput with fewer than four rows on a side, or different widths.
    """
    if min(len(one_NM), len(other_NM)) < 4 or one_NM.shape[1] != other_NM.shape[1]:
        raise InvalidInput(
            f"Got vectors of shapes {one_NM.shape} and {other_NM.shape}, expected at least four "
            "rows of each, of one width."
        )
    one_NM, other_NM = one_NM.astype(np.float64), other_NM.astype(np.float64)
    noise = sum(side.var(axis=0, ddof=1).sum() / len(side) for side in (one_NM, other_NM))
    squared = np.square(one_NM.mean(axis=0) - other_NM.mean(axis=0)).sum() - noise
    right = (_parted(one_NM, other_NM, fit=0) + _parted(one_NM, other_NM, fit=1)) / 2
    return ModalityGap(
        distance=float(np.sqrt(max(squared, 0.0))),
        separability=max(2 * right - 1, 0.0),
    )


def _parted(one_NM: Matrix, other_NM: Matrix, *, fit: int) -> float:
    """Return the mean over the sides of the share of rows on the right side of a fitted plane."""
    sides = (one_NM[fit::2], other_NM[fit::2])
    middle_M = (sides[0].mean(axis=0) + sides[1].mean(axis=0)) / 2
    # within the sides, as Fisher has it: a plane across the common spread would lean
    spread_MM = sum((side - side.mean(axis=0)).T @ (side - side.mean(axis=0)) for side in sides)
    ridge = 1e-3 * np.trace(spread_MM) / len(spread_MM) + 1e-12
    normal_M = np.linalg.solve(
        spread_MM + ridge * np.eye(len(spread_MM)), sides[0].mean(axis=0) - sides[1].mean(axis=0)
    )
    of_one = ((one_NM[1 - fit :: 2] - middle_M) @ normal_M > 0).mean()
    of_other = ((other_NM[1 - fit :: 2] - middle_M) @ normal_M <= 0).mean()
    return float((of_one + of_other) / 2)


def _sorted_relevance(scores_QN: Matrix, relevant_QN: Mask) -> tuple[Mask, Mask]:
    """Return relevance in ranked order, wrong before right at equal scores, and who has any."""
    order_QN = np.lexsort((relevant_QN, -scores_QN), axis=1)
    some_Q = np.asarray(relevant_QN.any(axis=1))
    return np.take_along_axis(relevant_QN, order_QN, axis=1), some_Q
