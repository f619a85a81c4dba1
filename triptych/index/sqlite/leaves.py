"""What a value in the metadata is, and the form in which SQLite compares it rightly."""

from __future__ import annotations

import math
from contextlib import suppress
from enum import IntEnum
from typing import Any, Final, TypeAlias

from triptych.filters import Leaf, Scalar, joined, whole
from triptych.index.sqlite.records import unpack

Stored: TypeAlias = int | float | bytes

_MIDDLE: Final = b"\x80"  # of all HUGE values: where int64 lies


class Kind(IntEnum):
    """What a value is; the order is that of facets that are equally frequent."""

    NULL = 0
    BOOL = 1
    NUMBER = 2
    HUGE = 3  # a number that int64 cannot hold
    TEXT = 4
    PRESENT = 5  # an object or an empty list: no value, but there


# to ask an enum for a member takes longer than all else that is done with a value
_NUMBER, _TEXT = Kind.NUMBER, Kind.TEXT


def stored(leaf: Leaf) -> tuple[Kind, Stored]:
    """Return a value's kind and the form in which it compares rightly inside SQLite."""
    if isinstance(leaf, str):
        try:
            return _TEXT, leaf.encode()
        except UnicodeEncodeError:
            return Kind.TEXT, joined(leaf).encode("utf-8", "surrogatepass")
    if isinstance(leaf, bool):
        return Kind.BOOL, int(leaf)
    if isinstance(leaf, (int, float)):
        if not -(2**63) <= leaf < 2**63:
            return Kind.HUGE, _huge(int(leaf))
        return _NUMBER, whole(leaf) if isinstance(leaf, float) else leaf
    return (Kind.NULL, 0) if leaf is None else (Kind.PRESENT, 0)


def restored(kind: Kind, value: Any) -> Scalar:
    """Return what was stored."""
    if kind is Kind.HUGE:
        sign, raw = (1, value[5:]) if value > _MIDDLE else (-1, _mirrored(value[5:]))
        return sign * int.from_bytes(raw, "big")
    if kind is Kind.TEXT:
        return unpack(value)
    restored: Scalar = {Kind.NULL: None, Kind.BOOL: bool(value)}.get(kind, value)
    return restored


def _huge(number: int) -> bytes:
    """Return bytes in the order of the numbers."""
    size = math.ceil(abs(number).bit_length() / 8)
    raw = size.to_bytes(4, "big") + abs(number).to_bytes(size, "big")
    return b"\x81" + raw if number > 0 else b"\x7f" + _mirrored(raw)


def _mirrored(raw: bytes) -> bytes:
    return bytes(255 - byte for byte in raw)


def stored_alike(form: type, leaves: list[Any]) -> tuple[Kind, list[Stored]] | None:
    """Return what `stored` says of each where it is seen at once that they are of one kind."""
    if form is int and min(leaves) >= -(2**63) and max(leaves) < 2**63:
        return _NUMBER, leaves
    if form is str:
        with suppress(UnicodeEncodeError):
            return _TEXT, [leaf.encode() for leaf in leaves]
    return None


def bounds(value: Scalar) -> list[tuple[Kind, Stored]]:
    """Return what a range is bounded by in each kind that it may reach into."""
    kind, operand = stored(value)
    if kind is Kind.NUMBER:
        return [(Kind.NUMBER, operand), (Kind.HUGE, _MIDDLE)]
    if kind is Kind.HUGE:
        edge = math.inf if isinstance(operand, bytes) and operand > _MIDDLE else -math.inf
        return [(Kind.NUMBER, edge), (Kind.HUGE, operand)]
    return [(kind, operand)]
