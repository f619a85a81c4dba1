"""Token states of items in eight bits, for late interaction: kept only where a store wants them.

A state is a unit row, so its direction is all there is to keep: its numbers in steps of the
greatest of them, a scale of its own for each row (law 2). Read back, the row is made a unit row
again, which undoes the scale without storing it: T tokens of width W take T x W bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import apsw
import numpy as np

from triptych.errors import CollectionDamaged, InvalidInput
from triptych.index.sqlite.records import Tokens, bound_checksum, shown
from triptych.types import Matrix

SCHEMA = """
CREATE TABLE tokens (row INTEGER PRIMARY KEY, states BLOB NOT NULL, checksum BLOB NOT NULL);
"""


class LoadedTokens(NamedTuple):
    """States by row, and the ids by row of those that cannot be used; the rest has none."""

    states: dict[int, Matrix]
    damaged: dict[int, str]


def in_bytes(states_TW: Matrix) -> Tokens:
    """Return unit rows in eight bits; each number is off by 1/254 of the row's greatest at most."""
    steps_T1 = np.abs(states_TW).max(axis=1, keepdims=True) / 127
    tokens_TW: Tokens = np.rint(states_TW / steps_T1).astype(np.int8)
    return tokens_TW


def from_bytes(tokens_TW: Tokens) -> Matrix:
    """Return float32 unit rows."""
    states_TW: Matrix = tokens_TW.astype(np.float32)
    states_TW /= np.sqrt(np.einsum("tw,tw->t", states_TW, states_TW))[:, None]
    return states_TW


def checked_tokens(id: str, tokens: Tokens, width: int) -> Tokens:
    """Return the same; raises InvalidInput where a store of this width cannot hold them."""
    is_whole = tokens.ndim == 2 and tokens.dtype == np.int8 and len(tokens) > 0
    if not width or not is_whole or tokens.shape[1] != width or not tokens.any(axis=1).all():
        raise InvalidInput(
            f"The token states of {id!r} are {tokens.dtype} of shape {tokens.shape}, expected "
            + (f"rows of int8 of shape (1 or more, {width})." if width else "none.")
        )
    return tokens


def insert(connection: apsw.Connection, columns: Sequence[tuple[int, bytes, Tokens]]) -> None:
    """Write tokens by row, beside the checksums of their items."""
    raw = ((row, item, tokens_TW.tobytes()) for row, item, tokens_TW in columns)
    connection.executemany(
        "INSERT INTO tokens VALUES (?, ?, ?)",
        [(row, states, bound_checksum(item, states)) for row, item, states in raw],
    )


def load(connection: apsw.Connection, rows: Sequence[int], width: int) -> LoadedTokens:
    """Return the tokens of those rows that have some, none of them unverified."""
    query = f"{_SELECTED} WHERE tokens.row = ?"
    states: dict[int, Matrix] = {}
    damaged: dict[int, str] = {}
    for row, id, item, raw, expected in connection.executemany(query, [(row,) for row in rows]):
        tokens_TW = verified(item, raw, expected, width)
        if tokens_TW is None:
            damaged[row] = shown(id)
        else:
            states[row] = from_bytes(tokens_TW)
    return LoadedTokens(states, damaged)


def stored(connection: apsw.Connection, rows: Sequence[int], width: int) -> dict[int, Tokens]:
    """Return the bytes of those rows that have some, none where the width is 0.

    Raises CollectionDamaged naming the first item whose states cannot be used.
    """
    found: dict[int, Tokens] = {}
    query = f"{_SELECTED} WHERE tokens.row = ?"
    asked = [(row,) for row in rows] if width else []
    for row, id, item, raw, expected in connection.executemany(query, asked):
        tokens_TW = verified(item, raw, expected, width)
        if tokens_TW is None:
            raise CollectionDamaged(
                f"The token states of {shown(id)!r} are damaged on disk.",
                hint="Delete the item, or add it again.",
            )
        found[row] = tokens_TW
    return found


def verified(item: Any, raw: Any, expected: Any, width: int) -> Tokens | None:
    """Return tokens_TW whose checksum holds beside that of their item, else None."""
    is_whole = isinstance(raw, bytes) and width and raw and len(raw) % width == 0
    if not is_whole or not isinstance(item, bytes) or bound_checksum(item, raw) != expected:
        return None
    return np.frombuffer(raw, dtype=np.int8).reshape(-1, width)


def size(connection: apsw.Connection) -> tuple[int, int]:
    """Return how many items have token states, and their bytes."""
    query = "SELECT count(*), coalesce(sum(length(states)), 0) FROM tokens"
    items, num_bytes = connection.execute(query).get
    return items, num_bytes


def damaged(connection: apsw.Connection, width: int) -> Iterator[str | None]:
    """Yield the id of each item whose token states cannot be used; None where there is no item."""
    for _, id, item, raw, expected in connection.execute(_SELECTED):
        if item is None:
            yield None
        elif verified(item, raw, expected, width) is None:
            yield shown(id)


_SELECTED = (
    "SELECT tokens.row, items.id, items.checksum, tokens.states, tokens.checksum "
    "FROM tokens LEFT JOIN items USING (row)"
)
