"""How long the work at hand may still take, carried along with the thread or task that does it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_until: ContextVar[float | None] = ContextVar("triptych_deadline", default=None)


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Whatever is asked for inside has so long, counted from now; an earlier deadline stays.

    By the monotonic clock, so that nobody who sets the clock can move it.
    """
    until, outer = time.monotonic() + seconds, _until.get()
    token = _until.set(until if outer is None else min(until, outer))
    try:
        yield
    finally:
        _until.reset(token)


def remaining() -> float | None:
    """Return the seconds that are left, below 0 where none are; None where there is no deadline."""
    until = _until.get()
    return None if until is None else until - time.monotonic()
