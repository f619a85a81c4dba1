"""The durable truth of a collection, in SQLite: every acknowledged write is here (law 5).

One transaction per batch, synced before it returns. `sequence` grows by one with each change.
A row number names one state of one item for ever: writing an item again gives it a new row.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Self

import apsw
import numpy as np

from triptych.errors import CollectionDamaged, DiskFull, InvalidInput
from triptych.index.sqlite import pictures, tokens, words
from triptych.index.sqlite.counter import Counter
from triptych.index.sqlite.database import Database
from triptych.index.sqlite.errors import is_full, translated
from triptych.index.sqlite.generation import NAME as GENERATION
from triptych.index.sqlite.generation import (
    Seen,
    check_generation,
    read_generation,
    write_generation,
)
from triptych.index.sqlite.lock import WriterLock
from triptych.index.sqlite.log import check_start, is_empty, note_start
from triptych.index.sqlite.meta import (
    PRECISIONS,
    Space,
    State,
    bring_up,
    create,
    current_space,
    is_blank,
    read_epoch,
    read_sequence,
    read_state,
    space_for,
    turn_to,
    write_state,
)
from triptych.index.sqlite.reader import Change, Reader, as_rows
from triptych.index.sqlite.records import Entry, FileState, Tokens, pack
from triptych.index.sqlite.spaces import insert_vectors, missing_rows, rounded
from triptych.index.sqlite.writes import (
    check_belongs,
    drop_items,
    insert_items,
    rows_by_id,
    work_out_again,
)
from triptych.types import Matrix, Precision, Rows

_WORTH_COMPACTING = 16_000_000  # bytes


class Store(Reader):
    """Items, vectors and thumbnails. Any thread may call; one process writes at a time."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        path = database.path
        self._lock = WriterLock(path.with_name("lock")) if path else None
        self._reserve = database.reserve
        self._generation = path.with_name(GENERATION) if path else None
        self._counter = Counter(path.with_name(GENERATION), self.meta.collection) if path else None
        self._epoch: str | None = None
        self._reached = -1  # by writes of our own
        self._named: tuple[int, str] = (-2, "")  # a sequence, and its generation

    @classmethod
    def open(
        cls,
        path: Path | None,
        *,
        model: str,
        fingerprint: str,
        dim: int,
        precision: Precision = "fp32",
        token_width: int = 0,
    ) -> Self:
        """Return the store at `path`, created where there is none; None keeps it in memory.

        A new one takes token states of `token_width`, unless that is 0. An existing one keeps its
        own model, precision and width: compare `meta`. Raises CollectionDamaged, CollectionBusy
        while another process creates it, NotAvailable for another format, InvalidInput.
        """
        if precision not in PRECISIONS:
            raise InvalidInput(f"Got the precision {precision!r}, expected fp32 or fp16.")
        database = Database(path)
        seen = read_generation(path.with_name(GENERATION)) if path else None
        try:
            with database.reading() as connection:
                blank = is_blank(connection)
            if blank and seen is not None:
                raise CollectionDamaged(
                    f"{path} is empty, but there were {seen.sequence:,} writes to it.",
                    hint="Restore it from a backup, or delete the folder and index again.",
                )
            if blank:
                _begin(database, Space(0, model, fingerprint, dim, precision, token_width))
            store = cls(database)
            store.check_generation(seen)
            database.trust()
            return store
        except BaseException:
            database.close()
            raise

    @property
    def writing(self) -> bool:
        """Whether this process holds the write lock."""
        return self._lock is None or self._lock.held

    @property
    def generation(self) -> str:
        """A name for what the store holds now: another one after each acknowledged write.

        Never used again, not even where a backup brings an old sequence back. What is read after
        it was asked for is as new as it says, or newer. Raises NotAvailable where the store was
        removed or replaced.
        """
        noted = self._counter.read() if self._counter else -1
        if noted < 0:
            self._database.check_there()
        reached = max(self._reached, noted)
        seen, name = self._named
        if seen != reached:
            with self._database.reading() as connection:
                sequence = max(reached, read_state(connection).sequence)
                epoch = read_epoch(connection)
            name = f"{self.meta.collection}:{epoch}:{sequence}"
            self._named = (reached, name)
        return name

    def check_generation(self, seen: Seen | None) -> None:
        """Raise CollectionDamaged where the store is behind what was `seen` before it was read.

        Also where its file is behind its own log.
        """
        if self._generation is not None and self.path is not None:
            found = Seen(self.sequence, self.meta.collection)
            check_generation(self._generation, seen, found)
            with self._database.reading() as connection:
                check_start(self.path, connection)

    def lock(self) -> None:
        """Become the writer until close; raises CollectionBusy naming the one who is.

        Raises NotAvailable where the folder is gone or read-only.
        """
        if self._lock is not None and not self._lock.held:
            self._database.check_writable()
            self._lock.acquire()
        if self._reserve is not None:
            self._reserve.make()

    def write(
        self, entries: Sequence[Entry], *, replace: bool, fingerprint: str | None = None
    ) -> Change:
        """Store a batch, all of it or nothing; of an id given twice the last stays if `replace`.

        Raises InvalidInput naming the ids that exist already, unless `replace`, or an item that
        cannot be stored; ModelMismatch where another model than that of `fingerprint` is searched.
        """
        batch = {entry.id: entry for entry in entries}
        if len(batch) < len(entries) and not replace:
            raise InvalidInput("An id comes twice in one batch.", hint="upsert keeps the last one.")
        self.lock()
        taking = pictures.taking(self._blobs, self._database, batch.values())
        with taking as gone, self._changing() as connection:
            space = current_space(connection)
            if fingerprint is not None:
                check_belongs(space, fingerprint, entries)
            known = rows_by_id(connection, batch)
            if known and not replace:
                names = ", ".join(repr(id) for id in list(known)[:3])
                more = f" and {len(known) - 3} more" if len(known) > 3 else ""
                verb = "exists" if len(known) == 1 else "exist"
                raise InvalidInput(f"{names}{more} {verb} already.", hint="upsert replaces items.")
            gone += pictures.hashes(connection, known.values())
            return _changed(connection, space, list(known.values()), list(batch.values()))

    def apply(self, entries: Sequence[Entry], gone: Sequence[int]) -> Change:
        """Store items, replacing by id, and take rows away besides, all of it or nothing."""
        self.lock()
        taking = pictures.taking(self._blobs, self._database, entries)
        with taking as dropped, self._changing() as connection:
            rows = sorted({*gone, *rows_by_id(connection, [one.id for one in entries]).values()})
            dropped += pictures.hashes(connection, rows)
            return _changed(connection, current_space(connection), rows, entries)

    def delete(self, ids: Sequence[str]) -> Change:
        """Remove what is there of `ids`; the rest is no error. Works on a full disk as well."""
        self.lock()
        with translated(self.path):
            try:
                return self._deleted(ids)
            except (apsw.FullError, apsw.IOError) as error:
                if self._reserve is None or not is_full(error):
                    raise
            self._reserve.free()
            self._database.checkpoint()
            return self._deleted(ids)

    def touch(self, states: dict[int, FileState]) -> None:
        """Note how the files behind these rows look now, their content being the same."""
        with self._changing() as connection:
            connection.executemany(
                "UPDATE items SET root = ?, size = ?, mtime_ns = ? WHERE row = ?",
                [(pack(s.root), s.size, s.mtime_ns, int(row)) for row, s in states.items()],
            )

    def forget(self, sequence: int) -> None:
        """Drop the removals up to `sequence`: who stands before it must load anew."""
        with self._changing() as connection:
            state = read_state(connection)
            floor = min(max(sequence, state.floor), state.sequence)
            connection.execute("DELETE FROM removed WHERE sequence <= ?", (floor,))
            write_state(connection, state, replace(state, floor=floor))

    def adopt(
        self, *, model: str, fingerprint: str, dim: int, precision: Precision | None = None
    ) -> None:
        """Change the model of a store without items; raises InvalidInput where there are some.

        Nor can a store that takes token states: their width is the model's.
        """
        with self._changing() as connection:
            space = current_space(connection)
            if read_state(connection).count or space.token_width:
                raise InvalidInput("Only an empty collection without tokens can change its model.")
            connection.execute(
                "UPDATE spaces SET model = ?, fingerprint = ?, dim = ?, precision = ? "
                "WHERE space = ?",
                (model, fingerprint, dim, precision or space.precision, space.space),
            )
        self.refreshed_meta()

    def begin_space(
        self,
        *,
        model: str,
        fingerprint: str,
        dim: int,
        precision: Precision = "fp32",
        token_width: int = 0,
    ) -> Space:
        """Return an empty space for another model, or the one begun before for it.

        It keeps token states of `token_width`: one begun with others loses them. With 0 so does
        the one that is searched, which is returned for its own model.
        """
        wanted = Space(0, model, fingerprint, dim, precision, token_width)
        with self._changing() as connection:
            return space_for(connection, wanted)

    def put_vectors(
        self, space: Space, rows_N: Rows, vectors_NM: Matrix, states: Sequence[Tokens | None] = ()
    ) -> None:
        """Store what a space has of items, searched or not; rows that are gone are skipped.

        Raises InvalidInput on a wrong shape, and where token states are missing or too many.
        """
        stored_NM = rounded(space, vectors_NM)
        kept = tokens.checked_states(rows_N.tolist(), states, space.token_width)
        query = "SELECT row, checksum FROM items WHERE row = ?"
        with self._changing() as connection:
            found = dict(connection.executemany(query, [(row,) for row in rows_N.tolist()]))
            there_N = np.array([row in found for row in rows_N.tolist()], dtype=bool)
            rows = rows_N[there_N].tolist()
            sums = [found[row] for row in rows]
            insert_vectors(connection, space, rows, sums, stored_NM[there_N])
            if kept:
                columns = [(row, found[row], kept[row]) for row in rows]
                tokens.insert(connection, space.space, columns)

    def switch(self, space: Space) -> None:
        """Search this space from now on; every index is to be loaded anew.

        Raises InvalidInput while an item has no vector in it.
        """
        with self._changing() as connection:
            missing = missing_rows(connection, space, 0, limit=-1)
            if len(missing):
                raise InvalidInput(f"{len(missing):,} items have no vector of {space.model} yet.")
            turn_to(connection, space)
        self.refreshed_meta()

    def drop_space(self, space: Space) -> None:
        """Delete a space and its vectors; raises InvalidInput for the one that is searched."""
        with self._changing() as connection:
            if space.space == current_space(connection).space:
                raise InvalidInput(f"The vectors of {space.model} are in use.")
            connection.execute("DELETE FROM spaces WHERE space = ?", (space.space,))
            connection.execute(f"DROP TABLE IF EXISTS vectors_{int(space.space)}")
            tokens.drop(connection, space.space)

    def is_mostly_free(self) -> bool:
        """Whether more than half of a file that is worth it is room for items to come."""
        size = self.path.stat().st_size if self.path is not None else 0
        return size > _WORTH_COMPACTING and 2 * self._database.used() < size

    def move_log(self) -> None:
        """Move what was written to its place now, else a write to come would have to."""
        self._database.checkpoint()

    def compact(self) -> None:
        """Give the space of deleted items back, and overwrite what they left in the log.

        Raises DiskFull before it begins where the disk has not the room.
        """
        if self.path is not None:
            needed, free = 2 * self._database.used(), shutil.disk_usage(self.path).free
            if free < needed:
                raise DiskFull(
                    f"Compacting {self.path} takes {needed >> 20:,} MB for a while, "
                    f"{free >> 20:,} MB are free.",
                    hint="Free some space and run the same again.",
                )
        with self._changing() as connection:
            words.purge(connection)
        with translated(self.path):
            self._database.vacuum()
        with self._blobs.mutex, self._database.own_reading() as connection:
            self._blobs.sweep(lambda hashes: pictures.in_use(connection, hashes))

    def work_out_again(self) -> None:
        """Make what filters, words and counts need from the items alone."""
        with self._changing() as connection:
            work_out_again(connection)

    def close(self) -> None:
        """Close the file, then give the lock back; harmless when closed already."""
        self._database.close()
        if self._counter is not None:
            self._counter.close()
        if self._lock is not None:
            self._lock.release()

    @contextmanager
    def _changing(self) -> Iterator[apsw.Connection]:
        self.lock()
        with translated(self.path), self._transaction() as connection:
            yield connection

    @contextmanager
    def _transaction(self) -> Iterator[apsw.Connection]:
        """Yield the connection that writes; errors of SQLite pass."""
        epoch = self._epoch or uuid.uuid4().hex
        with self._database.writing() as connection:
            if self._database.log_is_moved or (epoch != self._epoch and is_empty(self.path)):
                note_start(connection)
            if epoch != self._epoch:
                bring_up(connection)
                values = (read_state(connection).sequence, epoch)
                connection.execute("INSERT INTO epochs VALUES (?, ?)", values)
            yield connection
            sequence = read_sequence(connection)
        self._epoch, self._reached = epoch, sequence
        if self._generation is not None:
            write_generation(self._generation, Seen(sequence, self.meta.collection))

    def _deleted(self, ids: Sequence[str]) -> Change:
        taking = pictures.taking(self._blobs, self._database, ())
        with taking as gone, self._transaction() as connection:
            known = list(rows_by_id(connection, ids).values())
            gone += pictures.hashes(connection, known)
            return _changed(connection, current_space(connection), known, [])


def _begin(database: Database, space: Space) -> None:
    lock = WriterLock(database.path.with_name("lock")) if database.path else nullcontext()
    with lock, database.creating() as connection:
        create(connection, space)


def _changed(
    connection: apsw.Connection, space: Space, gone: Sequence[int], new: Sequence[Entry]
) -> Change:
    """Take rows away and add items, in the space that is searched."""
    state = read_state(connection)
    sequence = state.sequence + (1 if gone or new else 0)
    drop_items(connection, gone)
    connection.executemany("INSERT INTO removed VALUES (?, ?)", [(sequence, row) for row in gone])
    first = state.last_row + 1
    vectors_NM = insert_items(connection, space, first, new)
    count = state.count + len(new) - len(gone)
    after = State(sequence, count, state.last_row + len(new), state.floor)
    write_state(connection, state, after)
    added_N = np.arange(first, first + len(new), dtype=np.int64)
    return Change(added_N, vectors_NM, as_rows(gone), sequence, after.last_row)
