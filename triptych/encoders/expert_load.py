"""What the experts of a served model were asked, counted.

E experts.
"""

from __future__ import annotations

from threading import Lock

import numpy as np
from numpy.typing import NDArray

from triptych.types import Vector


class ExpertLoad:
    """Counts of tokens since the model was loaded. Threads may share it."""

    def __init__(self, num_experts: int) -> None:
        self._lock = Lock()
        self._asked_E = np.zeros(num_experts, dtype=np.int64)
        self._tokens = 0

    def add(self, load_E: Vector, *, num_tokens: int) -> None:
        """Note a batch: how many of its tokens chose each expert, and how many there were."""
        with self._lock:
            self._asked_E += load_E.astype(np.int64)
            self._tokens += num_tokens

    def read(self) -> tuple[NDArray[np.int64], int]:
        """Return asked_E, how many tokens chose each expert, and the number of tokens."""
        with self._lock:
            return self._asked_E.copy(), self._tokens
