"""How often: token buckets by a clock that nobody can set.

The clock is the machine's, the same in all processes, and so are cells in shared memory: workers
that are given the same `Cells` count together.
"""

from __future__ import annotations

import ctypes
import time
from collections import OrderedDict
from contextlib import AbstractContextManager
from hashlib import blake2b
from threading import Lock
from typing import Any

_DAY = 86_400.0


class Cell(ctypes.Structure):
    """What is left, and since when that is known."""

    _fields_ = (("id", ctypes.c_uint64), ("left", ctypes.c_double), ("at", ctypes.c_double))


class Cells:
    """Hands out cells by name; `shared` are those of all workers, `lock` is theirs too."""

    def __init__(self, shared: Any = (), lock: AbstractContextManager[Any] | None = None) -> None:
        self._shared = shared
        self.lock: AbstractContextManager[Any] = Lock() if lock is None else lock

    def of(self, name: str, left: float) -> Cell:
        """Return the cell of this name, a new one with so much left where there is none.

        Where no shared one is free it is this process's own.
        """
        id = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big") or 1
        with self.lock:
            for step in range(len(self._shared)):
                cell: Cell = self._shared[(id + step) % len(self._shared)]
                if cell.id == id:
                    return cell
                if not cell.id:
                    cell.id, cell.left, cell.at = id, left, time.monotonic()
                    return cell
        return Cell(id, left, time.monotonic())


class Bucket:
    """Lets `rate` a second through, and up to two seconds' worth at once."""

    __slots__ = ("_cell", "_lock", "_most", "_rate")

    def __init__(self, rate: float, *, name: str = "", cells: Cells | None = None) -> None:
        cells = cells or Cells()
        self._rate, self._most = rate, max(2 * rate, 1.0)
        self._cell, self._lock = cells.of(f"rate {rate} {name}", self._most), cells.lock

    def take(self) -> float:
        """Return 0 where one may pass, else the seconds until the next may."""
        cell = self._cell
        with self._lock:
            now = time.monotonic()
            left = min(cell.left + (now - cell.at) * self._rate, self._most)
            passes = left >= 1
            cell.left, cell.at = left - passes, now
        return 0.0 if passes else float((1 - left) / self._rate)


class Quota:
    """So many a day, counted from the first use on; a restart counts anew."""

    __slots__ = ("_cell", "_lock", "_most")

    def __init__(self, most: int, *, name: str = "", cells: Cells | None = None) -> None:
        cells = cells or Cells()
        self._most = most
        self._cell, self._lock = cells.of(f"quota {most} {name}", most), cells.lock

    def take(self, number: int) -> float:
        """Return 0 where so many may pass, else the seconds until the day is over."""
        cell = self._cell
        with self._lock:
            now = time.monotonic()
            if now - cell.at >= _DAY:
                cell.at, cell.left = now, self._most
            if number <= cell.left:
                cell.left -= number
                return 0.0
            return float(_DAY - (now - cell.at))

    def give_back(self, number: int) -> None:
        """Let so many pass once more that came to nothing."""
        with self._lock:
            self._cell.left = min(self._cell.left + number, self._most)


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
