"""The index of an open collection, kept equal to its store."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from triptych.index import INDEXES
from triptych.index.base import VectorIndex
from triptych.index.records import Record
from triptych.index.store import Change, Store
from triptych.retrieval.snapshot import Snapshot
from triptych.types import Matrix, Vector

logger = logging.getLogger(__name__)


class LiveIndex:
    """Exactly the rows of the store, as of `sequence`; the caller takes care of threads."""

    def __init__(self, store: Store, *, kind: str, dim: int, folder: Path | None) -> None:
        self.kind = kind
        self.sequence = -1  # whatever was saved, it is compared with the store once
        self.damaged: dict[int, str] = {}
        self._store = store
        self._folder = folder
        self._snapshot = Snapshot(folder / "index") if folder else None
        loaded = self._snapshot.load(store, kind=kind) if self._snapshot else None
        self._saved = -1 if loaded is None else loaded[1]
        self._index: VectorIndex = INDEXES.resolve(kind)(dim) if loaded is None else loaded[0]

    def __len__(self) -> int:
        return len(self._index)

    @property
    def worth_saving(self) -> bool:
        """Whether the saved index shows another state."""
        return self._snapshot is not None and self._saved != self.sequence and len(self) > 0

    def apply(self, change: Change, vectors_NM: Matrix) -> None:
        """Follow a transaction of our own."""
        self._index.remove(change.removed_N)
        self._index.add(change.added_N, vectors_NM)
        self.sequence = self._store.sequence

    def refresh(self) -> None:
        """Follow the store, whatever happened to either; inside of one reading of the store.

        A row never changes, so equal rows mean equal vectors. A crash or an interrupt anywhere
        between store and index is mended here too.
        """
        rows_N, held_N = self._store.rows(), self._index.rows()
        self._index.remove(np.setdiff1d(held_N, rows_N, assume_unique=True))
        missing_N = np.setdiff1d(rows_N, held_N, assume_unique=True)
        loaded = self._store.load(missing_N)
        self._index.add(loaded.rows_N, loaded.vectors_NM)
        if len(missing_N):
            logger.info("%s: %d vectors taken from the store", self._folder, len(missing_N))
        self.damaged = {}
        self._set_aside(loaded.damaged)
        self.sequence = self._store.sequence

    def nearest(self, vector_M: Vector, wanted: int) -> list[tuple[Record, float]]:
        """Return records and cosines, best first, equal ones by id; never a damaged record."""
        ask = wanted + 1  # one more shows whether the last place is shared: then ids decide
        while wanted > 0 and len(self) > 0:
            ids_1K, scores_1K = self._index.search(vector_M[None], ask)
            wanted = min(wanted, len(self))
            if ask < len(self) and scores_1K[0, -1] == scores_1K[0, wanted - 1]:
                ask *= 4
                continue
            scores = dict(zip(ids_1K[0].tolist(), scores_1K[0].tolist(), strict=True))
            records, damaged = self._store.records(list(scores))
            if not damaged:
                found = [(record, scores[record.row]) for record in records]
                return sorted(found, key=lambda pair: (-pair[1], pair[0].id))[:wanted]
            self._set_aside(damaged)
        return []

    def save(self) -> None:
        """Write the index beside the store; the caller holds the write lock."""
        if self._snapshot is not None:
            self._snapshot.save(self._index, self._store)
            self._saved = self.sequence

    def _set_aside(self, damaged: dict[int, str]) -> None:
        if damaged:
            names = ", ".join(sorted(map(repr, damaged.values()))[:20])
            logger.warning("%s: damaged on disk, never found: %s", self._folder, names)
            self._index.remove(np.array(list(damaged), dtype=np.int64))
            self.damaged |= damaged
