"""A saved index beside the store, with a manifest that ties it to one state of one collection.

FAISS does not notice a flipped bit in its files, so nothing is loaded whose hash is not right.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from triptych.errors import CollectionDamaged
from triptych.index import INDEXES
from triptych.index.base import VectorIndex
from triptych.index.store import Store

logger = logging.getLogger(__name__)

FORMAT = 1
_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What the index file must be, and the state of the store that it shows."""

    format: int
    kind: str
    collection: str
    fingerprint: str
    dim: int
    epoch: str
    sequence: int
    count: int
    file: str
    sha256: str


class Snapshot:
    """The folder `index/` of a collection."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def manifest(self) -> Manifest | None:
        """Return the manifest, None where there is none; raises CollectionDamaged."""
        try:
            found = Manifest(**json.loads((self.folder / _MANIFEST).read_bytes()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError):
            raise CollectionDamaged("the manifest cannot be read") from None
        for name, kind in (("count", int), ("sequence", int), ("file", str), ("epoch", str)):
            if type(getattr(found, name)) is not kind:
                raise CollectionDamaged(f"the manifest's {name} is {getattr(found, name)!r}")
        return found

    def load(self, store: Store, *, kind: str) -> tuple[VectorIndex, int] | None:
        """Return the index and its sequence; None, with a line in the log, where it is unusable."""
        while True:
            manifest = None
            try:
                manifest = self.manifest()
                if manifest is None:
                    return None
                return self._verified(manifest, store, kind), manifest.sequence
            except CollectionDamaged as error:
                if manifest is not None and self._replaced(manifest):
                    continue
                where = self.folder.parent
                logger.warning("%s: index not used, it is rebuilt: %s", where, error.message)
                return None

    def save(self, index: VectorIndex, store: Store) -> None:
        """Put the index in place of the old one: either is there whole, whenever the power fails.

        The caller holds the write lock, and the index shows what the store holds.
        """
        history = store.history()
        if not history:  # nothing was ever written
            return
        self.folder.mkdir(exist_ok=True)
        name = f"{secrets.token_hex(8)}.{index.kind}"
        scratch = self.folder / f"{name}.tmp"
        index.save(scratch)
        manifest = Manifest(
            format=FORMAT,
            kind=index.kind,
            collection=store.meta.collection,
            fingerprint=store.meta.fingerprint,
            dim=index.dim,
            epoch=list(history)[-1],
            sequence=store.sequence,
            count=len(index),
            file=name,
            sha256=_sha256(scratch),
        )
        _settle(scratch, self.folder / name)
        scratch = self.folder / f"{_MANIFEST}.tmp"
        scratch.write_text(json.dumps(asdict(manifest), indent=1), "utf-8")
        _settle(scratch, self.folder / _MANIFEST)
        self._sweep(name)

    def _verified(self, manifest: Manifest, store: Store, kind: str) -> VectorIndex:
        meta = store.meta
        got = (manifest.format, manifest.kind, manifest.collection, manifest.fingerprint)
        if got != (FORMAT, kind, meta.collection, meta.fingerprint):
            raise CollectionDamaged("it belongs to another collection, model or kind")
        first, end = store.history().get(manifest.epoch, (0, -1))
        if not first <= manifest.sequence <= end:
            raise CollectionDamaged("it shows a state that this store never had")
        path = self.folder / Path(manifest.file).name
        try:
            if _sha256(path) != manifest.sha256:
                raise CollectionDamaged("its content does not match the manifest")
        except OSError:
            raise CollectionDamaged("its file cannot be read") from None
        index: VectorIndex = INDEXES.resolve(kind).load(path)
        if (len(index), index.dim) != (manifest.count, meta.dim):
            raise CollectionDamaged("it holds another number of vectors than the manifest says")
        return index

    def _replaced(self, manifest: Manifest) -> bool:
        """Whether the writer has put another index in place since `manifest` was read."""
        with suppress(CollectionDamaged):
            return self.manifest() not in (manifest, None)
        return False

    def _sweep(self, keep: str) -> None:
        # a reader that has the old file open keeps its content
        for path in self.folder.iterdir():
            if path.name not in (keep, _MANIFEST):
                with suppress(OSError):
                    path.unlink()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _settle(scratch: Path, path: Path) -> None:
    """Rename once the content is on the disk, and put the name there too."""
    with scratch.open("rb") as file:
        os.fsync(file.fileno())
    scratch.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Put the names in `folder` on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
