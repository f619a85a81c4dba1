"""CSV: a line of names, then a line for each row; commas, semicolons or tabs, in UTF-8."""

from __future__ import annotations

import csv
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from io import BufferedReader
from typing import Any

from triptych.errors import InvalidInput
from triptych.retrieval.ingest.offers import BadRow
from triptych.retrieval.ingest.rows import MAX_LINE, Row, file_size, opened

_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,14})(\.[0-9]{1,15})?([eE][+-]?[0-9]{1,2})?")
_BOOLS = {"true": True, "false": False}


class CsvRows:
    """The rows of a CSV file; what is between the commas stays text: see `plain`."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._size = file_size(path)
        self._read = 0
        with opened(path) as file:
            header = file.readline(1_000_000)
        try:
            names = header.decode("utf-8-sig")
        except UnicodeDecodeError:
            encoding = "utf-16" if header.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) else "latin1"
            raise InvalidInput(
                f"{path} is not UTF-8, expected a CSV file in UTF-8.",
                hint=f"Save it as UTF-8, or: iconv -f {encoding} -t utf-8 OLD > NEW",
            ) from None
        self.delimiter = "\t" if path.lower().endswith(".tsv") else _delimiter(names)
        self.columns = self._header()

    def rows(self) -> Iterator[Row | tuple[str, BadRow]]:
        """Yield each row that has as many cells as there are names; empty cells are left out."""
        for place, cells in self._records():
            if isinstance(cells, BadRow):
                yield place, cells
            elif len(cells) != len(self.columns):
                count = f"{len(cells)} cell{'s' * (len(cells) != 1)}"
                reason = f"It has {count}, expected {len(self.columns)}."
                yield place, BadRow("row_length", reason)
            elif any("\udc80" <= c <= "\udcff" for cell in cells for c in cell if c > "\ud7ff"):
                yield place, BadRow("row_encoding", "It is not UTF-8.")
            else:
                pairs = zip(self.columns, cells, strict=True)
                yield Row(place, {name: cell for name, cell in pairs if cell.strip()})

    def total(self, num_read: int) -> int | None:
        """Estimate the number of rows by the bytes that were read so far."""
        return round(num_read * self._size / self._read) if self._read else None

    def _header(self) -> list[str]:
        with opened(self.path) as file:
            first: list[str] | None = None
            try:
                first = next(self._reader(file), None)
            except csv.Error as error:
                raise InvalidInput(f"{self.path} is no CSV file: {error}.") from None
        if not first or not any(name.strip() for name in first):
            raise InvalidInput(
                f"{self.path} begins with no line of names.", hint="For example: id,image,text"
            )
        names = [name.strip() for name in first]
        odd = [name for name in names if names.count(name) > 1 or not name]
        if odd:
            raise InvalidInput(
                f"{self.path} names a column {odd[0]!r} "
                + ("twice." if odd[0] else "(empty), expected a name for each."),
                hint=None if odd[0] else "From pandas: to_csv(..., index=False).",
            )
        return names

    def _records(self) -> Iterator[tuple[str, list[str] | BadRow]]:
        with opened(self.path) as file:
            reader = self._reader(file)
            next(reader)
            while True:
                place = f"line {reader.line_num + 1}"
                try:
                    cells = next(reader, None)
                except csv.Error as error:
                    yield place, BadRow("row_csv", f"It is no row of a CSV file: {error}.")
                    continue
                if cells is None:
                    return
                self._read = file.tell()
                if cells:  # an empty line is none
                    yield place, cells

    def _reader(self, file: BufferedReader) -> Any:
        csv.field_size_limit(MAX_LINE)  # the whole process's; its default is less than a picture
        return csv.reader(_lines(file), delimiter=self.delimiter, strict=True)


def plain(cell: str) -> str | int | float | bool:
    """Return the number, true or false that a cell spells as JSON does, else the cell itself.

    So 12 and 0.5 can be compared by a filter, and 0123, 1,5 and +1 stay text.
    """
    if cell.lower() in _BOOLS:
        return _BOOLS[cell.lower()]
    found = _NUMBER.fullmatch(cell)
    if found is None:
        return cell
    return float(cell) if found[2] or found[3] else int(cell)


def _delimiter(header: str) -> str:
    outside = re.sub(r'"[^"]*"', "", header)
    return max(",;\t", key=outside.count)


def _lines(file: BufferedReader) -> Iterator[str]:
    encoding = "utf-8-sig"
    while line := file.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise csv.Error(f"a line is longer than {MAX_LINE:,} bytes")
        yield line.decode(encoding, "surrogateescape")
        encoding = "utf-8"
