"""Room on the disk that is kept for deletions: on a full disk they need some too."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

SIZE = 1 << 20
"""Bytes."""
_LENT = 1 << 17


class Reserve:
    """A file of zeros that can be given up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._whole = False

    def make(self) -> None:
        """Set the room aside, unless it is; where there is none the next call tries again."""
        if self._whole:
            return
        with suppress(OSError):
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            held = os.fstat(file).st_size
            try:
                os.posix_fallocate(file, 0, SIZE)
                self._whole = True
            except OSError:
                os.ftruncate(file, held)
                raise
            finally:
                os.close(file)

    def lend(self) -> bool:
        """Give up a little, to open with; return whether there was something."""
        self._whole = False
        with suppress(OSError):
            held = os.stat(self.path).st_size
            os.truncate(self.path, max(0, held - _LENT))
            return held > 0
        return False

    def free(self) -> None:
        """Give the room up."""
        self._whole = False
        with suppress(OSError):
            os.truncate(self.path, 0)
