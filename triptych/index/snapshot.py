"""The folder `index/` of a collection: a saved base, and its manifest.

A copy (law 5): whatever is wrong with it, it is not used, and the store has everything.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from triptych.errors import CollectionDamaged, NotAvailable, NotFound
from triptych.index import ANNS, INDEXES
from triptych.index.base import Ann, Cancelled
from triptych.index.disk import FULL, sync_folder
from triptych.index.manifest import (
    MANIFEST,
    Identity,
    Manifest,
    State,
    check_identity,
    encoded,
    read,
)
from triptych.index.rowfile import RowFile
from triptych.index.segments import Base, Knobs
from triptych.types import Matrix, Rows

logger = logging.getLogger(__name__)

_ROWS = "rows"
_ANN = "ann"
_FEWEST = 256  # vectors that training needs

Tune: TypeAlias = "Callable[[Base], tuple[Knobs, float] | None]"
"""The cheapest knobs that reach the recall, and that recall; None: not with this kind.

The Ann is not whole yet.
"""


@dataclass(frozen=True, slots=True)
class Staged:
    """A base that is on the disk, but that nobody uses yet."""

    folder: Path
    manifest: Manifest


class Snapshots:
    """One is published at a time. Opening needs no lock; the caller lets one build at a time."""

    def __init__(self, folder: Path, *, mapped: bool = True) -> None:
        self.folder = folder
        self._mapped = mapped

    def manifest(self) -> Manifest | None:
        """Return the manifest, None where there is none; raises CollectionDamaged."""
        return read(self.folder)

    def open(self, identity: Callable[[], Identity]) -> tuple[Base, Manifest] | None:
        """Return what is published; None, with a line in the log, where it cannot be used.

        `identity` is asked again where a writer has put another base in place meanwhile.
        """
        try:
            return self.checked(identity)
        except CollectionDamaged as error:
            where = self.folder.parent
            logger.warning("%s: index not used, it is rebuilt: %s", where, error.message)
            return None

    def checked(self, identity: Callable[[], Identity]) -> tuple[Base, Manifest] | None:
        """Return what is published, None where nothing is; raises CollectionDamaged."""
        while True:
            manifest = self.manifest()
            if manifest is None:
                return None
            try:
                return self._base(manifest, identity()), manifest
            except CollectionDamaged:
                if not self._replaced(manifest):
                    raise

    def build(
        self,
        chunks: Iterable[tuple[Rows, Matrix]],
        *,
        kinds: Sequence[str],
        tune: Tune,
        identity: Identity,
        state: State,
        count: int = 0,
        threads: int = 1,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Staged | None:
        """Write a base beside what is published; None where it was cancelled.

        The first of `kinds` that `tune` can bring to its recall is taken; after the last, or where
        there are too few vectors to train on, everything is scanned. `count` vectors are expected.
        Raises NotAvailable where the disk is full, at once where it has no room for the vectors
        alone, or where the folder above cannot be written or is gone.
        """
        folder = self.folder / f"{secrets.token_hex(8)}.tmp"
        try:
            self.folder.mkdir(exist_ok=True)  # not that of the collection, which may be gone
            folder.mkdir()
            if shutil.disk_usage(folder).free < RowFile.bytes_for(
                count, identity.dim, identity.precision
            ):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            RowFile.write(
                folder / _ROWS,
                _until(cancelled, chunks),
                dim=identity.dim,
                precision=identity.precision,
            )
            base, recall = _fitted(RowFile.open(folder / _ROWS), kinds, tune, threads, cancelled)
            if base.ann is not None:
                base.ann.save(folder / _ANN)
            manifest = _described(folder, base, recall, identity, state)
            sync_folder(folder)
            return Staged(folder, manifest)
        except BaseException as error:  # an interrupt too leaves nothing behind
            shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, Cancelled):
                return None
            if isinstance(error, OSError):
                raise _unwritable(self.folder, error) from None
            raise

    def publish(self, staged: Staged) -> Manifest:
        """Put the base in place of the old one: either is there whole, whenever the power fails.

        The caller holds the write lock. A reader that has the old one open keeps it.
        """
        try:
            staged.folder.rename(self.folder / staged.manifest.folder)
            sync_folder(self.folder)
            scratch = self.folder / f"{MANIFEST}.tmp"
            with scratch.open("wb") as file:
                file.write(encoded(staged.manifest))
                file.flush()
                os.fsync(file.fileno())
            scratch.rename(self.folder / MANIFEST)
            sync_folder(self.folder)
        except OSError as error:
            raise NotAvailable(f"The index cannot be published: {error.strerror}.") from None
        self.sweep()
        return staged.manifest

    def withdraw(self) -> None:
        """Leave nothing published; the caller holds the write lock."""
        try:
            if (self.folder / MANIFEST).exists():
                (self.folder / MANIFEST).unlink()
                sync_folder(self.folder)  # or a power cut after the switch brings it back
        except OSError as error:
            raise NotAvailable(f"The index cannot be withdrawn: {error.strerror}.") from None

    def sweep(self) -> None:
        """Remove what a crash or an older base left; the caller holds the write lock.

        Nothing is removed where it cannot be told what is published.
        """
        try:
            manifest = self.manifest()
            paths = list(self.folder.iterdir())
        except (CollectionDamaged, OSError):
            return
        keep = manifest.folder if manifest else None
        for path in paths:
            if path.name in (keep, MANIFEST):
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                with suppress(OSError):
                    path.unlink()

    def discard(self, staged: Staged) -> None:
        """Remove a base that is not wanted any more."""
        shutil.rmtree(staged.folder, ignore_errors=True)

    def _base(self, manifest: Manifest, identity: Identity) -> Base:
        check_identity(manifest, identity)
        folder = self.folder / Path(manifest.folder).name
        rows = RowFile.open(folder / _ROWS)
        got = (rows.seal, len(rows), rows.dim, rows.precision)
        if got != (manifest.rows_seal, manifest.count, manifest.dim, manifest.precision):
            raise CollectionDamaged("its rows are not those that the manifest names")
        ann = None
        if manifest.ann_sha256 is not None:
            ann = self._ann(folder / _ANN, manifest)
        return Base(manifest.kind, rows, ann, Knobs(manifest.effort, manifest.refine))

    def _ann(self, path: Path, manifest: Manifest) -> Ann:
        if _sha256(path) != manifest.ann_sha256:
            raise CollectionDamaged(f"the content of {path.name} does not match the manifest")
        try:
            kind = ANNS.resolve(manifest.kind)
        except (NotFound, NotAvailable) as error:
            raise CollectionDamaged(error.message) from None
        ann: Ann = kind.load(manifest.kind, path, mapped=self._mapped)
        if (len(ann), ann.dim) != (manifest.count, manifest.dim):
            raise CollectionDamaged(f"{path.name} holds another number of vectors")
        return ann

    def _replaced(self, manifest: Manifest) -> bool:
        """Whether the writer has put another base in place since `manifest` was read."""
        with suppress(CollectionDamaged):
            return self.manifest() not in (manifest, None)
        return False


def _unwritable(folder: Path, error: OSError) -> NotAvailable:
    hint = "Check that the folder exists and that you may write to it."
    if error.errno in FULL:
        hint = "Searches go on with what there is. Free some space and try again."
    return NotAvailable(f"The index in {folder} cannot be written: {error.strerror}.", hint=hint)


def _until(
    cancelled: Callable[[], bool], chunks: Iterable[tuple[Rows, Matrix]]
) -> Iterable[tuple[Rows, Matrix]]:
    for chunk in chunks:
        if cancelled():
            raise Cancelled
        yield chunk


def _fitted(
    rows: RowFile,
    kinds: Sequence[str],
    tune: Tune,
    threads: int,
    cancelled: Callable[[], bool],
) -> tuple[Base, float]:
    """Return the first base that reaches the recall that is wanted, and its recall."""
    exact = "flat"
    for kind in kinds:
        if kind in INDEXES.names():
            exact = kind
            break
        if len(rows) < _FEWEST:
            continue
        ann: Ann = ANNS.resolve(kind).build(
            kind, rows, threads=threads, cancelled=cancelled, whole=False
        )
        base = Base(kind, rows, ann)
        tuned = tune(base)
        if tuned is not None:
            ann.complete(rows)
            return replace(base, knobs=tuned[0]), tuned[1]
    return Base(exact, rows), 1.0


def _described(
    folder: Path, base: Base, recall: float, identity: Identity, state: State
) -> Manifest:
    path = folder / _ANN
    if base.ann is not None:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    return Manifest(
        collection=identity.collection,
        fingerprint=identity.fingerprint,
        dim=identity.dim,
        precision=identity.precision,
        epoch=state.epoch,
        sequence=state.sequence,
        last_row=state.last_row,
        count=len(base.rows),
        kind=base.kind,
        effort=base.knobs.effort,
        refine=base.knobs.refine,
        recall=recall,
        folder=folder.stem,
        num_bytes=sum(file.stat().st_size for file in folder.iterdir()),
        rows_seal=base.rows.seal,
        ann_sha256=_sha256(path) if base.ann is not None else None,
    )


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        raise CollectionDamaged(f"{path.name} cannot be read") from None
