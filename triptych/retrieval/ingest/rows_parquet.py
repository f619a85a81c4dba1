"""Parquet: columns with types; a picture may lie in it as bytes."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from triptych.errors import InvalidInput
from triptych.retrieval.ingest.offers import BadRow
from triptych.retrieval.ingest.rows import Row, file_size

_BATCH = 64  # rows held at a time: their pictures are in it


class ParquetRows:
    """The rows of a Parquet file, read a few at a time whatever the size of its row groups."""

    def __init__(self, path: str) -> None:
        self.path = path
        file_size(path)
        try:
            with pq.ParquetFile(path) as file:
                self.columns: list[str] = list(file.schema_arrow.names)
                self._num_rows = int(file.metadata.num_rows)
        except (OSError, ValueError):
            raise InvalidInput(
                f"{path} is no readable Parquet file.", hint="It may be cut short."
            ) from None
        twice = [name for name in self.columns if self.columns.count(name) > 1]
        if twice:
            raise InvalidInput(f"{path} names a column {twice[0]!r} twice.")

    def rows(self) -> Iterator[Row | tuple[str, BadRow]]:
        """Yield each row; where a part cannot be read, say so and end."""
        number = 0
        try:
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=2**20) as file:
                for batch in file.iter_batches(batch_size=_BATCH):
                    for values in batch.to_pylist():
                        number += 1
                        yield Row(f"row {number}", values)
        except (OSError, ValueError, pa.ArrowException):
            reason = f"The file is damaged: {self._num_rows - number:,} rows cannot be read."
            yield f"row {number + 1}", BadRow("manifest_damaged", reason)

    def total(self, num_read: int) -> int | None:
        """Return the number of rows."""
        return self._num_rows
