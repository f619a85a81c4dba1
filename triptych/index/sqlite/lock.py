"""One writer per collection: an advisory lock that dies with its process."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path
from typing import Self

from triptych.errors import CollectionBusy, NotAvailable
from triptych.index.sqlite.forks import watch


class WriterLock:
    """`flock` on a file that is never removed: no clean-up after a crash, no race on its name.

    `with` takes it, as `acquire` does, and gives it back.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        watch(self)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    @property
    def held(self) -> bool:
        return self._file is not None

    def acquire(self) -> None:
        """Take the lock, at once or never.

        Raises CollectionBusy naming the process that has it, NotAvailable where the folder is
        gone or read-only.
        """
        if self._file is not None:
            return
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise NotAvailable(
                f"{self.path.parent} cannot be written to: {error.strerror}.",
                hint="Check that the folder exists and that you may write to it.",
            ) from None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(file, 32, 0).decode("ascii", "replace").strip()
            os.close(file)
            raise CollectionBusy(
                f"{self.path.parent} is being written to by process {holder or 'unknown'}.",
                hint="Wait for it to end; searching works meanwhile.",
            ) from None
        # only for others to read: a full disk must not keep us from deleting
        with suppress(OSError):
            os.ftruncate(file, 0)
            os.pwrite(file, f"{os.getpid()}\n".encode("ascii"), 0)
        self._file = file

    def before_fork(self) -> None:
        """Keep it."""

    def in_child(self) -> None:
        """Leave it to the parent: a lock that a child holds too outlives its process."""
        if self._file is not None:
            self._close(self._file)

    def release(self) -> None:
        """Give the lock back; harmless where it is not held."""
        if self._file is not None:
            # closing is not enough: a child that was just forked has the file open as well
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._close(self._file)

    def _close(self, file: int) -> None:
        os.close(file)
        self._file = None
