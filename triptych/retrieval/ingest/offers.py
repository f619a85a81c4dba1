"""What a source offers to a collection, before a byte of a picture is decoded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from triptych.errors import InvalidInput
from triptych.index.sqlite.records import FileState
from triptych.types import Item


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Offer:
    """One item to be; its picture is a path, a data URI or encoded bytes."""

    place: str  # where in its source: a path, "line 17", "row 17", a name in a tar
    item: Item
    file: FileState | None = None

    @property
    def num_bytes(self) -> int:
        """What it holds in memory as long as it waits."""
        held = self.item.image
        return len(held) if isinstance(held, bytes | str) else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One thing that was left out, and why; `id` is None where it has none."""

    source: str
    place: str
    id: str | None = None
    code: str
    reason: str


class BadRow(InvalidInput):
    """A row that makes no item; it becomes a Failure, so nobody outside of a source meets it."""

    def __init__(self, code: str, message: str, *, id: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.id = id


class RowSource(Protocol):
    """Rows of one file, in order; each call of `offers` begins anew."""

    path: str

    def offers(self) -> Iterator[Offer | Failure]:
        """Yield what is in the file; something damaged is a Failure, the rest goes on."""

    def total(self, num_read: int) -> int | None:
        """How many there are, or an estimate after `num_read` of them; None if that is open."""
