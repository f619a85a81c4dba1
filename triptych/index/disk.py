"""What a file system needs to be told before it keeps a promise."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, EFBIG, ENOSPC
from pathlib import Path

FULL = (ENOSPC, EDQUOT, EFBIG)
"""What a system says where a disk, a quota or a limit on the size of files leaves no room."""


def sync_folder(folder: Path) -> None:
    """Put the names in `folder` on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_file(path: Path) -> None:
    """Put the content of a file on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


@contextmanager
def locked(file: int, how: int) -> Iterator[None]:
    """Hold a lock of `flock` on an open file, `how` as it takes it; raises OSError.

    Unlocked at the end, not only closed: a child that was just forked has the file open as well.
    """
    fcntl.flock(file, how)
    try:
        yield
    finally:
        fcntl.flock(file, fcntl.LOCK_UN)
