"""Make a damaged collection whole again, and say what is lost.

What follows from the items is worked out again; a damaged store is read around its damage into a
new one beside it, which then takes its place.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from triptych.errors import CollectionDamaged, NotAvailable
from triptych.index import ANNS
from triptych.index.disk import sync_folder
from triptych.index.manifest import Identity
from triptych.index.snapshot import Snapshots
from triptych.index.sqlite.generation import NAME as GENERATION
from triptych.index.sqlite.lock import WriterLock
from triptych.index.sqlite.meta import Space
from triptych.index.sqlite.reader import as_rows
from triptych.index.sqlite.salvage import Lost, Salvage, salvaging
from triptych.index.sqlite.store import Store
from triptych.retrieval.builder import build_index
from triptych.retrieval.folder import INDEX, REPAIRING, STORE, new_store, open_store, put_store
from triptych.retrieval.maintenance.verify import BEYOND_REPAIR, Verification
from triptych.types import Vector

_FOLLOWING = {"counts", "facts", "words"}


@dataclass(slots=True, kw_only=True)
class Repair:
    """What was done, and what could not be saved."""

    done: list[str] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    without_thumbnail: list[str] = field(default_factory=list)
    without_tokens: list[str] = field(default_factory=list)
    without_picture: list[str] = field(default_factory=list)
    lost_writes: bool = False  # the last ones, nobody knows of what
    kept: Path | None = None  # the damaged store

    @property
    def complete(self) -> bool:
        """Whether nothing is lost."""
        without = self.without_thumbnail or self.without_tokens or self.without_picture
        return not (self.lost or without or self.lost_writes)


def repair(found: Verification, *, threads: int = 1) -> Repair:
    """Mend what `verify` has found; a kill at any time leaves the old store or the new one.

    Raises CollectionBusy while another process writes, CollectionDamaged where nothing can be
    saved, NotAvailable where the folder cannot be written or has too little room.
    """
    folder, wrong = found.folder, found.wrong().keys()
    done = Repair()
    for finding in found.findings:
        if finding.part in BEYOND_REPAIR:
            raise CollectionDamaged(finding.message, hint=BEYOND_REPAIR[finding.part])
    if (folder / REPAIRING).exists():
        _sweep(folder)
    kinds = _kinds(folder)
    done.lost_writes = "log" in wrong
    if wrong - _FOLLOWING - {"log", "index"}:
        _salvage(folder, done)
    else:
        _mend(folder, wrong & _FOLLOWING, done)
    if wrong or not (folder / INDEX).is_dir():
        _build(folder, kinds, threads, done)
    return done


def _sweep(folder: Path) -> None:
    """Remove what a repair that was killed has left."""
    with WriterLock(folder / "lock"):
        shutil.rmtree(folder / REPAIRING, ignore_errors=True)


def _mend(folder: Path, following: set[str], done: Repair) -> None:
    if done.lost_writes:
        with WriterLock(folder / "lock"):
            (folder / GENERATION).unlink(missing_ok=True)
        done.done.append("went on from the last write that is there")
    if following:
        store = open_store(folder)
        try:
            store.work_out_again()
        finally:
            store.close()
        done.done.append(f"worked out again from the items: {', '.join(sorted(following))}")


def _salvage(folder: Path, done: Repair) -> None:
    path, scratch = folder / STORE, folder / REPAIRING
    lock = WriterLock(folder / "lock")
    lock.acquire()
    try:
        _read_around(path, scratch, done)
        done.kept = _keep(path)
        put_store(scratch / STORE, folder)
        done.done.append(f"read what is whole into a new store; the damaged one is {done.kept}")
    except OSError as error:
        raise NotAvailable(f"{folder} cannot be repaired: {error.strerror}.") from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
        lock.release()


def _read_around(path: Path, scratch: Path, done: Repair) -> None:
    try:
        with salvaging(path) as salvage:
            salvage.spare = _spare_vectors(path.parent, salvage)
            store = new_store(scratch, salvage.meta)
            try:
                for entries in salvage.entries():
                    if entries:
                        store.write(entries, replace=True)
                for space in salvage.others():
                    kept = _carry_over(salvage, space, store)
                    count = f"{kept:,} of {len(store):,} vectors"
                    done.done.append(f"carried over what is not searched: {count} of {space.model}")
            finally:
                store.close()
    except CollectionDamaged as error:
        raise CollectionDamaged(
            f"Nothing can be saved: {error.message}", hint=BEYOND_REPAIR["missing"]
        ) from None
    done.lost, done.without_thumbnail = salvage.lost, salvage.without_thumbnail
    done.without_tokens = salvage.without_tokens
    done.without_picture = salvage.without_picture


def _carry_over(salvage: Salvage, old: Space, store: Store) -> int:
    """Return how many vectors of a space that is not searched are in the new store too.

    What is not is made anew by a migration to its model.
    """
    new = store.begin_space(
        model=old.model,
        fingerprint=old.fingerprint,
        dim=old.dim,
        precision=old.precision,
        token_width=old.token_width,
    )
    kept = 0
    for ids, vectors_NM, states in salvage.beside(old):
        rows = store.rows_of(ids)
        rows_N = as_rows(rows.get(id, 0) for id in ids)  # no item is at 0: it is skipped
        store.put_vectors(new, rows_N, vectors_NM, states)
        kept += len(rows)
    return kept


def _spare_vectors(folder: Path, salvage: Salvage) -> Callable[[list[int]], dict[int, Vector]]:
    """Return what finds vectors in the saved index, where that is whole and of this store."""
    meta = salvage.meta

    def identity() -> Identity:
        return Identity(
            collection=meta.collection,
            fingerprint=meta.fingerprint,
            dim=meta.dim,
            precision=meta.precision,
            history=salvage.history(),
        )

    opened = None
    with suppress(CollectionDamaged):
        opened = Snapshots(folder / INDEX).checked(identity)
    if opened is None:
        return lambda rows: {}
    rows_N = opened[0].rows

    def find(rows: list[int]) -> dict[int, Vector]:
        found = {}
        for row in rows:
            with suppress(CollectionDamaged):
                for vector_M in rows_N.gather(rows_N.positions_of(np.array([row]))):
                    found[row] = vector_M
        return found

    return find


def _keep(path: Path) -> Path:
    """Return another name of the damaged store."""
    number = 1
    while (kept := path.with_name(f"{STORE}.damaged-{number}")).exists():
        number += 1
    try:
        os.link(path, kept)
    except OSError:  # a file system without hard links
        shutil.copyfile(path, kept)
    sync_folder(path.parent)
    return kept


def _kinds(folder: Path) -> tuple[str, ...] | None:
    """Return the kind of index that there was, unless it was a stopgap."""
    with suppress(CollectionDamaged):
        manifest = Snapshots(folder / INDEX).manifest()
        if manifest is not None and manifest.kind in ANNS.names():
            return (manifest.kind,)
    return None


def _build(folder: Path, kinds: tuple[str, ...] | None, threads: int, done: Repair) -> None:
    store = open_store(folder)
    try:
        store.lock()
        shutil.rmtree(folder / INDEX, ignore_errors=True)
        built = build_index(store, Snapshots(folder / INDEX), kinds, threads=threads)
        if built is not None:
            done.done.append(f"built the index anew: {built.kind} of {built.count:,}")
    finally:
        store.close()
