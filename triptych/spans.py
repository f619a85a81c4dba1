"""What is done, as spans for whoever wants to see them. Off, a span costs one look at a variable.

Which library takes them down is not known here: `triptych.api.traces` sets one that speaks
OpenTelemetry.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, TypeAlias


class Span(Protocol):
    """A span that has begun."""

    def set_attribute(self, key: str, value: Any) -> Any: ...


class _Nothing:
    def set_attribute(self, key: str, value: Any) -> None:
        pass


Begin: TypeAlias = Callable[[str], AbstractContextManager[Span]]

_OFF: AbstractContextManager[Span] = nullcontext(_Nothing())
_begin: Begin | None = None


def span(name: str) -> AbstractContextManager[Span]:
    """What is done inside is the span `name`, a part of that which surrounds it."""
    return _OFF if _begin is None else _begin(name)


def record(begin: Begin | None) -> None:
    """Have all spans of this process begun by `begin` from now on; None ends that."""
    global _begin
    _begin = begin
