"""Retrieval metrics over score matrices: pure numpy functions, fractions from 0 to 1.

Q queries, N candidates. Ties count against the model: among equal scores the right
candidate comes last, so a constant score earns nothing.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from triptych.types import Matrix

Ranks = NDArray[np.int64]
Mask = NDArray[np.bool_]


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


def _sorted_relevance(scores_QN: Matrix, relevant_QN: Mask) -> tuple[Mask, Mask]:
    """Return relevance in ranked order, wrong before right at equal scores, and who has any."""
    order_QN = np.lexsort((relevant_QN, -scores_QN), axis=1)
    some_Q = np.asarray(relevant_QN.any(axis=1))
    return np.take_along_axis(relevant_QN, order_QN, axis=1), some_Q
