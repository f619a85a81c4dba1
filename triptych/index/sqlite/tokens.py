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

WIDTH = (
    "coalesce((SELECT value FROM meta WHERE key = "
    "iif(space = 1, 'token_width', 'token_width_' || space)), 0)"
)
"""The width of the states of a space, as a column of `spaces`; 0 where none are kept."""


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


def checked_states(
    rows: Sequence[int], states: Sequence[Tokens | None], width: int
) -> dict[int, Tokens]:
    """Return states by row, of all rows or, where the width is 0, of none; raises InvalidInput."""
    pairs = [(row, one) for row, one in zip(rows, states, strict=False) if one is not None]
    if len(pairs) != (len(rows) if width else 0):
        raise InvalidInput(
            f"Got the token states of {len(pairs)} items, expected {len(rows) if width else 0}."
        )
    return {row: checked_tokens(f"row {row}", one, width) for row, one in pairs}


def table_of(space: int) -> str:
    """Return the table of a space's states; the first had its name before there were others."""
    return "tokens" if space == 1 else f"tokens_{int(space)}"


def create(connection: apsw.Connection, space: int, width: int) -> None:
    """Make room for the states of a space."""
    connection.execute(
        f"CREATE TABLE {table_of(space)} "
        "(row INTEGER PRIMARY KEY, states BLOB NOT NULL, checksum BLOB NOT NULL)"
    )
    connection.execute("INSERT INTO meta VALUES (?, ?)", (_key(space), width))


def drop(connection: apsw.Connection, space: int) -> None:
    """Delete the states of a space, where it has some."""
    connection.execute(f"DROP TABLE IF EXISTS {table_of(space)}")
    connection.execute("DELETE FROM meta WHERE key = ?", (_key(space),))


def insert(
    connection: apsw.Connection, space: int, columns: Sequence[tuple[int, bytes, Tokens]]
) -> None:
    """Write tokens by row, beside the checksums of their items."""
    raw = ((row, item, tokens_TW.tobytes()) for row, item, tokens_TW in columns)
    connection.executemany(
        f"INSERT OR REPLACE INTO {table_of(space)} VALUES (?, ?, ?)",  # noqa: S608
        [(row, states, bound_checksum(item, states)) for row, item, states in raw],
    )


def load(connection: apsw.Connection, space: int, rows: Sequence[int], width: int) -> LoadedTokens:
    """Return the tokens of those rows that have some, none of them unverified or of width 0."""
    query = f"{_selected(space)} WHERE tokens.row = ?"
    states: dict[int, Matrix] = {}
    damaged: dict[int, str] = {}
    asked = [(row,) for row in rows] if width else []
    for row, id, item, raw, expected in connection.executemany(query, asked) if asked else ():
        tokens_TW = verified(item, raw, expected, width)
        if tokens_TW is None:
            damaged[row] = shown(id)
        else:
            states[row] = from_bytes(tokens_TW)
    return LoadedTokens(states, damaged)


def stored(
    connection: apsw.Connection, space: int, rows: Sequence[int], width: int
) -> dict[int, Tokens]:
    """Return the bytes of those rows that have some, none where the width is 0.

    Raises CollectionDamaged naming the first item whose states cannot be used.
    """
    found: dict[int, Tokens] = {}
    query = f"{_selected(space)} WHERE tokens.row = ?"
    asked = [(row,) for row in rows] if width else []
    for row, id, item, raw, expected in connection.executemany(query, asked) if asked else ():
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


def size(connection: apsw.Connection, space: int) -> tuple[int, int]:
    """Return how many items have token states in a space that keeps them, and their bytes."""
    query = f"SELECT count(*), coalesce(sum(length(states)), 0) FROM {table_of(space)}"  # noqa: S608
    items, num_bytes = connection.execute(query).get
    return items, num_bytes


def damaged(connection: apsw.Connection, space: int, width: int) -> Iterator[str | None]:
    """Yield the id of each item whose token states cannot be used; None where there is no item."""
    for _, id, item, raw, expected in connection.execute(_selected(space)):
        if item is None:
            yield None
        elif verified(item, raw, expected, width) is None:
            yield shown(id)


def _key(space: int) -> str:
    return "token_width" if space == 1 else f"token_width_{int(space)}"


def _selected(space: int) -> str:
    return (
        "SELECT tokens.row, items.id, items.checksum, tokens.states, tokens.checksum "  # noqa: S608
        f"FROM {table_of(space)} AS tokens LEFT JOIN items USING (row)"
    )
