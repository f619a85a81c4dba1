"""The durable truth of a collection, in SQLite: every acknowledged write is here (law 5).

One transaction per batch, synced before it returns. `sequence` grows by one with each change.
A row number names one state of one item for ever: writing an item again gives it a new row.
"""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import apsw
import numpy as np

from triptych.errors import CollectionDamaged, InvalidInput
from triptych.index.database import connect, is_blank, transaction, translated
from triptych.index.lock import WriterLock
from triptych.index.meta import Meta, create, read_meta
from triptych.index.records import (
    Entry,
    FileState,
    KnownFile,
    Record,
    checksum,
    entry_columns,
    pack,
    record_from,
    unpack,
)
from triptych.types import Matrix, Rows

_RECORD = """
SELECT row, id, modality, text, uri, metadata, content, checksum, vector
FROM items LEFT JOIN vectors USING (row)
"""


class Change(NamedTuple):
    """What a transaction did to the rows."""

    added_N: Rows
    removed_N: Rows


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded:
    """Vectors whose checksums hold, and the rows and ids of those whose do not."""

    rows_N: Rows
    vectors_NM: Matrix
    damaged: dict[int, str]


class Store:
    """Items, vectors and thumbnails. Any thread may call; one process writes at a time."""

    def __init__(self, connection: apsw.Connection, *, path: Path | None) -> None:
        self._connection = connection
        self._mutex = threading.RLock()
        self._lock = WriterLock(path.with_name("lock")) if path else None
        self._epoch: str | None = None
        self.path = path
        self.meta = read_meta(connection, path)

    @classmethod
    def open(cls, path: Path | None, *, model: str, fingerprint: str, dim: int) -> Self:
        """Return the store at `path`, created where there is none; None keeps it in memory.

        An existing one keeps its own model: compare `meta`. Raises CollectionDamaged,
        CollectionBusy while another process creates it, NotAvailable for a newer format.
        """
        lock: WriterLock | None = None
        with translated(path):
            connection = connect(path)
            if is_blank(connection):
                lock = WriterLock(path.with_name("lock")) if path else None
                if lock is not None:
                    lock.acquire()
                try:
                    create(connection, model=model, fingerprint=fingerprint, dim=dim)
                finally:
                    if lock is not None:
                        lock.release()
        return cls(connection, path=path)

    @property
    def sequence(self) -> int:
        """How many changes there have been."""
        return int(self._value("SELECT value FROM meta WHERE key = 'sequence'"))

    def history(self) -> dict[str, tuple[int, int]]:
        """Return each epoch's first sequence and the one that the next began at (or stands at)."""
        query = "SELECT sequence, epoch FROM epochs ORDER BY rowid"
        with self.reading():
            found = [(int(first), str(epoch)) for first, epoch in self._select(query)]
            ends = [*(first for first, _ in found[1:]), self.sequence]
        return {epoch: (first, end) for (first, epoch), end in zip(found, ends, strict=False)}

    @property
    def writing(self) -> bool:
        """Whether this process holds the write lock."""
        return self._lock is None or self._lock.held

    def __len__(self) -> int:
        return int(self._value("SELECT count(*) FROM items"))

    def lock(self) -> None:
        """Become the writer until close; raises CollectionBusy naming the one who is."""
        if self._lock is not None:
            self._lock.acquire()

    def write(self, entries: Sequence[Entry], *, replace: bool) -> Change:
        """Store a batch, all of it or nothing; of an id given twice the last stays if `replace`.

        Raises InvalidInput naming the ids that exist already, unless `replace`.
        """
        batch = {entry.id: entry for entry in entries}
        if len(batch) < len(entries) and not replace:
            raise InvalidInput("An id comes twice in one batch.", hint="upsert keeps the last one.")
        with self._changing() as execute:
            known = self._rows_of(list(batch))
            if known and not replace:
                names = ", ".join(repr(id) for id in list(known)[:3])
                more = f" and {len(known) - 3} more" if len(known) > 3 else ""
                raise InvalidInput(f"{names}{more} exist already.", hint="upsert replaces items.")
            self._drop(list(known.values()))
            last = self._value("SELECT coalesce(max(seq), 0) FROM sqlite_sequence")
            added = range(int(last) + 1, int(last) + 1 + len(batch))
            self._insert(list(zip(added, batch.values(), strict=True)))
            if batch:
                execute("UPDATE meta SET value = value + 1 WHERE key = 'sequence'")
        return _change(list(added), list(known.values()))

    def delete(self, ids: Sequence[str]) -> Change:
        """Remove what is there of `ids`; the rest is no error."""
        with self._changing() as execute:
            gone = list(self._rows_of(ids).values())
            self._drop(gone)
            if gone:
                execute("UPDATE meta SET value = value + 1 WHERE key = 'sequence'")
        return _change([], gone)

    def touch(self, states: dict[int, FileState]) -> None:
        """Note how the files behind these rows look now, their content being the same."""
        with self._changing():
            self._connection.executemany(
                "UPDATE items SET root = ?, size = ?, mtime_ns = ? WHERE row = ?",
                [(pack(s.root), s.size, s.mtime_ns, row) for row, s in states.items()],
            )

    def adopt(self, *, model: str, fingerprint: str, dim: int) -> None:
        """Change the model of a store without items; raises InvalidInput where there are some."""
        with self._changing() as execute:
            if len(self):
                raise InvalidInput("Only an empty collection can change its model.")
            new = {"model": model, "fingerprint": fingerprint, "dim": dim}
            for key, value in new.items():
                execute("UPDATE meta SET value = ? WHERE key = ?", (value, key))
        self.meta = read_meta(self._connection, self.path)

    def refreshed_meta(self) -> Meta:
        """Return the meta as it is on disk now."""
        with self.reading():
            self.meta = read_meta(self._connection, self.path)
        return self.meta

    def rows(self) -> Rows:
        """Return all rows, ascending."""
        with self.reading():
            found = self._connection.execute("SELECT row FROM items").fetchall()
        return np.sort(np.array([row for (row,) in found], dtype=np.int64))

    def load(self, rows_N: Rows) -> Loaded:
        """Return the verified vectors of `rows_N`, ascending; rows that are gone are left out."""
        wanted = set(rows_N.tolist())
        rows: list[int] = []
        damaged: dict[int, str] = {}
        vectors_NM = np.empty((len(wanted), self.meta.dim), dtype=np.float32)
        if wanted:
            # new rows lie together, so that a range is read once and in order
            bounds = (min(wanted), max(wanted))
            for columns in self._select(
                f"{_RECORD} WHERE row BETWEEN ? AND ? ORDER BY row", bounds
            ):
                if columns[0] not in wanted:
                    continue
                record = record_from(columns, self.meta.dim)
                if record is None:
                    damaged[columns[0]] = _shown(columns[1])
                else:
                    vectors_NM[len(rows)] = record.vector
                    rows.append(columns[0])
        held = np.array(rows, dtype=np.int64)
        return Loaded(rows_N=held, vectors_NM=vectors_NM[: len(rows)], damaged=damaged)

    def records(self, rows: Sequence[int]) -> tuple[list[Record], dict[int, str]]:
        """Return the verified records, and row and id of those whose checksum is wrong."""
        return self._records("row", rows)

    def records_of(self, ids: Sequence[str]) -> dict[str, Record]:
        """Return the records that are there, by id; raises CollectionDamaged naming the id."""
        records, damaged = self._records("id", [pack(id) for id in ids])
        if damaged:
            raise CollectionDamaged(
                f"The item {next(iter(damaged.values()))!r} is damaged on disk.",
                hint="Delete it, or add it again.",
            )
        return {record.id: record for record in records}

    def files(self) -> dict[str, KnownFile]:
        """Return every item that came from an indexed folder."""
        query = "SELECT id, row, content, root, size, mtime_ns FROM items WHERE root IS NOT NULL"
        found = {}
        for id, row, content, root, size, mtime_ns in self._select(query):
            state = FileState(root=str(unpack(root)), size=size, mtime_ns=mtime_ns)
            found[str(unpack(id))] = KnownFile(row=row, content=content, state=state)
        return found

    def thumbnail(self, id: str) -> bytes | None:
        """Return a JPEG, or None where the item has none or is not there."""
        query = "SELECT jpeg FROM items JOIN thumbnails USING (row) WHERE id = ?"
        found: list[tuple[bytes]] = list(self._select(query, (pack(id),)))
        return found[0][0] if found else None

    def compact(self) -> None:
        """Give the space of deleted items back, and overwrite what they left in the log."""
        self.lock()
        with self._mutex, translated(self.path):
            self._connection.execute("VACUUM")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the file, then give the lock back; harmless when closed already."""
        with self._mutex, translated(self.path):
            self._connection.close()
        if self._lock is not None:
            self._lock.release()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One consistent view over several reads."""
        with self._mutex, translated(self.path):
            scope: AbstractContextManager[Any] = nullcontext()
            if not self._connection.in_transaction:
                scope = transaction(self._connection, "DEFERRED")
            with scope:
                yield

    @contextmanager
    def _changing(self) -> Iterator[Any]:
        self.lock()
        epoch = self._epoch or uuid.uuid4().hex
        with self._mutex, translated(self.path), transaction(self._connection, "IMMEDIATE"):
            if epoch != self._epoch:
                values = (self.sequence, epoch)
                self._connection.execute("INSERT INTO epochs VALUES (?, ?)", values)
            yield self._connection.execute
        self._epoch = epoch

    def _select(self, query: str, values: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
        with self.reading():
            yield from self._connection.execute(query, values)

    def _value(self, query: str) -> Any:
        with self._mutex, translated(self.path):
            return self._connection.execute(query).get

    def _records(self, column: str, values: Sequence[Any]) -> tuple[list[Record], dict[int, str]]:
        found: list[Record] = []
        damaged: dict[int, str] = {}
        query = f"{_RECORD} WHERE {column} = ?"
        with self.reading():
            for value in values:
                for columns in self._connection.execute(query, (value,)):
                    record = record_from(columns, self.meta.dim)
                    if record is None:
                        damaged[columns[0]] = _shown(columns[1])
                    else:
                        found.append(record)
        return found, damaged

    def _rows_of(self, ids: Sequence[str]) -> dict[str, int]:
        query = "SELECT row FROM items WHERE id = ?"
        rows = {id: self._connection.execute(query, (pack(id),)).get for id in ids}
        return {id: row for id, row in rows.items() if row is not None}

    def _drop(self, rows: Sequence[int]) -> None:
        for table in ("items", "vectors", "thumbnails"):
            self._connection.executemany(
                f"DELETE FROM {table} WHERE row = ?",  # noqa: S608
                [(row,) for row in rows],
            )

    def _insert(self, numbered: Sequence[tuple[int, Entry]]) -> None:
        items, vectors, thumbnails = [], [], []
        for row, entry in numbered:
            payload, vector = entry_columns(entry)
            file = entry.file
            state = (pack(file.root), file.size, file.mtime_ns) if file else (None, None, None)
            items.append((row, *payload, checksum(payload, vector), *state))
            vectors.append((row, vector))
            if entry.thumbnail is not None:
                thumbnails.append((row, entry.thumbnail))
        many = self._connection.executemany
        many("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", items)
        many("INSERT INTO vectors VALUES (?, ?)", vectors)
        many("INSERT INTO thumbnails VALUES (?, ?)", thumbnails)


def _change(added: Sequence[int], removed: Sequence[int]) -> Change:
    return Change(np.array(added, dtype=np.int64), np.array(removed, dtype=np.int64))


def _shown(id: Any) -> str:
    return id.decode("utf-8", "replace") if isinstance(id, bytes) else str(id)
