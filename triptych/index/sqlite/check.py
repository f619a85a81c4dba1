"""Hash and compare everything in a store."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import apsw
import numpy as np

from triptych.errors import CollectionDamaged
from triptych.index.sqlite import facts, tokens, words
from triptych.index.sqlite.database import Database
from triptych.index.sqlite.meta import (
    Space,
    current_space,
    read_spaces,
    read_state,
)
from triptych.index.sqlite.pages import damaged_pages
from triptych.index.sqlite.records import bound_checksum, record_from, shown
from triptych.index.sqlite.spaces import load_after

_WRITES_SETTLE = 0.05  # seconds


class Finding(NamedTuple):
    """Something that is wrong."""

    part: str  # pages, structure, items, vectors, thumbnails, tokens, counts, facts, words ...
    message: str
    id: str | None = None  # of the item, where it is one


def check(database: Database) -> list[Finding]:
    """Return all that is wrong with a store; it may be read and written meanwhile."""
    found = _pages(database.path) if database.path else []
    with database.own_reading() as connection:
        for part in (_structure, _items, _vectors, _thumbnails, _tokens, _counts, _facts, _words):
            try:
                found.extend(part(connection))
            except (CollectionDamaged, apsw.CorruptError) as error:
                message = getattr(error, "message", str(error))
                found.append(Finding(part.__name__.removeprefix("_"), message))
    return found


def _pages(path: Path) -> list[Finding]:
    bad = set(damaged_pages(path))
    if bad:  # or just being written
        time.sleep(_WRITES_SETTLE)
        bad &= set(damaged_pages(path))
    return [Finding("pages", f"Page {page} of {path} is damaged.") for page in sorted(bad)]


def _structure(connection: apsw.Connection) -> Iterator[Finding]:
    with suppress(CollectionDamaged, apsw.CorruptError):  # which is found below
        words.look_anew(connection)
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line != "ok":
            yield Finding("structure", f"SQLite says: {line}.")


def _items(connection: apsw.Connection) -> Iterator[Finding]:
    query = "SELECT row, checksum, id, modality, text, uri, metadata, content FROM items"
    for columns in connection.execute(query):
        if record_from(columns) is None:
            yield _wrong("items", "item", shown(columns[2]))


def _vectors(connection: apsw.Connection) -> Iterator[Finding]:
    current = current_space(connection)
    for space in read_spaces(connection):
        table = f"vectors_{space.space}"
        query = f"SELECT count(*) FROM {table} WHERE row NOT IN (SELECT row FROM items)"  # noqa: S608
        if extra := connection.execute(query).get:
            yield Finding("vectors", f"{extra:,} vectors of {space.model} belong to no item.")
        for row, id in _damaged_vectors(connection, space):
            there = f"SELECT count(*) FROM {table} WHERE row = ?"  # noqa: S608
            if space == current or connection.execute(there, (row,)).get:
                yield _wrong("vectors", "vector of", id)


def _damaged_vectors(connection: apsw.Connection, space: Space) -> Iterator[tuple[int, str]]:
    row = 0
    while True:
        part = load_after(connection, space, row, 1024)
        if not len(part.rows_N) and not part.damaged:
            return
        yield from part.damaged.items()
        row = max([*part.rows_N[-1:].tolist(), *part.damaged])


def _thumbnails(connection: apsw.Connection) -> Iterator[Finding]:
    query = (
        "SELECT items.id, items.checksum, jpeg, thumbnails.checksum "
        "FROM thumbnails LEFT JOIN items USING (row)"
    )
    for id, item, jpeg, expected in connection.execute(query):
        if item is None:
            yield Finding("thumbnails", "A thumbnail belongs to no item.")
        elif bound_checksum(item, jpeg) != expected:
            yield _wrong("thumbnails", "thumbnail of", shown(id))


def _tokens(connection: apsw.Connection) -> Iterator[Finding]:
    for space in read_spaces(connection):
        width = space.token_width
        for id in tokens.damaged(connection, space.space, width) if width else ():
            if id is None:
                yield Finding("tokens", "Token states belong to no item.")
            else:
                yield _wrong("tokens", "token states of", id)


def _counts(connection: apsw.Connection) -> Iterator[Finding]:
    state = read_state(connection)
    held, last = connection.execute("SELECT count(*), coalesce(max(row), 0) FROM items").get
    if held != state.count:
        yield Finding("counts", f"There are {held:,} items, expected {state.count:,}.")
    if last > state.last_row:
        yield Finding("counts", f"There is a row {last}, expected none after {state.last_row}.")


def _facts(connection: apsw.Connection) -> Iterator[Finding]:
    query = "SELECT row, modality, metadata FROM items"
    items = ((row, kind, json.loads(text)) for row, kind, text in connection.execute(query))
    missing, surplus = facts.check(connection, items)
    if missing:
        yield Finding("facts", f"What filters need of {len(missing):,} items is missing.")
    if surplus:
        yield Finding("facts", f"{surplus:,} facts for filters belong to no item.")


def _words(connection: apsw.Connection) -> Iterator[Finding]:
    found = connection.execute("SELECT row FROM items ORDER BY row").fetchall()
    problem = words.problem(connection, np.array([row for (row,) in found], dtype=np.int64))
    if problem is not None:
        yield Finding("words", problem)


def _wrong(part: str, what: str, id: str) -> Finding:
    return Finding(part, f"The {what} {id!r} is damaged: its checksum is wrong.", id)
