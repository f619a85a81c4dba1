"""Files that are named by the SHA-256 of what is in them: equal ones are kept once.

    pictures/ab/abcdef...    under another name first, synced, then renamed

What a name promises is checked at each reading. Which of them are in use, the store knows.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import secrets
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from triptych.errors import CollectionDamaged, DiskFull, NotAvailable
from triptych.index.disk import FULL, locked, sync_folder

logger = logging.getLogger(__name__)

_OURS = re.compile(r"([0-9a-f]{64})(\.[0-9a-f]+\.tmp)?")


class Blobs:
    """The files in one folder, made when it is needed; None keeps them in memory."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.mutex = threading.RLock()  # held from before a file is there until it is referred to
        self._memory: dict[str, bytes] = {}

    def put(self, sha256: str, data: bytes) -> bool:
        """Keep `data`, on the disk when this returns; False where it was there already, whole.

        Raises DiskFull, NotAvailable.
        """
        if self.folder is None:
            return self._memory.setdefault(sha256, data) is data
        path = self._path(sha256)
        if _is_whole(path, sha256, len(data)):
            return False
        scratch = path.with_name(f"{sha256}.{secrets.token_hex(4)}.tmp")
        try:
            new = [folder for folder in (self.folder, path.parent) if not folder.is_dir()]
            path.parent.mkdir(parents=True, exist_ok=True)
            for folder in new:
                sync_folder(folder.parent)
            with scratch.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            scratch.rename(path)
            sync_folder(path.parent)
        except OSError as error:
            with suppress(OSError):
                scratch.unlink(missing_ok=True)
            raise _failed(path, error) from None
        return True

    def read(self, sha256: str) -> bytes | None:
        """Return what was put, None where it is not there; raises CollectionDamaged."""
        if self.folder is None:
            return self._memory.get(sha256)
        path = self._path(sha256)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CollectionDamaged(f"{path} cannot be read: {error.strerror}.") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise CollectionDamaged(f"{path} is damaged: its hash is not its name.")
        return data

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Let no process delete any of them meanwhile: `remove` leaves them to a later `sweep`."""
        with self._locked(fcntl.LOCK_SH):
            yield

    def remove(self, hashes: Iterable[str]) -> None:
        """Delete those; one that cannot be deleted, or is `kept`, is left to `sweep`."""
        with suppress(OSError), self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
            for sha256 in hashes:
                self._memory.pop(sha256, None)
                if self.folder is not None:
                    with suppress(OSError):
                        self._path(sha256).unlink(missing_ok=True)

    def sweep(self, in_use: Callable[[list[str]], set[str]]) -> None:
        """Delete what a crash left: halves, and of the rest all that is not among those `in_use`.

        What is not named as `put` names it is somebody's own, and stays. While they are `kept` all
        of them do.
        """
        if self.folder is None or not self.folder.is_dir():
            return
        try:
            with self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB):
                for part in self.folder.iterdir():
                    with suppress(OSError):  # no folder of ours
                        names = {name for name in os.listdir(part) if _is_ours(name, part)}
                        for name in names - in_use(sorted(names)):
                            (part / name).unlink(missing_ok=True)
        except BlockingIOError:
            logger.warning("%s: an export holds it: what was deleted is in it still", self.folder)

    def take(self, other: Path) -> None:
        """Move all that is in another folder of this kind here; raises OSError."""
        assert self.folder is not None, "only files are moved"
        for part in other.iterdir():
            here = self.folder / part.name
            here.mkdir(parents=True, exist_ok=True)
            for path in part.iterdir():
                path.rename(here / path.name)
            sync_folder(here)
        for folder in (self.folder, self.folder.parent):
            sync_folder(folder)

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        """Hold the folder, where there is one; raises OSError."""
        if self.folder is None or not self.folder.is_dir():
            yield
            return
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with locked(descriptor, how):
                yield
        finally:
            os.close(descriptor)

    def _path(self, sha256: str) -> Path:
        assert self.folder is not None, "a file has a folder"
        return self.folder / sha256[:2] / sha256


def _is_ours(name: str, folder: Path) -> bool:
    return _OURS.fullmatch(name) is not None and name[:2] == folder.name


def _is_whole(path: Path, sha256: str, size: int) -> bool:
    """Whether it need not be written: one that went bad is written anew."""
    try:
        if path.stat().st_size != size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _failed(path: Path, error: OSError) -> DiskFull | NotAvailable:
    if error.errno in FULL:
        return DiskFull(
            f"The disk is full: nothing of this batch was stored in {path.parent.parent.parent}.",
            hint="Free some space and run the same again; what was stored before is kept.",
        )
    return NotAvailable(
        f"{path} cannot be written: {error.strerror}.",
        hint="Check that the folder exists and that you may write to it.",
    )
