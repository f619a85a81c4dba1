"""All of a store at one moment, while it goes on being written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Self

import apsw

from triptych.errors import CollectionDamaged
from triptych.index.sqlite import pictures, tokens
from triptych.index.sqlite.meta import Space, current_space, read_state
from triptych.index.sqlite.records import Entry, bound_checksum, entry_from, pack, shown
from triptych.index.sqlite.spaces import Loaded, load_after, load_rows

_ITEM = (
    "SELECT items.row, items.checksum, id, modality, text, uri, metadata, content, "
    "root, size, mtime_ns, jpeg, thumbnails.checksum "
    "FROM items LEFT JOIN thumbnails USING (row)"
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class View:
    """One state of a store. Any thread may use it, one at a time, until it is closed."""

    connection: apsw.Connection
    space: Space
    sequence: int
    last_row: int
    epoch: str
    count: int

    @classmethod
    def of(cls, connection: apsw.Connection) -> Self:
        """Return the state that `connection` sees."""
        state = read_state(connection)
        epoch = connection.execute("SELECT epoch FROM epochs ORDER BY rowid DESC LIMIT 1").get
        return cls(
            connection=connection,
            space=current_space(connection),
            sequence=state.sequence,
            last_row=state.last_row,
            epoch=epoch or "",
            count=state.count,
        )

    def chunks(self, size: int = 4096) -> Iterator[Loaded]:
        """Yield all items, rows ascending, at most `size` at a time."""
        row = 0
        while True:
            part = load_after(self.connection, self.space, row, size)
            if not len(part.rows_N) and not part.damaged:
                return
            yield part
            row = max([*part.rows_N[-1:].tolist(), *part.damaged])

    def entries(self, size: int = 256, *, after: int = 0) -> Iterator[list[Entry]]:
        """Yield all items of the rows after `after` whole, ascending, at most `size` at a time.

        Raises CollectionDamaged naming the first item of which a checksum is wrong.
        """
        row, query = after, f"{_ITEM} WHERE items.row > ? ORDER BY items.row LIMIT ?"
        found: list[tuple[Any, ...]]
        while found := self.connection.execute(query, (row, size)).fetchall():
            yield self._whole(found)
            row = found[-1][0]

    def entries_of(self, ids: Sequence[str]) -> list[Entry]:
        """Return those of the ids that are there whole; raises CollectionDamaged as `entries`."""
        query = f"{_ITEM} WHERE id = ?"
        found = self.connection.executemany(query, [(pack(id),) for id in ids]).fetchall()
        return self._whole(sorted(found, key=itemgetter(0))) if found else []

    def _whole(self, found: list[tuple[Any, ...]]) -> list[Entry]:
        """Return the items of the columns of `_ITEM`, rows ascending."""
        rows = [columns[0] for columns in found]
        loaded = load_rows(self.connection, self.space, rows)
        vectors = dict(zip(loaded.rows_N.tolist(), loaded.vectors_NM, strict=True))
        entries = [_entry(columns, vectors) for columns in found]
        if kept := pictures.of_rows(self.connection, rows):
            pairs = zip(rows, entries, strict=True)
            entries = [replace(entry, picture=kept.get(row)) for row, entry in pairs]
        space, width = self.space.space, self.space.token_width
        if states := tokens.stored(self.connection, space, rows, width):
            pairs = zip(rows, entries, strict=True)
            entries = [replace(entry, tokens=states.get(row)) for row, entry in pairs]
        return entries


def _entry(columns: tuple[Any, ...], vectors: dict[int, Any]) -> Entry:
    *item, jpeg, expected = columns
    entry = entry_from(tuple(item), vectors.get(item[0]), jpeg)
    if entry is None or (jpeg is not None and bound_checksum(item[1], jpeg) != expected):
        raise CollectionDamaged(
            f"The item {shown(item[2])!r} is damaged on disk.",
            hint="Delete it, or add it again.",
        )
    return entry
