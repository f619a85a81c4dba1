"""A manifest's rows: one reader for each kind of file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from io import BufferedReader
from typing import Any, NamedTuple, Protocol

from triptych.errors import InvalidInput, NotFound
from triptych.registry import Registry
from triptych.retrieval.ingest.offers import BadRow

MAX_LINE = 128 * 2**20
"""Bytes of a row of text: a picture of 64 MB as a data URI, and some words."""

READERS = Registry(
    "manifest",
    {
        ".jsonl": "triptych.retrieval.ingest.rows_jsonl:JsonLines",
        ".ndjson": "triptych.retrieval.ingest.rows_jsonl:JsonLines",
        ".csv": "triptych.retrieval.ingest.rows_csv:CsvRows",
        ".tsv": "triptych.retrieval.ingest.rows_csv:CsvRows",
        ".parquet": "triptych.retrieval.ingest.rows_parquet:ParquetRows",
    },
)
"""Ending to reader; resolved when such a file is named, so that a folder loads no pyarrow."""

KINDS = (".jsonl", ".ndjson", ".csv", ".tsv", ".parquet")


class Row(NamedTuple):
    """One row, and where it stands."""

    place: str
    values: Mapping[str, Any]


class Reader(Protocol):
    """Made from a path; raises InvalidInput where the file as a whole is not of its kind."""

    columns: list[str]

    def rows(self) -> Iterator[Row | tuple[str, BadRow]]:
        """Yield the rows, from the first one at each call."""

    def total(self, num_read: int) -> int | None:
        """How many rows there are, or an estimate."""


def opened(path: str) -> BufferedReader:
    """Open a regular file; raises NotFound or InvalidInput, and never hangs on a pipe."""
    file_size(path)
    try:
        return open(path, "rb")
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {os.strerror(error.errno or 0)}.") from None


def file_size(path: str) -> int:
    """Return the bytes of a regular file; raises NotFound or InvalidInput."""
    try:
        status = os.stat(path)
    except OSError:
        raise NotFound(f"There is no file {path}.") from None
    if not stat.S_ISREG(status.st_mode):
        raise InvalidInput(f"{path} is no regular file, expected one.")
    return status.st_size
