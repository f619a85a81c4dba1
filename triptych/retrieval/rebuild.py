"""Embed a collection's folders again, with another model, beside the old one; then swap.

Searching answers from the old collection until the new one is complete. An interrupted rebuild
goes on where it stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from triptych.errors import InvalidInput, NotFound
from triptych.index.store import Store
from triptych.retrieval.collection import Collection
from triptych.retrieval.folder import STORE


def roots_of(folder: Path) -> list[Path]:
    """Return the folders that the collection's items came from.

    Raises NotFound where there is no collection, InvalidInput where items would be lost.
    """
    known = Collection.peek(folder)
    if known is None:
        raise NotFound(f"There is no collection in {folder}.", hint="Run: triptych index FOLDER")
    store = Store.open(
        folder / STORE, model=known.model, fingerprint=known.fingerprint, dim=known.dim
    )
    try:
        files = store.files()
        _check_all_from_folders(len(store) - len(files), folder)
        return sorted({Path(file.state.root) for file in files.values()})
    finally:
        store.close()


@contextmanager
def rebuilding(folder: Path, *, fingerprint: str) -> Iterator[Path]:
    """Yield a folder to build the new collection in; it takes the old one's place at the end.

    What an interrupted rebuild with the model of this `fingerprint` left there is kept.
    """
    if Collection.peek(folder) is not None:
        roots_of(folder)
    target = folder.with_name(f".{folder.name}.rebuild")
    begun = Collection.peek(target)
    if begun is not None and begun.fingerprint != fingerprint:
        shutil.rmtree(target)
    yield target
    old = folder.with_name(f".{folder.name}.replaced")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    target.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _check_all_from_folders(num_others: int, folder: Path) -> None:
    if num_others:
        raise InvalidInput(
            f"{num_others:,} items of {folder} came from no folder: a rebuild would lose them.",
            hint="Read them with get(), rebuild under another --collection, and add them there.",
        )
