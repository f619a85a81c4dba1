"""What a filter is, what it means, and its JSON form.

A field is named by the path that leads to it: `author.name` in `{"author": {"name": "Ada"}}`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from triptych.types import Metadata, Modality

Scalar: TypeAlias = str | int | float | bool | None
Leaf: TypeAlias = Scalar | tuple[()]
"""A value that can be compared, or () for an object or an empty list: a field that is just there."""

MODALITY: Final = "_modality"
MAX_DEPTH: Final = 32

_SCALARS = frozenset((str, int, float, bool, type(None)))


def fields_of(modality: Modality, metadata: Metadata) -> list[tuple[str, Leaf]]:
    """Return every field and value that a filter can see in an item; a list gives each element.

    What lies deeper than 32 levels is there, but out of a filter's sight. `_modality` is the item's
    own: a key of that name in the metadata is not seen. What JSON would change (a tuple, a key that
    is a number) is seen as JSON gives it back.
    """
    found: list[tuple[str, Leaf]] = [(MODALITY, modality)]
    try:
        _walk("", metadata, found)
    except TypeError:
        found = found[:1]
        _walk("", json.loads(json.dumps(dict(metadata))), found)
    return found


def _walk(prefix: str, value: Mapping[str, Any], found: list[tuple[str, Leaf]]) -> None:
    for key, child in value.items():
        name = prefix + key
        if type(child) not in _SCALARS:
            _walk_container(name, child, 1, found)
        elif name != MODALITY:
            found.append((name, child))


def _walk_container(name: str, value: Any, depth: int, found: list[tuple[str, Leaf]]) -> None:
    kind = type(value)
    if kind in _SCALARS:
        if name != MODALITY:
            found.append((name, value))
        return
    if kind is not dict and kind is not list:
        raise TypeError(kind)
    if name != MODALITY and (kind is dict or not value or depth == MAX_DEPTH):
        found.append((name, ()))
    if depth == MAX_DEPTH:
        return
    if kind is list:
        for child in value:
            _walk_container(name, child, depth + 1, found)
    else:
        for key, child in value.items():
            _walk_container(f"{name}." + key, child, depth + 1, found)
