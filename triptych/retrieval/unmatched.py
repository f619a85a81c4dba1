"""Which part of a filter cannot match anything: a field that no item has, or of another type."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from triptych.filters import (
    MODALITY,
    And,
    Compare,
    Exists,
    Filter,
    In,
    Not,
    Or,
    key_of,
)

_EVERY: dict[str, list[tuple[Any, Any]]] = {
    "number": [("<", 0), (">=", 0)],
    "text": [(">=", "")],
}
"""What holds for each value of a kind, one or the other."""


def unmatched(filter: Filter | None, count: Callable[[Filter], int]) -> list[str]:
    """Return a sentence for each such field, in the filter's order; `count` says what matches."""
    tests = () if filter is None else _tests(filter)
    found = (_complaint(test, count) for test in tests if test.field != MODALITY)
    return list(dict.fromkeys(one for one in found if one is not None))


def _complaint(test: Compare | In | Exists, count: Callable[[Filter], int]) -> str | None:
    if not count(Exists(test.field)):
        return f"No item has the field {test.field!r}."
    if isinstance(test, Exists):
        return None
    values = test.values if isinstance(test, In) else (test.value,)
    kinds = {key_of(value).kind for value in values}
    kind = kinds.pop()
    if kinds or kind not in _EVERY:
        return None
    if any(count(Compare(test.field, *every)) for every in _EVERY[kind]):
        return None
    return f"No item has a {kind} in the field {test.field!r}."


def _tests(filter: Filter) -> Iterator[Compare | In | Exists]:
    match filter:
        case And(children) | Or(children):
            for child in children:
                yield from _tests(child)
        case Not(child):
            yield from _tests(child)
        case test:
            yield test
