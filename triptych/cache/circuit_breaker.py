"""When a tier that fails or drags is given up for a while.

A failure weighs one and every hundredth success takes one away: three in a row open the breaker,
and so does more than one failure in a hundred, which would show in the p99. Slowness opens it
where most of the last answers were slow: then it is not this machine's own hiccup.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitBreakerConfig:
    failures: float = 3.0
    forgiven: float = 0.01  # of a failure, with each success
    slow: float = 0.02  # seconds: then a search is as quick
    slow_share: float = 0.6  # of the last answers, each weighing 7/8 of the next
    first_pause: float = 0.5  # seconds until it is tried again
    longest_pause: float = 15.0


DEFAULT = CircuitBreakerConfig()
_NEWEST = 1 / 8  # weight of the newest answer


class CircuitBreaker:
    """Counts; it neither asks nor waits itself. Threads may share it."""

    def __init__(self, config: CircuitBreakerConfig = DEFAULT) -> None:
        self.config = config
        self.is_open = False  # read without the lock: a moment late is early enough
        self._lock = threading.Lock()
        self._failures = 0.0
        self._slowness = 0.0

    def succeeded(self, seconds: float) -> bool:
        """Note an answer; return whether that opened the breaker, because it was a slow one."""
        with self._lock:
            self._failures = max(0.0, self._failures - self.config.forgiven)
            is_slow = seconds > self.config.slow
            self._slowness += _NEWEST * (is_slow - self._slowness)
            return self._check()

    def failed(self) -> bool:
        """Note a failure; return whether that opened the breaker."""
        with self._lock:
            self._failures += 1.0
            return self._check()

    def heal(self) -> None:
        """Begin anew."""
        with self._lock:
            self._failures = self._slowness = 0.0
            self.is_open = False

    def _check(self) -> bool:
        if self.is_open:
            return False
        self.is_open = (
            self._failures >= self.config.failures or self._slowness > self.config.slow_share
        )
        return self.is_open
