"""What a caller asks for, checked: ids, whole numbers in range, one limit under three names."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Set
from typing import Any

from triptych.errors import InvalidInput


def as_ids(ids: str | Iterable[str]) -> list[str]:
    """Return the ids as a list; raises InvalidInput where one is no string."""
    if not isinstance(ids, Iterable):
        raise InvalidInput(f"Got {ids!r}, expected an id or ids.")
    names = [ids] if isinstance(ids, str) else list(ids)
    for name in names:
        if not isinstance(name, str):
            raise InvalidInput(f"An id is a string, got {name!r}.")
    return names


def wanted_ids(explain: Any) -> Set[str] | bool:
    """Return the ids of hits to explain, True for all; raises InvalidInput for anything else."""
    if isinstance(explain, bool):
        return explain
    if not isinstance(explain, Iterable):
        raise InvalidInput(f"explain is True, False or ids of hits, got {explain!r}.")
    return frozenset(as_ids(explain))


def whole(name: str, value: Any, *, least: int) -> int:
    """Return `value` as an int; raises InvalidInput where it is none or below `least`."""
    try:
        number = operator.index(value)
    except TypeError:
        raise InvalidInput(f"{name} is a whole number, got {value!r}.") from None
    if number < least or isinstance(value, bool):
        raise InvalidInput(f"{name} is {least} or more, got {value!r}.")
    return number


def one_limit(limit: Any, top_k: Any, k: Any) -> int:
    """Return how many hits are wanted: `limit`, or one of its other names.

    Raises InvalidInput where they differ; a limit of 10 is what it is where nobody gave one.
    """
    given = {name: value for name, value in (("top_k", top_k), ("k", k)) if value is not None}
    if not given or limit != 10:
        given["limit"] = limit
    if len(set(map(repr, given.values()))) > 1:
        said = " and ".join(f"{name}={value!r}" for name, value in given.items())
        raise InvalidInput(f"limit, top_k and k mean the same, got {said}.", hint="Give one.")
    name, value = next(iter(given.items()))
    return whole(name, value, least=1)


def cosine(threshold: Any) -> float | None:
    """Return the threshold; raises InvalidInput unless it is a number."""
    if threshold is None:
        return None
    if isinstance(threshold, str | bool) or not hasattr(threshold, "__float__"):
        raise InvalidInput(f"threshold is a cosine in -1..1, got {threshold!r}.")
    if math.isnan(number := float(threshold)):
        raise InvalidInput("threshold is a cosine in -1..1, got NaN.")
    return number


def share(name: str, value: Any) -> float:
    """Return `value`; raises InvalidInput unless it is a number in 0..1."""
    if isinstance(value, str) or not hasattr(value, "__float__") or not 0 <= float(value) <= 1:
        raise InvalidInput(f"{name} is a number in 0..1, got {value!r}.")
    return float(value)
