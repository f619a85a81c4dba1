"""Collections by name: `<data folder>/<tenant>/<collection>/`, and the models that they need."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from triptych.errors import DiskFull, InvalidInput, NotFound
from triptych.index.disk import FULL, sync_folder
from triptych.index.sqlite.lock import WriterLock
from triptych.retrieval.folder import STORE

_NAME = re.compile(r"[a-z0-9_-]{1,64}")
_FINGERPRINT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_:.-]{0,127}")
_TRASH = ".trash-"


class Library:
    """The collections of one tenant."""

    def __init__(self, root: str | Path, tenant: str = "default") -> None:
        self.root = Path(root)
        self.folder = self.root / _checked("tenant", tenant)

    def path(self, name: str) -> Path:
        """Return where the collection lies or would lie; raises InvalidInput on a bad name."""
        return self.folder / _checked("collection", name)

    def list(self) -> list[str]:
        """Return the names of all collections, sorted."""
        found = [path.parent.name for path in self.folder.glob(f"*/{STORE}")]
        return sorted(name for name in found if _NAME.fullmatch(name))

    def create(self, name: str) -> Path:
        """Return the folder of a new collection; raises InvalidInput where the name is taken."""
        path = self.path(name)
        if (path / STORE).exists():
            raise InvalidInput(f"The collection {name!r} exists already.", hint="Open it instead.")
        path.mkdir(parents=True, exist_ok=True)
        return path

    def existing(self, name: str) -> Path:
        """Return the collection's folder; raises NotFound listing those that there are."""
        path = self.path(name)
        if not (path / STORE).exists():
            known = ", ".join(self.list()) or "none yet"
            raise NotFound(f"There is no collection {name!r}, known: {known}.")
        return path

    def drop(self, name: str) -> None:
        """Delete the collection; raises NotFound, or CollectionBusy while a process writes to it.

        It is gone with one rename; what a crash leaves of it is swept away by the next drop.
        """
        path = self.existing(name)
        with WriterLock(path / "lock"):
            path.rename(self.folder / f"{_TRASH}{name}-{secrets.token_hex(8)}")
        for trash in self.folder.glob(f"{_TRASH}*"):
            shutil.rmtree(trash, ignore_errors=True)

    def replace(self, name: str, folder: Path) -> None:
        """Put the collection in `folder`, beside the others, in the place of `name`, which rests.

        A crash in between leaves neither under that name, so only for what can be fetched again.
        """
        path = self.path(name)
        if path.exists():
            path.rename(self.folder / f"{_TRASH}{name}-{secrets.token_hex(8)}")
        folder.rename(path)
        sync_folder(self.folder)
        for trash in self.folder.glob(f"{_TRASH}*"):
            shutil.rmtree(trash, ignore_errors=True)


def model_folder(root: str | Path, fingerprint: str) -> Path:
    """Return where the model with this fingerprint is kept, if it is."""
    if not _FINGERPRINT.fullmatch(fingerprint):
        raise InvalidInput(f"Got {fingerprint!r}, expected a model's fingerprint.")
    return Path(root) / "models" / fingerprint


def keep_model(save: Callable[[Path], object], root: str | Path, fingerprint: str) -> Path:
    """Return `<root>/models/<fingerprint>`, a copy of the model that `save` writes, made once.

    So an upgrade of the package strands no collection. A true copy: a link would change with what
    it points to. Raises DiskFull, and OSError for a model that cannot be read.
    """
    kept = model_folder(root, fingerprint)
    if kept.is_dir():
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    scratch = kept.with_name(f".{fingerprint}-{secrets.token_hex(8)}")
    try:
        save(scratch)
        scratch.rename(kept)
    except OSError as error:
        # another process may have been faster; anything else is an error
        if not kept.is_dir():
            if _is_full(error):
                raise DiskFull(
                    f"The disk is full: the model was not copied to {kept.parent}.",
                    hint="Free some space and run the same again.",
                ) from None
            raise
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return kept


def _is_full(error: OSError) -> bool:
    # shutil gathers what went wrong, as text
    said = str(error.args) if isinstance(error, shutil.Error) else os.strerror(error.errno or 0)
    return any(os.strerror(code) in said for code in FULL)


def _checked(kind: str, name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput(f"Got the {kind} name {name!r}, expected 1 to 64 of a-z, 0-9, _ and -.")
    return name
