"""Which items have the picture that was sent with them, byte for byte, in a file beside the store.

The table is made with the first of them: a store without any is as it was before there were some.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import apsw

from triptych.errors import CollectionDamaged
from triptych.index.blobs import Blobs
from triptych.index.sqlite.database import Database
from triptych.index.sqlite.records import Entry, Picture, bound_checksum, shown

FOLDER = "pictures"
TABLE = "pictures"

_SCHEMA = f"""
CREATE TABLE {TABLE} (
    row INTEGER PRIMARY KEY, sha256 TEXT NOT NULL, size INTEGER NOT NULL, checksum BLOB NOT NULL
);
CREATE INDEX {TABLE}_sha256 ON {TABLE} (sha256);
"""


def exists(connection: apsw.Connection) -> bool:
    """Whether there ever was a picture."""
    query = "SELECT count(*) FROM sqlite_schema WHERE name = ?"
    return bool(connection.execute(query, (TABLE,)).get)


def insert(connection: apsw.Connection, given: Iterable[tuple[int, bytes, Picture]]) -> None:
    """Note the pictures of items, each a row, the item's checksum and the picture."""
    rows = [
        (row, picture.sha256, picture.size, bound_checksum(item, _said(picture)))
        for row, item, picture in given
    ]
    if rows and not exists(connection):
        connection.execute(_SCHEMA)
    if rows:
        connection.executemany(f"INSERT INTO {TABLE} VALUES (?, ?, ?, ?)", rows)  # noqa: S608


def any_after(connection: apsw.Connection, row: int) -> bool:
    """Whether an item of the rows after `row` has a picture."""
    query = f"SELECT EXISTS (SELECT 1 FROM {TABLE} WHERE row > ?)"  # noqa: S608
    return exists(connection) and bool(connection.execute(query, (row,)).get)


def of_rows(connection: apsw.Connection, rows: Iterable[int]) -> dict[int, Picture]:
    """Return the pictures of those rows that have one, without their bytes."""
    if not exists(connection):
        return {}
    query = f"SELECT row, sha256, size FROM {TABLE} WHERE row = ?"  # noqa: S608
    found = connection.executemany(query, [(row,) for row in rows])
    return {row: Picture(sha256, size) for row, sha256, size in found}


def hashes(connection: apsw.Connection, rows: Iterable[int]) -> set[str]:
    """Return the names of the files that these rows need."""
    return {picture.sha256 for picture in of_rows(connection, rows).values()}


def verified(connection: apsw.Connection, row: int, item: bytes) -> tuple[Picture | None, bool]:
    """Return the picture of a row, and whether what is noted of it is right."""
    if not exists(connection):
        return None, True
    query = f"SELECT sha256, size, checksum FROM {TABLE} WHERE row = ?"  # noqa: S608
    found: list[tuple[Any, ...]] = connection.execute(query, (row,)).fetchall()
    for sha256, size, expected in found:
        picture = Picture(sha256, size)
        if bound_checksum(item, _said(picture)) != expected:
            return None, False
        return picture, True
    return None, True


def in_use(connection: apsw.Connection, hashes: Iterable[str]) -> set[str]:
    """Return those that an item has."""
    if not exists(connection):
        return set()
    query = f"SELECT DISTINCT sha256 FROM {TABLE} WHERE sha256 = ?"  # noqa: S608
    return {one for (one,) in connection.executemany(query, [(one,) for one in hashes])}


def size(connection: apsw.Connection) -> dict[str, int]:
    """Return how many pictures there are, equal ones counted once, and their bytes."""
    if not exists(connection):
        return {"count": 0, "bytes": 0}
    distinct = f"SELECT DISTINCT sha256, size FROM {TABLE}"  # noqa: S608
    count, total = connection.execute(
        f"SELECT count(*), coalesce(sum(size), 0) FROM ({distinct})"  # noqa: S608
    ).get
    return {"count": int(count), "bytes": int(total)}


@contextmanager
def taking(blobs: Blobs, database: Database, entries: Iterable[Entry]) -> Iterator[list[str]]:
    """Keep the pictures of entries before a transaction inside refers to them.

    What is put into the list is looked at after it: what no item has any more is deleted, as are
    new ones where the transaction fails. Raises DiskFull, NotAvailable.
    """
    with blobs.mutex:
        new: list[str] = []
        gone: list[str] = []
        try:
            for sha256, data in _sent(entries):
                if blobs.put(sha256, data):
                    new.append(sha256)
            yield gone
        except BaseException:
            _drop_unused(blobs, database, new)
            raise
        _drop_unused(blobs, database, gone)


def _sent(entries: Iterable[Entry]) -> Iterator[tuple[str, bytes]]:
    for entry in entries:
        if entry.picture is not None and entry.picture.data is not None:
            yield entry.picture.sha256, entry.picture.data


def _drop_unused(blobs: Blobs, database: Database, hashes: Sequence[str]) -> None:
    if hashes:
        with database.own_reading() as connection:
            blobs.remove(set(hashes) - in_use(connection, hashes))


def damaged(database: Database, blobs: Blobs) -> Iterator[tuple[str, str]]:
    """Yield the id of each item whose picture is wrong, and what is; reads every file."""
    with database.own_reading() as connection:
        if not exists(connection):
            return
        query = (
            "SELECT row, items.id, items.checksum FROM pictures LEFT JOIN items USING (row) "
            "ORDER BY sha256"
        )
        found: list[tuple[Any, ...]] = connection.execute(query).fetchall()
        last: tuple[str, str | None] = ("", None)
        for row, id, item in found:
            if item is None:
                yield "", "belongs to no item"
                continue
            picture, right = verified(connection, row, item)
            if picture is None or not right:
                yield shown(id), "is not the one that came with it"
                continue
            if picture.sha256 != last[0]:
                last = (picture.sha256, _problem(blobs, picture.sha256))
            if last[1] is not None and _is_there(database, row):
                yield shown(id), last[1]


def _problem(blobs: Blobs, sha256: str) -> str | None:
    try:
        return None if blobs.read(sha256) is not None else "is gone: its file is missing"
    except CollectionDamaged:
        return "is damaged: its hash is wrong"


def _is_there(database: Database, row: int) -> bool:
    """Whether the item was not deleted since, and its picture's file with it."""
    with database.own_reading() as connection:
        return row in of_rows(connection, [row])


def _said(picture: Picture) -> bytes:
    return f"{picture.sha256}:{picture.size}".encode()
