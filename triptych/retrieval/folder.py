"""The folder that a collection lies in."""

from __future__ import annotations

import shutil
from contextlib import suppress
from pathlib import Path

from triptych.errors import (
    CollectionBusy,
    CollectionDamaged,
    InvalidInput,
    NotAvailable,
    NotFound,
)
from triptych.index.disk import sync_folder
from triptych.index.sqlite.generation import NAME as GENERATION
from triptych.index.sqlite.meta import Meta, peek
from triptych.index.sqlite.store import Store

STORE = "store.sqlite"
REPAIRING = "repair.tmp"  # where a store is repaired, under the lock
INDEX = "index"


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


def check_not_gutted(folder: Path) -> None:
    """Raise CollectionDamaged where items were indexed but the store is gone or empty."""
    store = folder / STORE
    if not (store.exists() and store.stat().st_size) and (folder / INDEX).is_dir():
        raise CollectionDamaged(
            f"{store} is missing or empty, but an index of its items is there.",
            hint="Restore it from a backup, or delete the folder and index again.",
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
