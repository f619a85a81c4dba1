"""The vectors of one space: how they are stored, and tied to their items."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import apsw
import numpy as np
from numpy.typing import NDArray

from triptych.errors import InvalidInput
from triptych.index.base import halved, widened
from triptych.index.sqlite.meta import Space
from triptych.index.sqlite.records import bound_checksum, shown
from triptych.index.sqlite.tokens import table_of
from triptych.types import Matrix, Precision, Rows

_NUMBERS: dict[Precision, str] = {"fp32": "<f4", "fp16": "<f2"}
_LOADED_AT_ONCE = 4_096


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Loaded:
    """Vectors whose checksums hold, and the rows and ids of those whose do not."""

    rows_N: Rows
    vectors_NM: Matrix
    damaged: dict[int, str] = field(default_factory=dict)


def rounded(space: Space, vectors_NM: Matrix) -> NDArray[Any]:
    """Return the numbers as they are stored; raises InvalidInput on a wrong shape."""
    if vectors_NM.ndim != 2 or vectors_NM.shape[1] != space.dim:
        raise InvalidInput(
            f"Got vectors of shape {vectors_NM.shape}, expected (n, {space.dim}) for {space.model}."
        )
    numbers_NM = halved(vectors_NM) if space.precision == "fp16" else vectors_NM
    return np.ascontiguousarray(numbers_NM, dtype=_NUMBERS[space.precision])


def read_back(stored_NM: NDArray[Any]) -> Matrix:
    """Return stored numbers as float32 unit rows."""
    if stored_NM.dtype.itemsize == 2:
        return widened(stored_NM)
    return np.ascontiguousarray(stored_NM, dtype=np.float32)


def insert_vectors(
    connection: apsw.Connection,
    space: Space,
    rows: Sequence[int],
    checksums: Sequence[bytes],
    stored_NM: NDArray[Any],
) -> None:
    """Write rounded vectors beside the checksums of their items."""
    columns = (
        (row, vector_M.data, bound_checksum(item, vector_M))
        for row, item, vector_M in zip(rows, checksums, stored_NM, strict=True)
    )
    connection.executemany(
        f"INSERT OR REPLACE INTO vectors_{space.space} VALUES (?, ?, ?)",  # noqa: S608
        columns,
    )


def load_rows(connection: apsw.Connection, space: Space, rows: Sequence[int]) -> Loaded:
    """Return the verified vectors of ascending `rows`; rows that are gone are left out."""
    size = _LOADED_AT_ONCE
    parts = [_load(connection, space, rows[at : at + size]) for at in range(0, len(rows), size)]
    return _joined(space, parts)


def load_after(connection: apsw.Connection, space: Space, row: int, limit: int) -> Loaded:
    """Return the verified vectors of the first `limit` items after `row`, ascending."""
    query = f"{_selected(space)} WHERE items.row > ? ORDER BY items.row LIMIT ?"
    return _verified(space, connection.execute(query, (row, limit)))


def load_all_after(connection: apsw.Connection, space: Space, row: int) -> Loaded:
    """Return the verified vectors of all items after `row`, ascending."""
    parts: list[Loaded] = []
    while True:
        part = load_after(connection, space, row, _LOADED_AT_ONCE)
        if not len(part.rows_N) and not part.damaged:
            return _joined(space, parts)
        parts.append(part)
        row = max([*part.rows_N[-1:].tolist(), *part.damaged])


def missing_rows(connection: apsw.Connection, space: Space, after: int, limit: int) -> Rows:
    """Return the first `limit` rows after `after` that lack a vector in this space, or states."""
    tables = [f"vectors_{space.space}"]
    if space.token_width:
        tables.append(table_of(space.space))
    lacks = " OR ".join(f"row NOT IN (SELECT row FROM {table})" for table in tables)  # noqa: S608
    query = f"SELECT row FROM items WHERE row > ? AND ({lacks}) ORDER BY row LIMIT ?"  # noqa: S608
    found = connection.execute(query, (after, limit)).fetchall()
    return np.array([row for (row,) in found], dtype=np.int64)


def _load(connection: apsw.Connection, space: Space, rows: Sequence[int]) -> Loaded:
    if rows[-1] - rows[0] < 2 * len(rows):  # most of a range is read faster as one
        wanted = set(rows)
        query = f"{_selected(space)} WHERE items.row BETWEEN ? AND ? ORDER BY items.row"
        found = connection.execute(query, (rows[0], rows[-1]))
        return _verified(space, (columns for columns in found if columns[0] in wanted))
    query = f"{_selected(space)} WHERE items.row = ?"
    return _verified(space, connection.executemany(query, [(row,) for row in rows]))


def _selected(space: Space) -> str:
    return (
        "SELECT items.row, items.id, items.checksum, vectors.vector, vectors.checksum "  # noqa: S608
        f"FROM items LEFT JOIN vectors_{space.space} AS vectors USING (row)"
    )


def _verified(space: Space, found: Iterable[tuple[Any, ...]]) -> Loaded:
    rows: list[int] = []
    vectors: list[bytes] = []
    damaged: dict[int, str] = {}
    numbers = np.dtype(_NUMBERS[space.precision])
    width = numbers.itemsize * space.dim
    for row, id, item, vector, expected in found:
        whole = isinstance(vector, bytes) and len(vector) == width and isinstance(item, bytes)
        if whole and bound_checksum(item, vector) == expected:
            rows.append(row)
            vectors.append(vector)
        else:
            damaged[row] = shown(id)
    stored_NM = np.frombuffer(b"".join(vectors), dtype=numbers).reshape(-1, space.dim)
    rows_N = np.array(rows, dtype=np.int64)
    return Loaded(rows_N=rows_N, vectors_NM=read_back(stored_NM), damaged=damaged)


def _joined(space: Space, parts: Sequence[Loaded]) -> Loaded:
    if len(parts) == 1:
        return parts[0]
    damaged = {row: id for part in parts for row, id in part.damaged.items()}
    if not parts:
        empty_NM = np.empty((0, space.dim), dtype=np.float32)
        return Loaded(rows_N=np.empty(0, dtype=np.int64), vectors_NM=empty_NM)
    return Loaded(
        rows_N=np.concatenate([part.rows_N for part in parts]),
        vectors_NM=np.concatenate([part.vectors_NM for part in parts]),
        damaged=damaged,
    )
