"""How long each stage of a search took, noted where somebody wants to know.

A stage is noted in the thread, or the task, that asked; elsewhere it costs one look at a variable.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

from triptych.spans import span

_noted: ContextVar[dict[str, float] | None] = ContextVar("triptych_stages", default=None)


@contextmanager
def timed() -> Iterator[dict[str, float]]:
    """Yield a mapping from stage to seconds that fills up with what is done inside."""
    noted: dict[str, float] = {}
    token = _noted.set(noted)
    try:
        yield noted
    finally:
        _noted.reset(token)


def note(stages: Mapping[str, float]) -> None:
    """Add stages that were timed apart, in seconds, for who wants to know."""
    noted = _noted.get()
    if noted is not None:
        for name, seconds in stages.items():
            noted[name] = noted.get(name, 0.0) + seconds


@contextmanager
def stage(name: str) -> Iterator[None]:
    """What is done inside is the stage `name`; done twice, the times add up."""
    noted = _noted.get()
    with span(name):
        if noted is None:
            yield
            return
        start = time.perf_counter()
        try:
            yield
        finally:
            noted[name] = noted.get(name, 0.0) + time.perf_counter() - start
