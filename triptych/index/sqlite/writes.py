"""What one item is in each table; always inside of a transaction."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import apsw
import numpy as np

from triptych.errors import InvalidInput, ModelMismatch
from triptych.index.sqlite import facts, pictures, tokens, words
from triptych.index.sqlite.meta import Space, read_spaces, read_state, write_state
from triptych.index.sqlite.records import (
    Entry,
    Packed,
    Picture,
    as_stored,
    bound_checksum,
    checksum,
    pack,
    payload_of,
    unpack,
)
from triptych.index.sqlite.spaces import insert_vectors, read_back, rounded
from triptych.types import Matrix


def insert_items(
    connection: apsw.Connection, space: Space, first: int, entries: Sequence[Entry]
) -> Matrix:
    """Write new items to rows from `first` on; return their vectors as they are stored."""
    items, checksums, said, thumbnails, states = [], [], [], [], []
    kept: list[tuple[int, bytes, Picture]] = []
    rows = range(first, first + len(entries))
    for row, entry in zip(rows, entries, strict=True):
        payload = payload_of(entry)
        item = checksum(row, payload)
        file = entry.file
        state = (pack(file.root), file.size, file.mtime_ns) if file else (None, None, None)
        items.append((row, item, *payload, *state))
        checksums.append(item)
        said.append(as_stored(entry.metadata, str(payload[4])))
        if entry.thumbnail is not None:
            jpeg = entry.thumbnail
            thumbnails.append((row, jpeg, bound_checksum(item, jpeg)))
        if entry.picture is not None:
            kept.append((row, item, entry.picture))
        if entry.tokens is not None:
            checked_TW = tokens.checked_tokens(entry.id, entry.tokens, space.token_width)
            states.append((row, item, checked_TW))
    stored_NM = rounded(space, _stacked(space, entries))
    connection.executemany("INSERT INTO items VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", items)
    insert_vectors(connection, space, rows, checksums, stored_NM)
    connection.executemany("INSERT INTO thumbnails VALUES (?, ?, ?)", thumbnails)
    if states:
        tokens.insert(connection, space.space, states)
    pictures.insert(connection, kept)
    facts.insert(connection, zip(rows, (entry.modality for entry in entries), said, strict=True))
    words.insert(connection, zip(rows, (entry.text for entry in entries), said, strict=True))
    return read_back(stored_NM)


def drop_items(connection: apsw.Connection, rows: Sequence[int]) -> None:
    """Remove these rows from every table and every space."""
    if not rows:
        return
    ids = [(row,) for row in rows]
    old, unreadable = [], []
    query = "SELECT row, modality, metadata FROM items WHERE row = ?"
    for row, modality, metadata in connection.executemany(query, ids):
        try:
            old.append((row, modality, json.loads(metadata)))
        except (TypeError, ValueError, RecursionError):
            unreadable.append(row)  # what is damaged must be removable too
    facts.drop(connection, old)
    facts.drop_unread(connection, unreadable)
    words.drop(connection, rows)
    spaces = read_spaces(connection)
    tables = [f"vectors_{space.space}" for space in spaces]
    tables += [tokens.table_of(space.space) for space in spaces if space.token_width]
    if pictures.exists(connection):
        tables.append(pictures.TABLE)
    for table in ("items", "thumbnails", *tables):
        connection.executemany(f"DELETE FROM {table} WHERE row = ?", ids)  # noqa: S608


def work_out_again(connection: apsw.Connection) -> None:
    """Make facts, words and counts from the items alone, of which each must be readable."""
    facts.rebuild(connection, ((row, kind, said) for row, kind, _, said in _given(connection)))
    words.rebuild(connection, ((row, text, said) for row, _, text, said in _given(connection)))
    state = read_state(connection)
    count, last = connection.execute("SELECT count(*), coalesce(max(row), 0) FROM items").get
    now = replace(state, count=count, last_row=max(last, state.last_row))
    write_state(connection, state, now)


def rows_by_id(connection: apsw.Connection, ids: Iterable[str]) -> dict[str, int]:
    """Return the rows of those ids that are there."""
    packed: list[tuple[Packed]] = [(pack(id),) for id in ids]
    found = connection.executemany("SELECT id, row FROM items WHERE id = ?", packed)
    return {str(unpack(id)): row for id, row in found}


def _given(connection: apsw.Connection) -> Iterator[tuple[int, Any, str | None, dict[str, Any]]]:
    for row, modality, text, metadata in connection.execute(
        "SELECT row, modality, text, metadata FROM items ORDER BY row"
    ):
        yield row, modality, unpack(text), json.loads(metadata)


def _stacked(space: Space, entries: Sequence[Entry]) -> Matrix:
    if not entries:
        return np.empty((0, space.dim), dtype=np.float32)
    for entry in entries:
        if entry.vector.shape != (space.dim,):
            raise InvalidInput(
                f"The vector of {entry.id!r} has the shape {entry.vector.shape}, "
                f"expected ({space.dim},)."
            )
    # a third of what np.stack takes
    return np.concatenate([entry.vector for entry in entries]).reshape(-1, space.dim)


def check_belongs(space: Space, fingerprint: str, entries: Sequence[Entry]) -> None:
    """Raise ModelMismatch where vectors or token states are not those of the space."""
    # inside of the transaction: the model may have been switched since the vectors were made
    is_whole = all((entry.tokens is None) is (not space.token_width) for entry in entries)
    if space.fingerprint == fingerprint and not is_whole:
        raise ModelMismatch(
            "Token states are kept by now, or are not any more.", hint="Open the collection again."
        )
    if space.fingerprint != fingerprint:
        raise ModelMismatch(
            f"Got vectors of the model {fingerprint[:12]}, the collection holds those of "
            f"{space.model} ({space.fingerprint[:12]}).",
            hint="Open the collection again.",
        )
