"""Parquet: columns with types; a picture may lie in it as bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

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
        """Yield each row, or why it cannot be read; where a part of the file cannot, end there."""
        number = 0
        try:
            with pq.ParquetFile(self.path, pre_buffer=False, buffer_size=2**20) as file:
                for batch in file.iter_batches(batch_size=_BATCH):
                    for values in _values(batch):
                        number += 1
                        place = f"row {number}"
                        yield (place, values) if isinstance(values, BadRow) else Row(place, values)
        except (OSError, ValueError, pa.ArrowException):
            reason = f"The file is damaged: {self._num_rows - number:,} rows cannot be read."
            yield f"row {number + 1}", BadRow("manifest_damaged", reason)

    def total(self, num_read: int) -> int | None:
        """Return the number of rows."""
        return self._num_rows


def _values(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | BadRow]:
    """Yield the values of each row; one that Python cannot hold must not take others with it."""
    columns = [_in_microseconds(column) for column in batch.columns]
    for at in range(batch.num_rows):
        values: dict[str, Any] = {}
        try:
            for name, column in zip(batch.schema.names, columns, strict=True):
                values[name] = column[at].as_py()
        except (ValueError, OverflowError, pa.ArrowException) as error:
            kind = f"{type(error).__name__} in a {column.type}"
            yield BadRow("row_value", f"What its {name!r} holds cannot be read: {kind}.")
        else:
            yield values


def _in_microseconds(column: pa.Array) -> pa.Array:
    """Return times as Python holds them; those in nanoseconds, as pandas writes, it refuses."""
    if pa.types.is_timestamp(column.type) and column.type.unit == "ns":
        return column.cast(pa.timestamp("us", tz=column.type.tz), safe=False)
    if pa.types.is_time64(column.type) and column.type.unit == "ns":
        return column.cast(pa.time64("us"), safe=False)
    return column
