"""The folder that a collection lies in."""

from __future__ import annotations

import re
import shutil
from contextlib import suppress
from pathlib import Path

from triptych.errors import (
    CollectionBusy,
    CollectionDamaged,
    InvalidInput,
    NotAvailable,
    NotFound,
    TriptychError,
)
from triptych.index.disk import sync_folder
from triptych.index.manifest import MANIFEST
from triptych.index.remote.channel import SOCKET
from triptych.index.sqlite.generation import NAME as GENERATION
from triptych.index.sqlite.generation import read_generation
from triptych.index.sqlite.meta import Meta, peek
from triptych.index.sqlite.store import Store

STORE = "store.sqlite"
REPAIRING = "repair.tmp"  # where a store is repaired, under the lock
INDEX = "index"

_WRITTEN = ("lock", "reserve", GENERATION, SOCKET, INDEX)
"""What a new collection writes, by names that others may have taken."""
_PROCESS = re.compile(rb"[\d\n\0]*")  # or what a fault of the disk left of it


def make_folder(folder: Path) -> None:
    """Make the folder of a collection, on the disk; raises InvalidInput, NotAvailable."""
    try:
        new = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        # SQLite syncs its own folder, but not the name of that folder
        for path in new:
            sync_folder(path.parent)
    except FileExistsError:
        raise InvalidInput(f"{folder} is a file, expected a collection's folder.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise NotAvailable(f"{folder} cannot be created: {reason}.") from None


def is_gutted(folder: Path) -> bool:
    """Whether items were indexed but the store is gone or empty."""
    return not _has_store(folder) and (folder / INDEX / MANIFEST).exists()


def check_not_gutted(folder: Path) -> None:
    """Raise CollectionDamaged where items were indexed but the store is gone or empty."""
    if is_gutted(folder):
        raise CollectionDamaged(
            f"{folder / STORE} is missing or empty, but an index of its items is there.",
            hint="Restore it from a backup, or delete the folder and index again.",
        )


def check_folder(folder: Path) -> None:
    """Raise where a collection can neither be opened nor begun.

    CollectionDamaged as `check_not_gutted` does, InvalidInput where a new one would write over what
    no collection made.
    """
    check_not_gutted(folder)
    if _has_store(folder):
        return
    others = [name for name in _WRITTEN if not _is_free(folder / name)]
    if others and not _has_store(folder):  # or another process has just made it
        raise InvalidInput(
            f"{folder} holds a {others[0]!r} that no collection made. A new one would replace it.",
            hint="Name a folder that has nothing else in it.",
        )


def new_store(folder: Path, like: Meta) -> Store:
    """Return an empty store in the new `folder`, for the vectors of the same model."""
    folder.mkdir()
    return Store.open(
        folder / STORE,
        model=like.model,
        fingerprint=like.fingerprint,
        dim=like.dim,
        precision=like.precision,
        token_width=like.token_width,
    )


def open_store(folder: Path) -> Store:
    """Return the store of an existing collection, whatever its model; raises NotFound."""
    check_not_gutted(folder)
    known = peek(folder / STORE)
    if known is None:
        raise NotFound(f"There is no collection in {folder}.")
    return Store.open(
        folder / STORE, model=known.model, fingerprint=known.fingerprint, dim=known.dim
    )


def put_store(new: Path, folder: Path) -> None:
    """Put a store that is closed in the place of the folder's own, which is gone then.

    With one rename: either is there whole, whenever the power fails. The caller holds the lock.
    Raises CollectionBusy where another process has the old one open.
    """
    old = folder / STORE
    log = old.with_name(f"{STORE}-wal")
    if log.exists() and log.stat().st_size:
        raise CollectionBusy(
            f"{old} has a log that cannot be emptied: another process is reading it.",
            hint="End that process and run the same again.",
        )
    try:
        # of the old store, and poison to the new one
        for path in (log, old.with_name(f"{STORE}-shm"), folder / GENERATION):
            path.unlink(missing_ok=True)
        new.rename(old)
        with suppress(FileNotFoundError):  # a store that nothing was written to has none
            new.with_name(GENERATION).rename(folder / GENERATION)
        sync_folder(folder)
        # not before: a vector that the old store has lost may be in it
        shutil.rmtree(folder / INDEX, ignore_errors=True)
    except OSError as error:
        raise NotAvailable(f"{old} cannot be replaced: {error.strerror}.") from None


def _has_store(folder: Path) -> bool:
    store = folder / STORE
    return store.exists() and store.stat().st_size > 0


def _is_free(path: Path) -> bool:
    """Whether nothing is there, or what a collection left that is gone or half made."""
    if not path.exists():
        return True
    try:
        match path.name:
            case "lock":
                return _PROCESS.fullmatch(path.read_bytes()) is not None
            case "reserve":
                return not any(path.read_bytes())
            case name if name == GENERATION:
                return read_generation(path) is not None
            case _:
                return path.name == SOCKET and path.is_socket()
    except (TriptychError, OSError):
        return False
