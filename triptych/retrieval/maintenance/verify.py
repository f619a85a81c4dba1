"""Hash and compare everything in a collection's folder; the collection need not open."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from triptych.errors import CollectionDamaged, NotFound
from triptych.index.manifest import Manifest
from triptych.index.segments import Base
from triptych.index.snapshot import Snapshots
from triptych.index.sqlite.check import Finding
from triptych.index.sqlite.database import Database
from triptych.index.sqlite.generation import NAME as GENERATION
from triptych.index.sqlite.generation import Seen, read_generation
from triptych.index.sqlite.meta import peek
from triptych.index.sqlite.pages import PAGE
from triptych.index.sqlite.store import Store
from triptych.retrieval.folder import INDEX, STORE, is_gutted
from triptych.retrieval.live import identity_of

BEYOND_REPAIR = {
    "missing": "Restore a backup (triptych import), or delete the folder and index again.",
    "identity": f"Put its own files back. To keep what is there, delete the file {GENERATION!r}.",
}
"""Parts that a person has to see to, and how."""

_CHUNK = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Verification:
    """What was looked at, by part, and all that is wrong.

    Parts: missing, identity, store, log, pages, structure, items, vectors, thumbnails, pictures,
    counts, facts, words, index. The command adds the copy of the model.
    """

    folder: Path
    checked: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.findings

    def wrong(self) -> dict[str, int]:
        """Return how many findings there are of each part that has some."""
        parts = [finding.part for finding in self.findings]
        return {part: parts.count(part) for part in dict.fromkeys(parts)}


def verify(folder: Path) -> Verification:
    """Read every byte of the collection in `folder`; others may use it meanwhile.

    Raises NotFound where there is none, NotAvailable for a newer format, a database that is no
    store, or where it cannot be read.
    """
    found = Verification(folder=folder)
    path = folder / STORE
    seen = _seen(folder, found)  # before the store: it may be written to
    try:
        if peek(path) is None:
            if seen is None and not is_gutted(folder):
                raise NotFound(f"There is no collection in {folder}.")
            found.findings.append(Finding("missing", f"{path} is missing or empty."))
            return found
        store = _opened(path)
    except CollectionDamaged as error:
        found.findings.append(Finding("store", error.message))
        return found
    try:
        found.findings.extend(_log(store, seen))
        found.findings.extend(store.check())
        found.checked.update(_described(store, path))
        with store.reading():
            _index(store, folder, found)
    except CollectionDamaged as error:
        if found.ok:  # else it is a consequence
            found.findings.append(Finding("store", error.message))
    finally:
        store.close()
    return found


def _seen(folder: Path, found: Verification) -> Seen | None:
    try:
        return read_generation(folder / GENERATION)
    except CollectionDamaged as error:
        found.findings.append(Finding("log", error.message))
        return None


def _opened(path: Path) -> Store:
    database = Database(path)
    try:
        return Store(database)
    except BaseException:
        database.close()
        raise


def _log(store: Store, seen: Seen | None) -> Iterator[Finding]:
    try:
        store.check_generation(seen)
    except CollectionDamaged as error:
        other = seen is not None and seen.collection != store.meta.collection
        yield Finding("identity" if other else "log", error.message)


def _described(store: Store, path: Path) -> dict[str, str]:
    meta, count = store.meta, len(store)
    kept = store.picture_size()
    return {
        "log": f"{store.sequence:,} writes",
        "pages": f"{path.stat().st_size // PAGE:,} of {PAGE >> 10} KB",
        "structure": "by SQLite",
        "items": f"{count:,}",
        "vectors": f"{count:,} of {meta.dim} numbers, {meta.precision}",
        "thumbnails": "by checksum",
        "pictures": "{count:,} of {bytes:,} bytes, by hash".format(**kept),
        "counts": "against the items",
        "facts": "against the items",
        "words": "against the items",
    }


def _index(store: Store, folder: Path, found: Verification) -> None:
    """Check every block of the saved index, and that it holds what the store holds."""
    try:
        opened = Snapshots(folder / INDEX).checked(lambda: identity_of(store))
        if opened is None:
            found.checked["index"] = "none is saved"
            return
        base, manifest = opened
        found.checked["index"] = f"{manifest.kind} of {manifest.count:,}"
        base.rows.verify()
    except CollectionDamaged as error:
        message = error.message[:1].upper() + error.message[1:].removesuffix(".")
        found.findings.append(Finding("index", f"{message}."))
        return
    found.findings.extend(_compared(store, base, manifest))


def _compared(store: Store, base: Base, manifest: Manifest) -> Iterator[Finding]:
    change = store.changes(manifest.sequence, manifest.last_row)
    if change is None:
        yield Finding("index", "It cannot be brought up to date with the store.")
        return
    rows_N = store.rows()
    old_N = rows_N[rows_N <= manifest.last_row]
    held_N = base.rows.rows_N
    expected_N = np.union1d(old_N, change.removed_N)
    missing, extra = np.setdiff1d(expected_N, held_N), np.setdiff1d(held_N, expected_N)
    if len(missing) or len(extra):
        yield Finding(
            "index",
            f"{len(missing):,} items are missing in it, {len(extra):,} should not be there.",
        )
    differing = 0
    for at in range(0, len(old_N), _CHUNK):
        loaded = store.load(np.intersect1d(old_N[at : at + _CHUNK], held_N))
        vectors_NM = base.rows.gather(base.rows.positions_of(loaded.rows_N))
        differing += int((vectors_NM != loaded.vectors_NM).any(axis=1).sum())
    if differing:
        yield Finding("index", f"{differing:,} of its vectors are not those of the store.")
