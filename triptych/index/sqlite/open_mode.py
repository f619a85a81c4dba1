"""How a store's file may be read at the moment, and whether it stayed the same while it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import apsw

from triptych.errors import CollectionBusy, CollectionDamaged


class OpenMode(NamedTuple):
    """How SQLite opens the file: rw, ro where another user may be writing, or immutable."""

    mode: str
    stamp: tuple[int, int] = (0, 0)  # of an immutable file, which SQLite does not look at again

    @contextmanager
    def held(self, path: Path) -> Iterator[None]:
        """Raise CollectionBusy where an immutable file changed meanwhile: pages of two states."""
        try:
            yield
        except (apsw.Error, CollectionDamaged):
            self._check(path)
            raise
        self._check(path)

    def _check(self, path: Path) -> None:
        if self.mode == "immutable" and _stamp(path) != self.stamp:
            raise CollectionBusy(f"{path} was written to while it was read.", hint="Try again.")


READ_WRITE = OpenMode("rw")


def look_at(path: Path) -> OpenMode:
    """Return how to read a file that, or whose folder, cannot be written to."""
    stamp = _stamp(path)  # before the log is looked for: who writes begins with a log
    log = path.with_name(f"{path.name}-wal")
    # without a log nobody writes, and only so does SQLite open it in a folder that is read-only
    return OpenMode("ro") if _stamp(log)[1] else OpenMode("immutable", stamp)


def _stamp(path: Path) -> tuple[int, int]:
    """Return when a file was last changed and its size, zeros where there is none."""
    try:
        found = path.stat()
    except OSError:
        return 0, 0
    return found.st_mtime_ns, found.st_size
