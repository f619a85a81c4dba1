"""JSON Lines: one object in each line, in UTF-8."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from io import BufferedReader
from itertools import islice
from typing import Any

from triptych.errors import InvalidInput
from triptych.retrieval.ingest.offers import BadRow
from triptych.retrieval.ingest.rows import MAX_LINE, Row, file_size, opened

TO_LINES = "jq -c '.[]' OLD > NEW.jsonl"
"""The command that makes JSON Lines of an array."""

_SAMPLE = 100


class JsonLines:
    """The rows of a JSONL file; `columns` are the keys of its first hundred objects."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._size = file_size(path)
        self._read = 0
        sample = list(islice(self.rows(), _SAMPLE))
        objects = [row.values for row in sample if isinstance(row, Row)]
        if not objects:
            why = f"; {sample[0][0]}: {sample[0][1]}" if sample else ", it is empty."
            raise InvalidInput(
                f"{path} holds no JSON Lines{why}",
                hint='Expected one object in each line, like {"id": "a", "image": "a.jpg"}; '
                f"of an array: {TO_LINES}",
            )
        self.columns = list(dict.fromkeys(name for values in objects for name in values))

    def rows(self) -> Iterator[Row | tuple[str, BadRow]]:
        """Yield each object, or why a line holds none."""
        with opened(self.path) as file:
            for number, line in _lines(file):
                self._read = file.tell()
                place = f"line {number}"
                try:
                    values = _parsed(line, first=number == 1)
                except BadRow as error:
                    yield place, error
                else:
                    if values is not None:
                        yield Row(place, values)

    def total(self, num_read: int) -> int | None:
        """Estimate the number of rows by the bytes that were read so far."""
        return round(num_read * self._size / self._read) if self._read else None


def parse_object(text: str) -> dict[str, Any]:
    """Return a JSON object; raises BadRow for anything else, NaN and repeated keys included."""
    try:
        value = json.loads(
            text, parse_constant=_refused, parse_float=_finite, object_pairs_hook=_unique
        )
    except json.JSONDecodeError as error:
        what = error.msg[:1].lower() + error.msg[1:]
        raise BadRow("row_json", f"It is no JSON: {what} (column {error.pos + 1}).") from None
    except RecursionError:
        raise BadRow("row_json", "It is nested too deep.") from None
    except ValueError as error:
        raise BadRow("row_json", f"It is no JSON: {error}.") from None
    if not isinstance(value, dict):
        raise BadRow("row_json", f"It is {_named(value)}, expected an object in each line.")
    return value


def _lines(file: BufferedReader) -> Iterator[tuple[int, bytes | None]]:
    """Yield number and bytes of each line, None for one that is too long to be held."""
    number = 0
    while line := file.readline(MAX_LINE + 1):
        number += 1
        too_long = len(line) > MAX_LINE
        yield number, None if too_long else line
        while too_long and line and not line.endswith(b"\n"):
            line = file.readline(MAX_LINE)


def _parsed(line: bytes | None, *, first: bool) -> dict[str, Any] | None:
    if line is None:
        raise BadRow("row_too_long", f"It is longer than {MAX_LINE:,} bytes.")
    try:
        text = line.decode("utf-8-sig" if first else "utf-8")
    except UnicodeDecodeError:
        raise BadRow("row_encoding", "It is not UTF-8.") from None
    return parse_object(text) if (text := text.rstrip()) else None


def _named(value: Any) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _refused(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"the number {digits[:20]} is too large")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} comes twice")
    return found
