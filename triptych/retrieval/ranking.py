"""Lists of answers into one: fusion, diversity, groups. Pure functions on arrays.

Letters: K candidates, M embedding width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InvalidInput
from triptych.index.base import exact_scores
from triptych.types import Matrix, Rows

Scores: TypeAlias = NDArray[np.float64]
Order: TypeAlias = NDArray[np.intp]


def reciprocal_rank_fusion(
    lists: Sequence[Rows], weights: Sequence[float] | None = None, *, k: int = 60
) -> tuple[Rows, Scores]:
    """Return every row of the lists, the best first, and the sums of weight / (k + rank).

    Ranks count from 1; a row that a list lacks gets nothing from it. Equal sums come in the order
    of their rows. The scores of the lists play no part, so that cosines and BM25 go together
    (Cormack, Clarke and Buettcher 2009). Raises InvalidInput for a list that names a row twice,
    and for weights of another number than the lists, below 0 or not finite.
    """
    weights = [1.0] * len(lists) if weights is None else list(weights)
    if len(weights) != len(lists):
        raise InvalidInput(f"Got {len(weights)} weights for {len(lists)} lists.")
    if not all(np.isfinite(weight) and weight >= 0 for weight in weights):
        raise InvalidInput(f"Weights are finite and not below 0, got {weights}.")
    if k < 0:
        raise InvalidInput(f"The k of the fusion is 0 or more, got {k}.")
    rows = [np.asarray(each, dtype=np.int64).reshape(-1) for each in lists]
    fused, places = np.unique(
        np.concatenate([np.empty(0, dtype=np.int64), *rows]), return_inverse=True
    )
    scores = np.zeros(len(fused))
    start = 0
    for each, weight in zip(rows, weights, strict=True):
        where = places[start : start + len(each)]
        if len(np.unique(where)) < len(each):
            raise InvalidInput("A list to fuse names a row twice.")
        scores[where] += weight / (k + np.arange(1, len(each) + 1))
        start += len(each)
    order = np.lexsort((fused, -scores))
    return fused[order], scores[order]


def woven(judged: Rows, others: Rows, places: Rows, share: float, due: int) -> Rows:
    """Return two rankings of different rows as one, in which neither pushes out the other.

    `places` ranks rows of both: the nth of a ranking takes the place of its nth row there. But of
    the first n at least share x n are `judged`, rounded down, until the first `due` of those
    have come.
    """
    of_others = np.isin(places, others)
    at_judged = [*np.flatnonzero(~of_others).tolist(), *[len(places)] * len(judged)]
    at_others = [*np.flatnonzero(of_others).tolist(), *[len(places)] * len(others)]
    order: list[int] = []
    first, second = 0, 0
    while first < len(judged) and second < len(others):
        is_due = first < due and first < int(share * (first + second + 1))
        if is_due or at_judged[first] <= at_others[second]:
            order.append(int(judged[first]))
            first += 1
        else:
            order.append(int(others[second]))
            second += 1
    return np.concatenate([np.array(order, dtype=np.int64), judged[first:], others[second:]])


def maximal_marginal_relevance(
    vectors_KM: Matrix,
    scores_K: NDArray[np.floating],
    limit: int,
    diversity: float,
    *,
    groups: Sequence[Hashable | None] | None = None,
    size: int = 1,
) -> Order:
    """Return the positions of up to `limit` candidates, each unlike the ones before it.

    The next is the one of the largest (1 - diversity) x score - diversity x its largest cosine
    with those chosen (Carbonell and Goldstein 1998), of equal ones the first; the first is the
    best score. Diversity 0 is the order of the scores, 1 looks at nothing but unlikeness. The
    vectors are unit rows. `groups` names them as for `first_of_each`: of a group with `size`
    chosen nothing more is. Takes a product of K for each that is returned. Raises InvalidInput for
    a diversity outside of 0..1, a limit below 0, and where vectors and scores are not of one
    length.
    """
    if not 0 <= diversity <= 1:
        raise InvalidInput(f"A diversity is a number from 0 to 1, got {diversity!r}.")
    if limit < 0:
        raise InvalidInput(f"A limit is 0 or more, got {limit}.")
    scores_K = np.asarray(scores_K, dtype=np.float64)
    if len(vectors_KM) != len(scores_K):
        raise InvalidInput(f"Got {len(vectors_KM)} vectors and {len(scores_K)} scores.")
    numbers_K = np.array(_numbered(groups or [None] * len(scores_K)), dtype=np.intp)
    room = np.full(len(scores_K), size)  # by the number of a group
    likeness_K = np.full(len(scores_K), -np.inf)
    marginal_K = scores_K
    left_K = np.ones(len(scores_K), dtype=bool)
    chosen: list[int] = []
    while len(chosen) < limit and left_K.any():
        if chosen:
            cosines_K = exact_scores(vectors_KM, vectors_KM[chosen[-1]])
            np.maximum(likeness_K, cosines_K, out=likeness_K)
            marginal_K = (1 - diversity) * scores_K - diversity * likeness_K
        best = int(np.where(left_K, marginal_K, -np.inf).argmax())
        chosen.append(best)
        left_K[best] = False
        room[numbers_K[best]] -= 1
        if not room[numbers_K[best]]:
            left_K &= numbers_K != numbers_K[best]
    return np.array(chosen, dtype=np.intp)


def first_of_each(groups: Sequence[Hashable | None], size: int) -> list[int]:
    """Return the positions of the first `size` of each group, ascending.

    `groups` names the group of each position, the best first; None is a group of its own.
    """
    seen: Counter[int] = Counter()
    kept = []
    for at, number in enumerate(_numbered(groups)):
        seen[number] += 1
        if seen[number] <= size:
            kept.append(at)
    return kept


def _numbered(groups: Sequence[Hashable | None]) -> list[int]:
    """Return for each position the number of its group."""
    numbers: dict[Hashable, int] = {}
    # for Python true is 1, for metadata it is not
    names = (
        (at,) if name is None else (isinstance(name, bool), name) for at, name in enumerate(groups)
    )
    return [numbers.setdefault(name, len(numbers)) for name in names]
