"""Which rows hold which value in which field: metadata turned over, so that SQLite can filter.

A fact is (field, value, row), kept in that order. A field here is a name together with a kind of
value, so that all values of one field compare as SQLite compares them: text by its UTF-8 bytes,
which is by code point; numbers exactly, whole or not. Everything is maintained inside the store's
transaction and can be worked out again from the items alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from enum import IntEnum
from typing import TypeAlias

import apsw

from triptych.filters import Leaf, fields_of
from triptych.index.records import pack
from triptych.types import Metadata, Modality

SCHEMA = """
CREATE TABLE fields(
    field INTEGER PRIMARY KEY, name ANY NOT NULL, kind INTEGER NOT NULL, UNIQUE(name, kind)
) STRICT;
CREATE TABLE facts(
    field INTEGER NOT NULL, value ANY NOT NULL, row INTEGER NOT NULL,
    PRIMARY KEY(field, value, row)
) STRICT, WITHOUT ROWID;
"""

Given: TypeAlias = tuple[int, Modality, Metadata]
"""Row, modality and metadata of an item."""
Stored: TypeAlias = int | float | bytes
Fact: TypeAlias = tuple["str | bytes | None", int, Stored, int]
"""Name, kind, value and row, as they stand in the tables."""


class Kind(IntEnum):
    """What a value is; the order is the one that facets of equal size come in."""

    NULL = 0
    BOOL = 1
    NUMBER = 2
    HUGE = 3  # a number that int64 cannot hold
    TEXT = 4
    PRESENT = 5  # an object or an empty list: nothing to compare, but there


def expected(row: int, modality: Modality, metadata: Metadata) -> Iterator[Fact]:
    """Give every fact of one item, some perhaps twice."""
    for name, leaf in fields_of(modality, metadata):
        kind, value = stored(leaf)
        yield pack(_joined(name)), kind, value, row


def stored(leaf: Leaf) -> tuple[Kind, Stored]:
    """Return a value's kind and the form in which it compares rightly inside SQLite."""
    if isinstance(leaf, str):
        return Kind.TEXT, _joined(leaf).encode("utf-8", "surrogatepass")
    if isinstance(leaf, bool):
        return Kind.BOOL, int(leaf)
    if isinstance(leaf, int | float):
        inside = -(2**63) <= leaf < 2**63
        return (Kind.NUMBER, leaf) if inside else (Kind.HUGE, _huge(int(leaf)))
    return (Kind.NULL, 0) if leaf is None else (Kind.PRESENT, 0)


def insert(connection: apsw.Connection, items: Sequence[Given]) -> None:
    """Add the facts of new items."""
    facts = _facts(connection, items, create=True)
    connection.executemany("INSERT INTO facts VALUES (?, ?, ?)", facts)


def drop(connection: apsw.Connection, items: Sequence[Given]) -> None:
    """Remove the facts of items, given as they were inserted; names that nobody has any more go."""
    facts = _facts(connection, items, create=False)
    gone = "DELETE FROM facts WHERE field = ? AND value = ? AND row = ?"
    connection.executemany(gone, facts)
    unused = (
        "DELETE FROM fields WHERE field = ?1 AND NOT EXISTS (SELECT 1 FROM facts WHERE field = ?1)"
    )
    connection.executemany(unused, [(field,) for field in {fact[0] for fact in facts}])


def _facts(
    connection: apsw.Connection, items: Iterable[Given], *, create: bool
) -> list[tuple[int, Stored, int]]:
    """Return (field, value, row), each once, in the order of the table: neighbours share a page."""
    numbers: dict[tuple[str, Kind], int] = {}
    facts = set()
    for row, modality, metadata in items:
        for name, leaf in fields_of(modality, metadata):
            kind, value = stored(leaf)
            field = numbers.get((name, kind))
            if field is None:
                field = numbers[name, kind] = _field(connection, name, kind, create=create)
            facts.add((field, value, row))
    return sorted(facts)


def _field(connection: apsw.Connection, name: str, kind: Kind, *, create: bool) -> int:
    key = (pack(_joined(name)), int(kind))
    found = "SELECT field FROM fields WHERE name = ? AND kind = ?"
    number = connection.execute(found, key).get
    if number is None and create:
        new = "INSERT INTO fields(name, kind) VALUES (?, ?) RETURNING field"
        number = connection.execute(new, key).get
    return -1 if number is None else int(number)


def _joined(text: str) -> str:
    """Return text as JSON gives it back: two halves of a surrogate pair are one character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return text


def _huge(number: int) -> bytes:
    """Return bytes in the order of the numbers, around `_MIDDLE` where int64 lies."""
    size = math.ceil(abs(number).bit_length() / 8)
    raw = size.to_bytes(4, "big") + abs(number).to_bytes(size, "big")
    return b"\x81" + raw if number > 0 else b"\x7f" + bytes(255 - byte for byte in raw)
