"""How often: token buckets by a clock that nobody can set."""

from __future__ import annotations

import time
from collections import OrderedDict

_DAY = 86_400.0


class Bucket:
    """Lets `rate` a second through, and up to two seconds' worth at once."""

    __slots__ = ("_at", "_left", "_most", "_rate")

    def __init__(self, rate: float) -> None:
        self._rate, self._most = rate, max(2 * rate, 1.0)
        self._left, self._at = self._most, time.monotonic()

    def take(self) -> float:
        """Return 0 where one may pass, else the seconds until the next may."""
        now = time.monotonic()
        self._left = min(self._left + (now - self._at) * self._rate, self._most)
        self._at = now
        if self._left >= 1:
            self._left -= 1
            return 0.0
        return (1 - self._left) / self._rate


class Quota:
    """So many a day, counted from the first use on; a restart counts anew."""

    __slots__ = ("_began", "_left", "_most")

    def __init__(self, most: int) -> None:
        self._most = self._left = most
        self._began = time.monotonic()

    def take(self, number: int) -> float:
        """Return 0 where so many may pass, else the seconds until the day is over."""
        now = time.monotonic()
        if now - self._began >= _DAY:
            self._began, self._left = now, self._most
        if number <= self._left:
            self._left -= number
            return 0.0
        return _DAY - (now - self._began)


class Failures:
    """Who presented wrong keys: after ten of them one a second, address by address."""

    _KEPT = 10_000

    def __init__(self) -> None:
        self._buckets: OrderedDict[str, list[float]] = OrderedDict()

    def wait(self, address: str) -> float:
        """Return the seconds that the address must wait before it may try again, mostly 0."""
        known = self._buckets.get(address)
        if known is None:
            return 0.0
        count, at = known
        count = max(count - (time.monotonic() - at), 0.0)
        return 0.0 if count < 10 else count - 9

    def note(self, address: str) -> None:
        """Count one more failure."""
        count, at = self._buckets.get(address, (0.0, 0.0))
        now = time.monotonic()
        self._buckets[address] = [max(count - (now - at), 0.0) + 1, now]
        self._buckets.move_to_end(address)
        if len(self._buckets) > self._KEPT:
            self._buckets.popitem(last=False)
