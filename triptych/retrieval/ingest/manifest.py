"""A manifest: a JSONL, CSV or Parquet file with a row for each item."""

from __future__ import annotations

import os
from collections.abc import Iterator

import apsw

from triptych.errors import InvalidInput
from triptych.retrieval.ingest.columns import Columns, Wanted
from triptych.retrieval.ingest.offers import BadRow, Failure, Offer
from triptych.retrieval.ingest.rows import READERS, Reader, Row


class Manifest:
    """The rows of one file as offers; `note` says which column was taken for what.

    Raises NotFound or InvalidInput where the file as a whole is no such file.
    """

    def __init__(self, path: str, wanted: Wanted) -> None:
        self.path = path
        kind = os.path.splitext(path)[1].lower()
        self._reader: Reader = READERS.resolve(kind)(path)
        self._wanted = wanted
        self._columns = Columns.of(self._reader.columns, wanted, path=path)
        self._is_text = kind in (".csv", ".tsv")
        self.note = self._columns.said(self._reader.columns)

    def offers(self) -> Iterator[Offer | Failure]:
        """Yield the rows; of an id that comes twice the first one."""
        path = os.path.abspath(self.path)
        places, columns = Places(), self._columns
        for row in self._reader.rows():
            try:
                if not isinstance(row, Row):
                    raise row[1]
                columns = columns.widened(row.values, self._wanted)
                offer = columns.offer(row, manifest=path, is_text=self._is_text)
                places.take(offer.item.id, offer.place)
            except InvalidInput as error:
                id = error.id if isinstance(error, BadRow) else None
                yield Failure(
                    source=self.path, place=row[0], id=id, code=error.code, reason=error.message
                )
            else:
                yield offer

    def total(self, num_read: int) -> int | None:
        """How many rows there are, or an estimate."""
        return self._reader.total(num_read)


class Places:
    """Where each id was first seen: exact, and on disk rather than in memory for many millions."""

    def __init__(self) -> None:
        self._connection = apsw.Connection("")  # a private file that nobody else sees
        self._connection.execute("PRAGMA journal_mode = OFF")
        self._connection.execute("CREATE TABLE seen (id PRIMARY KEY, place) WITHOUT ROWID")
        self._connection.execute("BEGIN")

    def take(self, id: str, place: str) -> None:
        """Note the id; raises BadRow where it is known already."""
        key = id.encode("utf-8", "surrogatepass")
        self._connection.execute("INSERT OR IGNORE INTO seen VALUES (?, ?)", (key, place))
        if not self._connection.changes():
            found = self._connection.execute("SELECT place FROM seen WHERE id = ?", (key,)).get
            reason = f"Its id came before, at {found}: of these the first is kept."
            raise BadRow("row_duplicate", reason, id=id)
