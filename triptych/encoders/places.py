"""Which places of a grid are hidden together.

R rows, C columns, P = R x C places in reading order.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

_REACH = 1  # a place alone says little: its neighbours have seen the same things


def left_over(rows: int, columns: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield hidden_N and kept_NK: places, and those left when the 3 x 3 around each is hidden.

    At an edge fewer are hidden, so what is left comes in groups of one number K.
    """
    down_P, right_P = np.divmod(np.arange(rows * columns), columns)
    near_PP = (abs(down_P[:, None] - down_P) <= _REACH) & (
        abs(right_P[:, None] - right_P) <= _REACH
    )
    hidden_P = near_PP.sum(axis=1)
    for number in np.unique(hidden_P):
        hidden_N = np.flatnonzero(hidden_P == number)
        yield hidden_N, np.nonzero(~near_PP[hidden_N])[1].reshape(len(hidden_N), -1)
