"""What has changed in a collection since a state of it, for copies that have that state.

A copy has rows of its own, in the order of the rows that they were copied from. So what is gone is
told by its place among them, and what is new is an archive of the rows after the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from triptych.errors import InvalidInput
from triptych.index.sqlite.meta import read_history, read_state
from triptych.index.sqlite.store import Store
from triptych.index.sqlite.view import View
from triptych.retrieval.collection import Collection
from triptych.retrieval.maintenance.portable import archiving, entries_in, write_archive

_MOST_ROWS = 20_000  # new or gone; beyond, and beyond the bytes, all of it is sent
_MOST_BYTES = 128 << 20  # which a copy holds in memory, to change in one transaction


class Mark(NamedTuple):
    """A state of a store. `str` and `of` are each other's inverse."""

    collection: str
    epoch: str  # the process that wrote last
    sequence: int
    last_row: int
    space: int

    def __str__(self) -> str:
        return ":".join(map(str, self))

    @property
    def generation(self) -> str:
        """The name of the state, as `Store.generation` says it."""
        return f"{self.collection}:{self.epoch}:{self.sequence}"

    @classmethod
    def of(cls, text: str) -> Self:
        """Return the mark that was written so; raises InvalidInput."""
        try:
            collection, epoch, *numbers = text.split(":")
            sequence, last_row, space = map(int, numbers)
        except ValueError:
            raise InvalidInput("This names no state of a collection.") from None
        return cls(collection, epoch, sequence, last_row, space)


class Increment(NamedTuple):
    """What is in an archive beside items."""

    mark: Mark  # the state that a copy has with it
    num_items: int  # of that state
    gone: list[int] | None  # places, from 0 on; None: the archive holds everything


def export_increment(store: Store, path: Path, since: Mark | None = None) -> Increment:
    """Write what is new since a state to `path`, or everything where that cannot be told.

    Raises as `export_collection` does.
    """
    with store.view(keep_pictures=True) as view:
        mark = Mark(
            store.meta.collection, view.epoch, view.sequence, view.last_row, view.space.space
        )
        gone = None if since is None else _gone(view, mark, since)
        if since is not None and gone is not None:
            with archiving(path) as tar:
                write_archive(store, view, tar, after=since.last_row)
            if path.stat().st_size <= _MOST_BYTES:
                return Increment(mark, view.count, gone)
            path.unlink()
        with archiving(path) as tar:
            write_archive(store, view, tar)
        return Increment(mark, view.count, None)


def apply_increment(collection: Collection, path: Path, gone: Sequence[int], count: int) -> None:
    """Take away the items at these places and add those of the archive, all of it or nothing.

    Raises CollectionDamaged where the collection is no copy of the state that the archive goes on
    from, ModelMismatch, and as `import_collection` does.
    """
    collection.copying.apply(entries_in(path, of=collection.copying.meta), gone, count)


def _gone(view: View, mark: Mark, since: Mark) -> list[int] | None:
    """Return the places of what is gone, None where it is not known or too much has changed."""
    first, end = read_history(view.connection).get(since.epoch, (0, -1))
    first = max(first, read_state(view.connection).floor)
    if (since.collection, since.space) != (mark.collection, mark.space):
        return None
    if not first <= since.sequence <= end:  # forgotten, or of another history
        return None
    new = "SELECT count(*) FROM items WHERE row > ?"
    number = int(view.connection.execute(new, (since.last_row,)).get)
    query = "SELECT DISTINCT row FROM removed WHERE sequence > ? AND row <= ? ORDER BY row"
    removed_R = _rows(view, query, (since.sequence, since.last_row))
    if max(number, len(removed_R)) > _MOST_ROWS:
        return None
    kept_N = _rows(view, "SELECT row FROM items WHERE row <= ? ORDER BY row", (since.last_row,))
    places_R = np.searchsorted(kept_N, removed_R) + np.arange(len(removed_R))
    return [int(place) for place in places_R]


def _rows(view: View, query: str, given: tuple[int, ...]) -> np.ndarray:
    return np.fromiter((row for (row,) in view.connection.execute(query, given)), dtype=np.int64)
