"""What can be read of a store: by any thread, from one state each, never waiting for a write."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from triptych.errors import CollectionDamaged, NotFound
from triptych.filters import Filter, Scalar
from triptych.index.blobs import Blobs
from triptych.index.sqlite import facts, pictures, tokens, words
from triptych.index.sqlite.check import Finding, check
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
from triptych.index.sqlite.records import (
    FileState,
    KnownFile,
    Picture,
    Record,
    bound_checksum,
    pack,
    record_from,
    shown,
    unpack,
)
from triptych.index.sqlite.spaces import Loaded, load_all_after, load_rows, missing_rows
from triptych.index.sqlite.view import View
from triptych.index.sqlite.writes import rows_by_id
from triptych.types import Matrix, Modality, Rows, Vector

_RECORD = "SELECT row, checksum, id, modality, text, uri, metadata, content FROM items"


class Change(NamedTuple):
    """What was done to the rows, up to `sequence`; the vectors as they are stored."""

    added_N: Rows
    vectors_NM: Matrix
    removed_N: Rows
    sequence: int
    last_row: int
    damaged: Mapping[int, str] = MappingProxyType({})  # added rows that cannot be used, and ids


class Reader:
    """The items of one database and their vectors."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.path = database.path
        self._blobs = Blobs(self.path.with_name(pictures.FOLDER) if self.path else None)
        self.meta = self.refreshed_meta()

    @property
    def sequence(self) -> int:
        """How many changes there have been."""
        with self._database.reading() as connection:
            return read_state(connection).sequence

    @property
    def floor(self) -> int:
        """The sequence from which on changes can be replayed."""
        with self._database.reading() as connection:
            return read_state(connection).floor

    @property
    def read_only(self) -> bool:
        """Whether the file or its folder cannot be written to."""
        return self._database.read_only

    def __len__(self) -> int:
        with self._database.reading() as connection:
            return read_state(connection).count

    def history(self) -> dict[str, tuple[int, int]]:
        """Return each epoch's first sequence and the one that the next began at (or stands at)."""
        with self._database.reading() as connection:
            return read_history(connection)

    def refreshed_meta(self) -> Meta:
        """Return the meta as it is on disk now, and keep it."""
        self.meta = self.read_meta()
        return self.meta

    def read_meta(self) -> Meta:
        """Return the meta of the state that this thread reads."""
        with self._database.reading() as connection:
            return read_meta(connection, self.path)

    @contextmanager
    def reading(self) -> Iterator[None]:
        """One consistent view over several reads of this thread."""
        with self._database.reading():
            yield

    def changes(self, sequence: int, last_row: int) -> Change | None:
        """Return what happened to the rows up to `last_row` since `sequence`, and the new rows.

        None where it cannot be replayed: the removals are forgotten, or the past is another one.
        """
        with self._database.reading() as connection:
            state = read_state(connection)
            if not state.floor <= sequence <= state.sequence or last_row > state.last_row:
                return None
            loaded = load_all_after(connection, current_space(connection), last_row)
            query = "SELECT row FROM removed WHERE sequence > ? AND row <= ? ORDER BY row"
            removed: list[tuple[Any, ...]] = connection.execute(
                query, (sequence, last_row)
            ).fetchall()
        return Change(
            loaded.rows_N,
            loaded.vectors_NM,
            as_rows(row for (row,) in removed),
            state.sequence,
            state.last_row,
            loaded.damaged,
        )

    def rows(self) -> Rows:
        """Return all rows, ascending."""
        with self._database.reading() as connection:
            query = "SELECT row FROM items ORDER BY row"
            found: list[tuple[Any, ...]] = connection.execute(query).fetchall()
        return as_rows(row for (row,) in found)

    def rows_of(self, ids: Sequence[str]) -> dict[str, int]:
        """Return the rows of those ids that are there."""
        with self._database.reading() as connection:
            return rows_by_id(connection, ids)

    def ids_of(self, rows: Sequence[int]) -> dict[int, str]:
        """Return the ids of those rows that are there."""
        with self._database.reading() as connection:
            query = "SELECT row, id FROM items WHERE row = ?"
            found = connection.executemany(query, [(row,) for row in as_rows(rows).tolist()])
            return {row: str(unpack(id)) for row, id in found}

    def sample(self, limit: int, filter: Filter | None = None) -> list[str]:
        """Return at most `limit` ids, evenly out of all rows that pass, ascending by row."""
        rows_N = self.rows() if filter is None else self.where(filter)
        evenly = np.linspace(0, len(rows_N) - 1, min(limit, len(rows_N))).round().astype(int)
        return list(self.ids_of(rows_N[evenly].tolist()).values())

    def modalities(self, rows: Sequence[int]) -> dict[int, Modality]:
        """Return what each of those rows that are there is made of."""
        with self._database.reading() as connection:
            query = "SELECT row, modality FROM items WHERE row = ?"
            found = connection.executemany(query, [(row,) for row in as_rows(rows).tolist()])
            return dict(found)

    def load(self, rows_N: Rows) -> Loaded:
        """Return the verified vectors of `rows_N`, ascending; rows that are gone are left out."""
        with self._database.reading() as connection:
            return load_rows(connection, current_space(connection), np.unique(rows_N).tolist())

    def spaces(self) -> list[Space]:
        """Return the space that is searched and those that are being filled, by number."""
        with self._database.reading() as connection:
            return read_spaces(connection)

    def space(self, number: int) -> Space:
        """Return a space as it is now; raises NotFound where it was dropped."""
        for space in self.spaces():
            if space.space == number:
                return space
        raise NotFound(
            f"The vectors with the number {number} are gone.", hint="Run the migration again."
        )

    def missing(self, space: Space, after_row: int = 0, limit: int = 1024) -> Rows:
        """Return the first `limit` rows after `after_row` that lack a vector in `space`.

        Or the token states, where it keeps them. Raises NotFound where it was dropped.
        """
        with self._database.reading() as connection:
            self.space(space.space)
            return missing_rows(connection, space, after_row, limit)

    @contextmanager
    def view(self, *, keep_pictures: bool = False) -> Iterator[View]:
        """Yield the store as it is now; it can be read in any thread, whatever is written.

        Pictures that are deleted meanwhile stay, if that is wanted, until the next `compact`.
        """
        kept = self._blobs.kept() if keep_pictures else nullcontext()
        with kept, self._database.own_reading() as connection:
            yield View.of(connection)

    def records(self, rows: Sequence[int]) -> tuple[list[Record], dict[int, str]]:
        """Return the verified records, in order, and row and id of those whose checksum is wrong.

        Rows that are gone are left out.
        """
        return self._records("row", as_rows(rows).tolist())

    def records_of(self, ids: Sequence[str]) -> dict[str, Record]:
        """Return the records that are there, by id; raises CollectionDamaged naming the id."""
        records, damaged = self._records("id", [pack(id) for id in ids])
        if damaged:
            raise _damaged(next(iter(damaged.values())))
        return {record.id: record for record in records}

    def contents(self, ids: Sequence[str]) -> dict[str, str | None]:
        """Return what is noted as the content of those ids that are there."""
        with self._database.reading() as connection:
            query = "SELECT id, content FROM items WHERE id = ?"
            found = connection.executemany(query, [(pack(id),) for id in ids])
            return {str(unpack(id)): content for id, content in found}

    def files(self) -> dict[str, KnownFile]:
        """Return every item that came from an indexed folder."""
        query = "SELECT id, row, content, root, size, mtime_ns FROM items WHERE root IS NOT NULL"
        found = {}
        with self._database.reading() as connection:
            for id, row, content, root, size, mtime_ns in connection.execute(query):
                state = FileState(root=str(unpack(root)), size=size, mtime_ns=mtime_ns)
                found[str(unpack(id))] = KnownFile(row=row, content=content, state=state)
        return found

    def where(self, filter: Filter) -> Rows:
        """Return the rows of the items that pass, ascending."""
        with self._database.reading() as connection:
            return facts.rows_matching(connection, filter)

    def facets(
        self, fields: Sequence[str], filter: Filter | None = None, limit: int = 20
    ) -> dict[str, list[tuple[Scalar, int]]]:
        """Return the most frequent values of each field, among the items that pass, and counts."""
        with self._database.reading() as connection:
            rows_N = None if filter is None else facts.rows_matching(connection, filter)
            return {name: facts.facets(connection, name, rows_N, limit) for name in fields}

    def words(self, query: str, k: int, *, allowed: Rows | None = None) -> tuple[Rows, Vector]:
        """Return the k items whose words fit best and all that fit as well as the last of them.

        rows_K and BM25 scores_K, best first, equal ones in the order of their rows. `allowed`
        restricts the answer to these rows.
        """
        with self._database.reading() as connection:
            return words.search(connection, query, k, allowed=allowed)

    def textless(self, rows_N: Rows) -> Rows:
        """Return those of the rows that have no text, whatever their metadata say, ascending."""
        with self._database.reading() as connection:
            return words.textless(connection, rows_N)

    def thumbnail(self, id: str) -> bytes | None:
        """Return a JPEG, or None where the item has none or is not there.

        Raises CollectionDamaged naming the id.
        """
        query = (
            "SELECT jpeg, thumbnails.checksum, items.checksum "
            "FROM items JOIN thumbnails USING (row) WHERE id = ?"
        )
        with self._database.reading() as connection:
            found: list[tuple[Any, ...]] = connection.execute(query, (pack(id),)).fetchall()
        if not found:
            return None
        jpeg, expected, item = found[0]
        if bound_checksum(item, jpeg) != expected:
            raise _damaged(id)
        return bytes(jpeg)

    def picture(self, id: str) -> bytes | None:
        """Return the picture as it was sent, None where none was kept or there is no such item.

        Raises CollectionDamaged naming the id.
        """
        for _ in range(2):  # a writer may delete the file between the two readings
            rows = self.rows_of([id])
            kept = self.pictures(list(rows.values()))
            if not kept:
                return None
            try:
                data = self.picture_data(kept[rows[id]])
            except CollectionDamaged:
                break
            if data is not None:
                return data
        raise _damaged(id, "picture of")

    def pictures(self, rows: Sequence[int]) -> dict[int, Picture]:
        """Return what is kept as sent of those rows that have it, without the bytes."""
        with self._database.reading() as connection:
            return pictures.of_rows(connection, rows)

    def picture_data(self, picture: Picture) -> bytes | None:
        """Return the bytes, None where they are gone; raises CollectionDamaged."""
        return self._blobs.read(picture.sha256)

    def picture_size(self) -> dict[str, int]:
        """Return how many pictures are kept as sent, equal ones once, and their bytes."""
        with self._database.reading() as connection:
            return pictures.size(connection)

    def token_states(self, rows: Sequence[int]) -> tokens.LoadedTokens:
        """Return the verified token states of those rows that have some."""
        with self._database.reading() as connection:
            space = current_space(connection)
            return tokens.load(connection, space.space, rows, space.token_width)

    def token_size(self) -> tuple[int, int]:
        """Return how many items have token states, and the bytes that these take."""
        with self._database.reading() as connection:
            space = current_space(connection)
            return tokens.size(connection, space.space) if space.token_width else (0, 0)

    def check(self) -> list[Finding]:
        """Return all that is wrong: pages, checksums, counts, what filters and words need."""
        found = check(self._database)
        for id, problem in pictures.damaged(self._database, self._blobs):
            found.append(Finding("pictures", f"The picture of {id!r} {problem}.", id or None))
        return found

    def _records(self, column: str, values: Sequence[Any]) -> tuple[list[Record], dict[int, str]]:
        found: list[Record] = []
        damaged: dict[int, str] = {}
        query = f"{_RECORD} WHERE {column} = ?"
        with self._database.reading() as connection:
            for columns in connection.executemany(query, [(value,) for value in values]):
                record = record_from(columns)
                if record is None:
                    damaged[columns[0]] = shown(columns[2])
                else:
                    found.append(record)
        return found, damaged


def as_rows(rows: Iterable[int]) -> Rows:
    """Return an array; its `tolist` is what SQLite takes: NumPy's integers it binds as blobs."""
    return np.array(list(rows), dtype=np.int64)


def _damaged(id: str, what: str = "item") -> CollectionDamaged:
    return CollectionDamaged(
        f"The {what} {id!r} is damaged on disk.", hint="Delete it, or add it again."
    )
