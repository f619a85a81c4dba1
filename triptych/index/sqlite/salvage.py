"""What can still be read of a damaged store: around damaged pages, through single wrong bits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import apsw
import numpy as np

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
from triptych.types import Matrix, Vector

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


class Beside(NamedTuple):
    """What a space that is not searched has of some items: what is not whole is left out."""

    ids: list[str]
    vectors_NM: Matrix
    states: list[Tokens]  # one for each item, where the space keeps token states


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
                    tokens_TW = self._own_tokens(entry.id, space, row, columns[1])
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

    def others(self) -> list[Space]:
        """Return the spaces that are not searched, of which nothing is in an entry."""
        with suppress(*_DAMAGE):
            spaces = read_spaces(self.connection)
            return [one for one in spaces if one.space != self.meta.space]
        return []

    def beside(self, space: Space) -> Iterator[Beside]:
        """Yield what a space that is not searched has of items that are whole, rows ascending."""
        for found in _around(self._items, 1, _last_row(self.connection)):
            records = [record_from(columns[:8]) for columns in found]
            ids = {record.row: record.id for record in records if record is not None}
            vectors = self._vectors(space, list(ids))
            states: dict[int, Tokens] = {}
            for row, item in [columns[:2] for columns in found] if space.token_width else ():
                with suppress(*_DAMAGE):
                    if (tokens_TW := self._tokens(space, row, item)) is not None:
                        states[row] = tokens_TW
            rows = [row for row in vectors if row in states or not space.token_width]
            if rows:
                vectors_NM = np.stack([vectors[row] for row in rows])
                kept = [states[row] for row in rows if row in states]
                yield Beside([ids[row] for row in rows], vectors_NM, kept)

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

    def _own_tokens(self, id: str, space: Space, row: int, item: bytes) -> Tokens | None:
        try:
            return self._tokens(space, row, item) if space.token_width else None
        except _DAMAGE:
            self.without_tokens.append(id)
            return None

    def _tokens(self, space: Space, row: int, item: bytes) -> Tokens | None:
        """Return the states of a row, None where it has none; raises where they are damaged."""
        query = f"SELECT states, checksum FROM {table_of(space.space)} WHERE row = ?"  # noqa: S608
        found: list[tuple[Any, ...]] = self.connection.execute(query, (row,)).fetchall()
        for raw, expected in found:
            tokens_TW = verified(item, raw, expected, space.token_width)
            if tokens_TW is None:
                raise CollectionDamaged(f"The token states of row {row} are damaged.")
            return tokens_TW
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
    _settle(path)
    database = Database(path, vfs=MENDING)
    try:
        with database.own_reading() as connection:
            meta = read_meta(connection, path)
            database.trust()
            blobs = Blobs(path.with_name(pictures.FOLDER))
            yield Salvage(meta=meta, connection=connection, blobs=blobs)
    finally:
        database.close()


def _settle(path: Path) -> None:
    """Move the log to its place, where nobody else reads: a lost page can then be made again."""
    database = Database(path, vfs=MENDING)
    try:
        with suppress(CollectionDamaged), database.own_reading() as connection:
            read_meta(connection, path)
            database.trust()
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
