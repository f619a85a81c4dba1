"""Single flight: of many who want the same at once, one works, and all get what it found."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, Generic, TypeVar

from triptych.errors import TimedOut

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class Abandoned(Exception):
    """Who worked did not end, for a reason of its own: somebody else has to begin again."""


class SingleFlight(Generic[Key, Value]):
    """Threads may share one; coroutines join them by way of `single_flight_async`.

    An exception of who works is raised in all that wait. Where it says nothing of what they want,
    one of those that wait works in its place: who worked was cancelled or interrupted, had no more
    time, or worked on other things besides.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flying: dict[Key, Future[Value]] = {}
        _all.add(self)

    def do(self, key: Key, compute: Callable[[], Value]) -> Value:
        """Return what `compute` does, or what it does for somebody who asked earlier."""
        return self.do_many([key], lambda mine: {key: compute()})[key]

    def do_many(
        self, keys: Sequence[Key], compute: Callable[[list[Key]], Mapping[Key, Value]]
    ) -> dict[Key, Value]:
        """Return a value for each key; `compute` is called with those that nobody works on.

        It finishes its own before it waits for others, so two that want each other's never block.
        """
        values: dict[Key, Value] = {}
        wanted = list(dict.fromkeys(keys))
        while wanted:
            joined = {key: self.join(key) for key in wanted}
            mine = [key for key, future in joined.items() if future is None]
            if mine:
                values |= self._lead(mine, partial(compute, mine))
            for key, future in joined.items():
                if future is not None:
                    try:
                        values[key] = future.result()
                    except Abandoned:
                        continue
            wanted = [key for key in wanted if key not in values]
        return values

    def join(self, key: Key) -> Future[Value] | None:
        """Return what will have the value, or None to who has to `land` or `fail` it now."""
        with self._lock:
            future = self._flying.get(key)
            if future is None:
                future = self._flying[key] = Future()
                future.set_running_or_notify_cancel()  # or who waits for it could cancel it
                return None
            return future

    def land(self, values: Mapping[Key, Value]) -> None:
        """Give those who wait what they wait for."""
        for future, value in zip(self._ended(values), values.values(), strict=True):
            future.set_result(value)

    def fail(self, keys: Iterable[Key], error: BaseException) -> None:
        """Let those who wait know, where it may be the error of what they want."""
        keys = list(keys)
        is_shared = isinstance(error, Exception) and not isinstance(error, TimedOut)
        shared = error if is_shared and len(keys) == 1 else Abandoned()
        for future in self._ended(keys):
            future.set_exception(shared)

    def _ended(self, keys: Iterable[Key]) -> list[Future[Value]]:
        with self._lock:
            return [self._flying.pop(key) for key in keys]

    def _lead(
        self, keys: list[Key], compute: Callable[[], Mapping[Key, Value]]
    ) -> Mapping[Key, Value]:
        try:
            computed = compute()
            values = {key: computed[key] for key in keys}
        except BaseException as error:
            self.fail(keys, error)
            raise
        self.land(values)
        return values


_all: weakref.WeakSet[SingleFlight[Any, Any]] = weakref.WeakSet()


def _forget_inherited() -> None:
    for one in list(_all):
        one._lock, one._flying = threading.Lock(), {}


# the threads that were at work are the parent's: a child would wait for them for ever
os.register_at_fork(after_in_child=_forget_inherited)
