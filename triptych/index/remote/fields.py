"""Values out of a message of another process: nothing is believed of their types and ranges."""

from __future__ import annotations

import math
from typing import Any, TypeVar

from triptych.errors import InvalidInput

T = TypeVar("T")

LARGEST = 2**63 - 1
"""That SQLite stores."""


def column(header: dict[str, Any], name: str, *kinds: type, count: int | None = None) -> list[Any]:
    """Return a list of `count` values of these kinds; raises InvalidInput, as all here do."""
    values = of(list, header.get(name), name)
    if not set(map(type, values)).issubset(kinds):
        names = " or ".join(kind.__name__ for kind in kinds)
        raise InvalidInput(f"Got other values among the {name}, expected {names} only.")
    if count is not None and len(values) != count:
        raise InvalidInput(f"Got {len(values)} {name}, expected {count}.")
    return values


def of(kind: type[T], value: Any, name: str) -> T:
    """Return a value that is exactly of this kind."""
    if type(value) is not kind:
        raise InvalidInput(f"Got {type(value).__name__} as {name}, expected {kind.__name__}.")
    return value


def text(value: Any, name: str) -> str | None:
    """Return a string or None."""
    return None if value is None else of(str, value, name)


def whole(value: Any, name: str) -> int:
    """Return a whole number from 0 that SQLite can store."""
    if type(value) is not int or not 0 <= value <= LARGEST:
        raise InvalidInput(f"Got {value!r:.40} as {name}, expected a whole number from 0.")
    return value


def area(shape: list[Any]) -> int:
    """Return how many bytes token states of this shape take."""
    if len(shape) != 2:
        raise InvalidInput(f"Got {len(shape)} sides of token states, expected 2.")
    area = math.prod(whole(side, "side") for side in shape)
    if not area:
        raise InvalidInput(f"Got empty token states, of shape {shape!r:.40}.")
    return area
