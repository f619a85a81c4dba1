"""What is taken over as it is stored, with no model: from another collection, or another file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from triptych.errors import CollectionDamaged, ModelMismatch
from triptych.index.sqlite.meta import Meta
from triptych.index.sqlite.records import Entry, FileState
from triptych.index.sqlite.store import Store
from triptych.retrieval.writer import Writer


class Twin(NamedTuple):
    """A file, the hash of its bytes, and the id of an item that was made of the same bytes."""

    file: FileState
    content: str
    of: str


class Copying:
    """One per open collection, see `increments` and `ingest.twins`."""

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

    def again(self, twins: Mapping[str, Twin]) -> set[str]:
        """Store files under their paths, in one transaction, each with all that its twin has.

        Returns which are stored: not those of which the twin is gone or another by now, none at
        all where one is damaged or another model has come meanwhile.
        """
        try:
            with self._store.view() as view:
                found = {one.id: one for one in view.entries_of([*{t.of for t in twins.values()}])}
                fingerprint = view.space.fingerprint
            entries = [
                replace(found[twin.of], id=path, uri=path, file=twin.file)
                for path, twin in twins.items()
                if twin.of in found and found[twin.of].content == twin.content
            ]
            if entries:
                self._writer.write(entries, replace=True, fingerprint=fingerprint)
        except (CollectionDamaged, ModelMismatch):
            return set()
        return {entry.id for entry in entries}


def _no_copy() -> CollectionDamaged:
    return CollectionDamaged(
        "The copy is not of the state that these changes go on from.", hint="Copy all of it again."
    )
