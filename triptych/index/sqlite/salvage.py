"""What can still be read of a damaged store: around damaged pages, through single wrong bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import apsw

from triptych.errors import CollectionDamaged
from triptych.index.blobs import Blobs
from triptych.index.sqlite import pictures
from triptych.index.sqlite.database import Database
from triptych.index.sqlite.meta import (
    Meta,
    Space,
    current_space,
    read_history,
    read_meta,
    read_spaces,
    read_state,
)
from triptych.index.sqlite.pages import MENDING
from triptych.index.sqlite.records import (
    Entry,
    Picture,
    Record,
    Tokens,
    bound_checksum,
    entry_from,
    record_from,
    shown,
    unpack,
)
from triptych.index.sqlite.spaces import load_rows
from triptych.index.sqlite.tokens import table_of, verified
from triptych.types import Vector

_AT_ONCE = 1024
_ITEM = (
    "SELECT row, checksum, id, modality, text, uri, metadata, content, root, size, mtime_ns "
    "FROM items WHERE row BETWEEN ? AND ? ORDER BY row"
)
# what a damaged page makes SQLite, or us, say
_DAMAGE = (CollectionDamaged, apsw.CorruptError, apsw.SQLError, apsw.IOError)


class Lost(NamedTuple):
    """An item that cannot be put back; its record where only its vector is gone."""

    row: int
    id: str | None
    record: Record | None


@dataclass(slots=True, kw_only=True, eq=False)
class Salvage:
    """What is left of a store. `lost` is complete once `entries` were all taken.

    `spare` returns vectors by row from elsewhere, for items whose own cannot be read.
    """

    meta: Meta
    connection: apsw.Connection
    blobs: Blobs
    spare: Callable[[list[int]], dict[int, Vector]] = field(default=lambda rows: {})
    lost: list[Lost] = field(default_factory=list)
    without_thumbnail: list[str] = field(default_factory=list)
    without_tokens: list[str] = field(default_factory=list)
    without_picture: list[str] = field(default_factory=list)

    def entries(self) -> Iterator[list[Entry]]:
        """Yield every item whose checksums hold, rows ascending, some hundreds at a time."""
        space = current_space(self.connection)
        names = _names(self.connection)
        met: set[int] = set()
        for found in _around(self._items, 1, _last_row(self.connection)):
            met.update(columns[0] for columns in found)
            rows = [columns[0] for columns in found]
            vectors = self._vectors(space, rows)
            vectors |= self.spare([row for row in rows if row not in vectors])
            whole = []
            for columns in found:
                row = columns[0]
                entry = entry_from(columns, vectors.get(row), None)
                if entry is None:
                    id = names.get(row) or shown(columns[2])
                    self.lost.append(Lost(row, id, record_from(columns[:8])))
                else:
                    jpeg = self._thumbnail(entry.id, row, columns[1])
                    tokens_TW = self._tokens(entry.id, row, columns[1])
                    picture = self._picture(entry.id, row, columns[1])
                    whole.append(replace(entry, thumbnail=jpeg, tokens=tokens_TW, picture=picture))
            yield whole
        self.lost += [Lost(row, names[row], None) for row in sorted(names.keys() - met)]

    def history(self) -> dict[str, tuple[int, int]]:
        """Return as the store would; raises CollectionDamaged where that cannot be read."""
        try:
            return read_history(self.connection)
        except _DAMAGE:
            raise CollectionDamaged("The history of the store cannot be read.") from None

    def others(self) -> list[str]:
        """Return the models of the vectors that are not searched, which are in no entry."""
        with suppress(*_DAMAGE):
            spaces = read_spaces(self.connection)
            return [one.model for one in spaces if one.space != self.meta.space]
        return []

    def _items(self, first: int, last: int) -> list[tuple[Any, ...]]:
        return self.connection.execute(_ITEM, (first, last)).fetchall()

    def _vectors(self, space: Space, rows: list[int]) -> dict[int, Vector]:
        found: dict[int, Vector] = {}
        with suppress(*_DAMAGE):
            loaded = load_rows(self.connection, space, rows)
            return dict(zip(loaded.rows_N.tolist(), loaded.vectors_NM, strict=True))
        for row in rows:
            with suppress(*_DAMAGE):
                loaded = load_rows(self.connection, space, [row])
                found.update(zip(loaded.rows_N.tolist(), loaded.vectors_NM, strict=True))
        return found

    def _thumbnail(self, id: str, row: int, item: bytes) -> bytes | None:
        query = "SELECT jpeg, checksum FROM thumbnails WHERE row = ?"
        try:
            found: list[tuple[Any, ...]] = self.connection.execute(query, (row,)).fetchall()
        except _DAMAGE:
            self.without_thumbnail.append(id)
            return None
        for jpeg, expected in found:
            if bound_checksum(item, jpeg) == expected:
                return bytes(jpeg)
            self.without_thumbnail.append(id)
        return None

    def _tokens(self, id: str, row: int, item: bytes) -> Tokens | None:
        if not self.meta.token_width:
            return None
        table = table_of(self.meta.space)
        query = f"SELECT states, checksum FROM {table} WHERE row = ?"  # noqa: S608
        try:
            found: list[tuple[Any, ...]] = self.connection.execute(query, (row,)).fetchall()
        except _DAMAGE:
            self.without_tokens.append(id)
            return None
        for raw, expected in found:
            tokens_TW = verified(item, raw, expected, self.meta.token_width)
            if tokens_TW is not None:
                return tokens_TW
            self.without_tokens.append(id)
        return None

    def _picture(self, id: str, row: int, item: bytes) -> Picture | None:
        try:
            picture, right = pictures.verified(self.connection, row, item)
            if right and (picture is None or self.blobs.read(picture.sha256) is not None):
                return picture
        except _DAMAGE:
            pass
        self.without_picture.append(id)
        return None


@contextmanager
def salvaging(path: Path) -> Iterator[Salvage]:
    """Yield what is left of the store at `path`, which stays as it is.

    Raises CollectionDamaged where its first pages are gone, so that nothing can be found.
    """
    database = Database(path, vfs=MENDING)
    try:
        with database.own_reading() as connection:
            meta = read_meta(connection, path)
            database.trust()
            blobs = Blobs(path.with_name(pictures.FOLDER))
            yield Salvage(meta=meta, connection=connection, blobs=blobs)
    finally:
        database.close()


def _around(
    read: Callable[[int, int], list[tuple[Any, ...]]], first: int, last: int
) -> Iterator[list[tuple[Any, ...]]]:
    """Yield what `read` finds in the rows from `first` to `last`, without those it fails at."""
    waiting = [(at, min(at + _AT_ONCE - 1, last)) for at in range(first, last + 1, _AT_ONCE)][::-1]
    while waiting:
        low, high = waiting.pop()
        try:
            yield read(low, high)
        except _DAMAGE:
            if low < high:
                middle = (low + high) // 2
                waiting += [(middle + 1, high), (low, middle)]


def _last_row(connection: apsw.Connection) -> int:
    rows = [0]
    with suppress(*_DAMAGE):
        return read_state(connection).last_row
    for table in ("items", "thumbnails", *(f"vectors_{s.space}" for s in read_spaces(connection))):
        with suppress(*_DAMAGE):
            rows.append(connection.execute(f"SELECT coalesce(max(row), 0) FROM {table}").get)  # noqa: S608
    return max(rows)


def _names(connection: apsw.Connection) -> dict[int, str]:
    """Return the ids by row that the index of the ids has, read from both of its ends."""
    found: dict[int, str] = {}
    for order in ("ASC", "DESC"):
        with suppress(*_DAMAGE):
            query = f"SELECT row, id FROM items ORDER BY id {order}"  # noqa: S608
            for row, id in connection.execute(query):
                found[row] = str(unpack(id))
            break
    return found
