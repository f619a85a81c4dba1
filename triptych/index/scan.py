"""When a scan of many vectors is worth a copy of them that is scanned faster.

Letters: N vectors, K neighbours, M embedding width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from triptych.index import SCANS
from triptych.index.base import Positions
from triptych.types import Matrix, Vector

_AFTER = 32  # scans: to make the copy takes less time than it would have saved
_FEWEST = 2_048  # vectors
_MOST_BYTES = 64 * 2**20  # of the copy


class Scan:
    """The scans of vectors that rarely change. The caller guards threads."""

    def __init__(self) -> None:
        self._halves: Any = None
        self._asked = 0  # since the last change

    def changed(self) -> None:
        """Forget the copy."""
        self._halves, self._asked = None, 0

    def near(
        self,
        query_M: Vector,
        k: int,
        shape: tuple[int, ...],
        vectors: Callable[[], Matrix],
        without: NDArray[np.bool_] | None = None,
    ) -> Positions | None:
        """Return the positions of all that may be among the k best, or None: scan them yourself.

        `vectors` returns vectors_NM, of this shape.
        """
        count, dim = shape
        self._asked += 1
        if self._halves is None:
            if self._asked <= _AFTER or count < _FEWEST or 2 * count * dim > _MOST_BYTES:
                return None
            self._halves = SCANS.resolve("halves")(vectors())
        found: Positions = self._halves.near_the_cut(query_M, k, without)
        return found
