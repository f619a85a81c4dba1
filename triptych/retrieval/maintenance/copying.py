"""How a collection that is a copy of another takes over what has changed there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from triptych.errors import CollectionDamaged
from triptych.index.sqlite.meta import Meta
from triptych.index.sqlite.records import Entry
from triptych.index.sqlite.store import Store
from triptych.retrieval.writer import Writer


class Copying:
    """One per open collection, see `increments`."""

    def __init__(self, store: Store, writer: Writer) -> None:
        self._store, self._writer = store, writer

    @property
    def meta(self) -> Meta:
        """What the copy says about itself."""
        return self._store.meta

    @property
    def sequence(self) -> int:
        """How often the copy itself has changed."""
        return self._store.sequence

    def apply(self, entries: Sequence[Entry], gone: Sequence[int], count: int) -> None:
        """Take away the items at these places and add others, all of it or nothing.

        Raises CollectionDamaged where that cannot lead to the `count` items that there are then,
        CollectionBusy where another process writes to the copy.
        """
        rows_N = self._store.rows()
        if gone and not 0 <= min(gone) <= max(gone) < len(rows_N):
            raise _no_copy()
        rows = rows_N[np.array(gone, dtype=np.int64)].tolist()
        replaced = self._store.rows_of([entry.id for entry in entries]).values()
        if not set(replaced) <= set(rows) or len(rows_N) - len(rows) + len(entries) != count:
            raise _no_copy()
        self._writer.apply(entries, rows)


def _no_copy() -> CollectionDamaged:
    return CollectionDamaged(
        "The copy is not of the state that these changes go on from.", hint="Copy all of it again."
    )
