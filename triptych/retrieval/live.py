"""The index of an open collection, kept equal to its store."""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from triptych.errors import CollectionDamaged
from triptych.index.base import NOTHING, exact_scores
from triptych.index.manifest import Identity, Manifest
from triptych.index.rowfile import RowFile
from triptych.index.segments import Base, SegmentedIndex
from triptych.index.snapshot import Snapshots
from triptych.index.sqlite.meta import Meta
from triptych.index.sqlite.reader import Change
from triptych.index.sqlite.store import Store
from triptych.types import Matrix, Rows, Vector

logger = logging.getLogger(__name__)

T = TypeVar("T")

_MANY = 50_000  # rows that are not held in memory
_CHUNK = 4_096


class LiveIndex:
    """Exactly the rows of the store, as of `sequence`. Any thread may call.

    `gate` guards the rows, the sequence that they show and `meta`, the model they are of.
    """

    meta: Meta

    def __init__(
        self,
        store: Store,
        snapshots: Snapshots | None,
        *,
        before_turn: Callable[[Meta], object] = lambda meta: None,
    ) -> None:
        self.gate = threading.RLock()
        self.manifest: Manifest | None = None  # of the saved index in use
        self.damaged: dict[int, str] = {}
        self.sequence = -1
        self._store = store
        self._snapshots = snapshots
        self._before_turn = before_turn
        self._last_row = 0
        self.reload()

    def __len__(self) -> int:
        return len(self._index)

    @property
    def kind(self) -> str:
        return self._index.kind

    @property
    def exact(self) -> bool:
        """Whether every row is looked at: then a deeper search changes nothing further up."""
        return self._index.exact

    @property
    def pending(self) -> int:
        """How many rows the saved index lacks, or has and should not have."""
        return self._index.pending

    def identity(self) -> Identity:
        """Return what a saved index must belong to."""
        return identity_of(self._store)

    def info(self) -> dict[str, Any]:
        """Return the kind of index, how it looks and how well it was measured to find."""
        saved = self.manifest
        knobs = {"effort": saved.effort, "refine": saved.refine} if saved and not self.exact else {}
        return {
            "index": self.kind,
            **knobs,
            "recall@10": 1.0 if self.exact or saved is None else round(saved.recall, 4),
            "pending": self.pending,
        }

    def rows(self) -> Rows:
        """Return the rows held, ascending."""
        with self.gate:
            return self._index.rows()

    def reload(self) -> None:
        """Begin anew: with the saved index where it can be used, then what came after it."""
        opened = self._snapshots.open(self.identity) if self._snapshots else None
        with self._store.reading(), self.gate:
            self._turn_to(self._store.read_meta())
            fits = opened is not None and opened[1].fingerprint == self.meta.fingerprint
            if opened is None or not fits or not self._resumed(*opened):
                self._read_all()

    def adopt(self, base: Base, manifest: Manifest) -> None:
        """Serve from a saved index that was just published."""
        with self._store.reading(), self.gate:
            if not self._resumed(base, manifest):
                self._read_all()

    def refresh(self) -> int:
        """Follow the store, whoever wrote, and return its sequence; inside of one reading of it.

        A row never changes, so equal rows mean equal vectors. A crash or an interrupt between
        store and index is mended here too. A reading that is older than what is shown changes
        nothing. Raises ModelMismatch where the model was switched to one that is not to be had.
        """
        with self._store.reading():
            sequence = self._store.sequence
            with self.gate:
                if sequence > self.sequence and not self._caught_up():
                    self.reload()
            return sequence

    def follow(self, change: Change) -> None:
        """Take over a transaction of our own, unless a search was faster."""
        with self.gate:
            if change.sequence == self.sequence + 1:
                self._apply(change)

    def nearest(
        self, vector_M: Vector, wanted: int, *, allowed: Rows | None = None
    ) -> tuple[Rows, Vector]:
        """Return rows and cosines, best first: `wanted` and all that share the last place."""
        ask = wanted + 1
        while True:
            rows_K, scores_K = self._search(vector_M, ask, allowed)
            if len(rows_K) < ask or scores_K[-1] != scores_K[wanted - 1]:
                return rows_K, scores_K
            ask *= 4

    def scores(self, rows_N: Rows, vector_M: Vector) -> Vector:
        """Return the cosines of rows that are held."""
        return exact_scores(self.vectors(rows_N), vector_M)

    def vectors(self, rows_N: Rows) -> Matrix:
        """Return the unit rows; raises NotFound for a row that is not held."""
        with self.gate:
            return self._guarded(lambda: self._index.vectors_of(rows_N))

    def set_aside(self, damaged: dict[int, str]) -> None:
        """Never find these again, and say so."""
        if not damaged:
            return
        names = ", ".join(sorted(map(repr, damaged.values()))[:20])
        logger.warning("%s: damaged on disk, never found: %s", self._store.path, names)
        with self.gate:
            self._index.remove(np.array(list(damaged), dtype=np.int64))
            self.damaged |= damaged

    def _turn_to(self, meta: Meta) -> None:
        self._before_turn(meta)  # may refuse a model
        self.meta = meta

    def _resumed(self, base: Base, manifest: Manifest) -> bool:
        self._index = SegmentedIndex(self.meta.dim, base)
        self.sequence, self._last_row = manifest.sequence, manifest.last_row
        self.manifest, self.damaged = manifest, {}
        return self._caught_up()

    def _caught_up(self) -> bool:
        """Replay the store; return whether the index now shows what the store holds."""
        change = self._store.changes(self.sequence, self._last_row)
        if change is None:
            return False
        self._apply(change)
        return len(self) + len(self.damaged) == len(self._store)

    def _read_all(self) -> None:
        """Take everything from the store: little into the memory, much by way of the disk."""
        with self._store.reading():
            self._turn_to(self._store.read_meta())
            self._index, self.manifest, self.damaged = SegmentedIndex(self.meta.dim), None, {}
            self.sequence, self._last_row = self._store.sequence, 0
            if self._snapshots is not None and len(self._store) > _MANY:
                self._read_by_disk(self._snapshots.folder)
            change = self._store.changes(self.sequence, self._last_row)
        assert change is not None, "the present can always be replayed"
        self._apply(change)

    def _read_by_disk(self, folder: Path) -> None:
        rows_N = self._store.rows()
        damaged: dict[int, str] = {}

        def chunks() -> Iterator[tuple[Rows, Matrix]]:
            for start in range(0, len(rows_N), _CHUNK):
                part = self._store.load(rows_N[start : start + _CHUNK])
                damaged.update(part.damaged)
                yield part.rows_N, part.vectors_NM

        scratch = folder / f"{secrets.token_hex(8)}.tmp"  # where a crash leaves it, it is swept
        try:
            folder.mkdir(exist_ok=True)
            RowFile.write(scratch, chunks(), dim=self.meta.dim, precision=self.meta.precision)
            base = Base("flat", RowFile.open(scratch))
        except (OSError, CollectionDamaged):  # a read-only folder, a full disk: into the memory
            return
        finally:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)  # it lives as long as it is mapped
        self._index = SegmentedIndex(self.meta.dim, base)
        self._last_row = int(rows_N[-1])
        self.set_aside(damaged)

    def _apply(self, change: Change) -> None:
        self._index.remove(change.removed_N)
        self._index.put(change.added_N, change.vectors_NM)  # as the store checked or verified it
        self.sequence, self._last_row = change.sequence, change.last_row
        if self.damaged:
            gone = set(change.removed_N.tolist())
            self.damaged = {row: id for row, id in self.damaged.items() if row not in gone}
        self.set_aside(dict(change.damaged))

    def _search(self, vector_M: Vector, k: int, allowed: Rows | None) -> tuple[Rows, Vector]:
        with self.gate:
            ids_1K, scores_1K = self._guarded(
                lambda: self._index.search(vector_M[None], k, allowed=allowed)
            )
        found_K = ids_1K[0] != NOTHING
        return ids_1K[0][found_K], scores_1K[0][found_K]

    def _guarded(self, look: Callable[[], T]) -> T:
        """Do without the saved index where its content turns out to be damaged."""
        try:
            return look()
        except CollectionDamaged as error:
            if self.manifest is None:
                raise
            logger.warning("%s: index not used, it is rebuilt: %s", self._store.path, error.message)
            self._read_all()
            return look()


def identity_of(store: Store) -> Identity:
    """Return what a saved index of this store must belong to."""
    meta = store.read_meta()
    return Identity(
        collection=meta.collection,
        fingerprint=meta.fingerprint,
        dim=meta.dim,
        precision=meta.precision,
        history=store.history(),
    )
