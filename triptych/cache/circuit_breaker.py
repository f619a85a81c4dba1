"""When a tier that fails or drags is given up for a while.

A failure weighs one and every hundredth success takes one away: three in a row open the breaker,
and so does more than one failure in a hundred, which would show in the p99. Slowness opens it
where most of the last answers were slow: then it is not this machine's own hiccup.

It is tried again after pauses that double, also from one opening to the next: a tier that comes and
goes would else cost its failures anew each second. What stayed well for as long as the longest of
them begins anew.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
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

    def __init__(
        self,
        config: CircuitBreakerConfig = DEFAULT,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config, self._clock = config, clock
        self.is_open = False  # read without the lock: a moment late is early enough
        self._lock = threading.Lock()
        self._failures = 0.0
        self._slowness = 0.0
        self._pause = 0.0  # the last one
        self._well_since = 0.0

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
        """Forget what was counted; how long the last pause was is kept for a while."""
        with self._lock:
            self._failures = self._slowness = 0.0
            self.is_open = False
            self._well_since = self._clock()

    def pause(self) -> float:
        """Return the seconds until it is tried, for the first time or the next."""
        with self._lock:
            self._pause = min(2 * self._pause or self.config.first_pause, self.config.longest_pause)
            return self._pause

    def _check(self) -> bool:
        if self.is_open:
            return False
        self.is_open = (
            self._failures >= self.config.failures or self._slowness > self.config.slow_share
        )
        if self.is_open and self._clock() - self._well_since > self.config.longest_pause:
            self._pause = 0.0
        return self.is_open
