"""The few positions that an Ann is given last, so that it can first be questioned with them.

A vector that an index holds finds its neighbours more easily than a new one does: a graph has
linked them. So an Ann numbers its vectors in another order: the held back after all others.

Letters: N positions, H held back, K chosen ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from triptych.index.base import Positions

_MOST = 400
_ONE_IN = 10
_GOLDEN = 2_654_435_769  # the golden ratio in 32 bits: its multiples fall evenly, and in no rhythm


class Holdout:
    """Which of the positions 0..N-1 are held back; the same ones whenever N is the same."""

    def __init__(self, count: int) -> None:
        num = min(_MOST, count // _ONE_IN)
        steps_H = np.arange(num + 1) * count // max(1, num)
        share_H = np.arange(num) * _GOLDEN % 2**32
        self.positions_H: Positions = steps_H[:-1] + (np.diff(steps_H) * share_H >> 32)
        self._count = count
        self._others_before_H = self.positions_H - np.arange(num)

    @property
    def num_others(self) -> int:
        return self._count - len(self.positions_H)

    def positions_of(self, numbers_K: Positions) -> Positions:
        """Return what an Ann's numbers 0..N-1 stand for."""
        positions_K = numbers_K + np.searchsorted(self._others_before_H, numbers_K, side="right")
        late_K = positions_K >= self._count
        if late_K.any():
            positions_K[late_K] = self.positions_H[numbers_K[late_K] - self.num_others]
        return np.asarray(positions_K)

    def chosen(self, positions_K: Positions) -> NDArray[np.bool_]:
        """Return which of an Ann's numbers stand for these positions."""
        chosen_N = np.zeros(self._count, dtype=bool)
        chosen_N[positions_K] = True
        held_H = chosen_N[self.positions_H]
        return np.concatenate([np.delete(chosen_N, self.positions_H), held_H])
