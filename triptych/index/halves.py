"""A scan of half-precision copies that leaves out nothing a scan of the whole could find.

It reads half the bytes, and FAISS reads them three times as fast as numpy its own. Rounding a
number to eleven bits moves it by a share of 2**-11 at most, so it moves the product of two unit
vectors by no more than that (Cauchy-Schwarz): whoever may be among the best is known to be near
the cut.

Letters: N vectors, K neighbours, M embedding width.
"""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from triptych.index.base import Positions
from triptych.index.faiss import num_threads
from triptych.types import Matrix, Vector

# twice, once for whom the cut is made by and once for who is cut: 2**-11, what float32's sums are
# off, and what numbers are that are too small for half precision
_DOUBT = 2 * (2.0**-11 + 1e-5 + 1e-5)
_DEEPER = 4

_api: Any = faiss  # its annotations lag behind what it has


class Halves:
    """Copies of unit vectors, by position."""

    def __init__(self, vectors_NM: Matrix) -> None:
        kind = _api.ScalarQuantizer.QT_fp16
        self._index: Any = _api.IndexScalarQuantizer(
            vectors_NM.shape[1], kind, faiss.METRIC_INNER_PRODUCT
        )
        self._index.is_trained = True  # there is nothing to learn
        with num_threads(1):
            self._index.add(vectors_NM)

    def near_the_cut(
        self, query_M: Vector, k: int, without: NDArray[np.bool_] | None = None
    ) -> Positions:
        """Return the positions of all that may be among the k best of the whole vectors."""
        count = int(self._index.ntotal)
        wanted = _DEEPER * k
        while wanted < count:
            with num_threads(1):
                scores_1K, found_1K = self._index.search(query_M[None], wanted)
            scores_K, found_K = scores_1K[0], found_1K[0]
            last = scores_K[-1]
            if without is not None:
                left_K = ~without[found_K]
                scores_K, found_K = scores_K[left_K], found_K[left_K]
            if len(found_K) >= k and last < scores_K[k - 1] - _DOUBT:
                return np.asarray(found_K, dtype=np.intp)
            wanted *= _DEEPER
        return np.arange(count) if without is None else np.flatnonzero(~without)
