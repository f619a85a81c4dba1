"""The folder that a collection lies in."""

from __future__ import annotations

from pathlib import Path

from triptych.errors import CollectionDamaged, InvalidInput, NotAvailable
from triptych.index.snapshot import sync_folder

STORE = "store.sqlite"


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
        raise NotAvailable(f"{folder} cannot be created: {error}.") from None


def check_not_gutted(folder: Path) -> None:
    """Raise CollectionDamaged where items were indexed but the store is gone or empty."""
    store = folder / STORE
    if not (store.exists() and store.stat().st_size) and (folder / "index").is_dir():
        raise CollectionDamaged(
            f"{store} is missing or empty, but an index of its items is there.",
            hint="Restore it from a backup, or delete the folder and index again.",
        )
