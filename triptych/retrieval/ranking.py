"""Lists of answers into one: fusion, diversity, groups. Pure functions on arrays.

Letters: K candidates, L of them chosen, P some of them, M embedding width.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InvalidInput
from triptych.index.base import exact_scores
from triptych.types import Matrix, Rows, Vector

Scores: TypeAlias = NDArray[np.float64]
Order: TypeAlias = NDArray[np.intp]

_LOOKED_AT = 64  # candidates at once
_RECENT = 16
# multiplications up to which BLAS wakes no second thread: that costs more than the product, and
# where other work has the cores, a hundred times as much
_BY_ONE_THREAD = 262_144


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
    chosen nothing more is. Raises InvalidInput for a diversity outside of 0..1, a limit below 0,
    and where vectors and scores are not of one length.
    """
    if not 0 <= diversity <= 1:
        raise InvalidInput(f"A diversity is a number from 0 to 1, got {diversity!r}.")
    if limit < 0:
        raise InvalidInput(f"A limit is 0 or more, got {limit}.")
    if len(vectors_KM) != len(scores_K):
        raise InvalidInput(f"Got {len(vectors_KM)} vectors and {len(scores_K)} scores.")
    numbers_K = np.array(_numbered(groups or [None] * len(scores_K)), dtype=np.intp)
    room = np.full(len(scores_K), size)  # by the number of a group
    marginal = _Marginal(vectors_KM, scores_K.astype(np.float64), limit, diversity)
    while len(marginal.chosen) < limit and (best := marginal.best()) is not None:
        marginal.choose(best)
        room[numbers_K[best]] -= 1
        if not room[numbers_K[best]]:
            marginal.leave_out(numbers_K == numbers_K[best])
    return np.array(marginal.chosen, dtype=np.intp)


class _Marginal:
    """What each candidate would bring, worked out only where it may be the most.

    More chosen ones make a candidate no less alike to them, so that what it would have brought
    earlier is a bound of what it brings now (Minoux 1978): most are never looked at again.
    """

    def __init__(self, vectors_KM: Matrix, scores_K: Scores, limit: int, diversity: float) -> None:
        self.chosen: list[int] = []
        self._vectors_KM = vectors_KM
        self._scores_K = scores_K
        self._diversity = diversity
        self._bounds_K = scores_K.copy()  # -inf: takes part no more
        self._likeness_K = np.full(len(scores_K), -np.inf)
        self._seen_K = np.zeros(len(scores_K), dtype=np.intp)  # chosen ones in the likeness
        most = min(limit, len(scores_K))
        self._chosen_LM = np.empty((most, vectors_KM.shape[1]), dtype=np.float64)

    def best(self) -> int | None:
        """Return the first of those that bring the most, None where there are no more."""
        while len(self._bounds_K):
            best = int(self._bounds_K.argmax())
            if self._bounds_K[best] == -np.inf:
                break
            if self._seen_K[best] == len(self.chosen):
                return best
            self._look()
        return None

    def choose(self, at: int) -> None:
        """Take a candidate: from now on the others should be unlike it."""
        vector_M = self._vectors_KM[at]
        self._chosen_LM[len(self.chosen)] = vector_M
        self.chosen.append(at)
        self._bounds_K[at] = -np.inf
        if len(self.chosen) == 1:  # before it nothing bounds what they bring
            left = np.flatnonzero(self._bounds_K > -np.inf)
            self._note(left, exact_scores(self._vectors_KM, vector_M)[left])

    def leave_out(self, out_K: NDArray[np.bool_]) -> None:
        """Have these take part no more."""
        self._bounds_K[out_K] = -np.inf

    def _look(self) -> None:
        """Bring those of the highest bounds up to date."""
        num = len(self.chosen)
        stale_K = np.where(self._seen_K < num, self._bounds_K, -np.inf)
        at = max(len(stale_K) - _LOOKED_AT, 0)
        some = np.argpartition(stale_K, at)[at:]
        some = some[stale_K[some] > -np.inf]
        is_recent = self._seen_K[some] >= num - _RECENT
        # apart, or one that was not looked at for long would have all compared with all chosen
        for part in (some[is_recent], some[~is_recent]):
            if len(part):
                fresh_LM = self._chosen_LM[self._seen_K[part].min() : num]
                cosines_P = _largest_products(self._vectors_KM[part].astype(np.float64), fresh_LM)
                # rounded as `exact_scores` does
                self._note(part, np.clip(cosines_P, -1, 1).astype(np.float32))

    def _note(self, part: Order, cosines_P: Vector) -> None:
        likeness_P = np.maximum(self._likeness_K[part], cosines_P)
        self._likeness_K[part] = likeness_P
        self._seen_K[part] = len(self.chosen)
        relevance_P = (1 - self._diversity) * self._scores_K[part]
        self._bounds_K[part] = relevance_P - self._diversity * likeness_P


def _largest_products(rows_PM: Scores, others_LM: Scores) -> Scores:
    """Return of each row its largest product with any of the others."""
    step = max(1, _BY_ONE_THREAD // rows_PM.size)
    parts = (others_LM[at : at + step] for at in range(0, len(others_LM), step))
    largest_P: Scores = np.maximum.reduce([(rows_PM @ part_LM.T).max(axis=1) for part_LM in parts])
    return largest_P


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
