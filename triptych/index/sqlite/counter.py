"""How far a store is, asked before each answer: two system calls, and no SQLite."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

from triptych.errors import TriptychError
from triptych.index.sqlite.generation import read_generation

_BYTES = 256  # more than the file has


class Counter:
    """The sequence of `collection` in the file `generation`. Any thread may ask.

    The file is read, not mapped: one that is cut short under a mapping would end the process.
    """

    def __init__(self, path: Path, collection: str) -> None:
        self._path = path
        self._collection = collection
        self._lock = threading.Lock()
        self._file = -1
        self._last: tuple[bytes, int] = (b"", -1)

    def read(self) -> int:
        """Return the sequence that the last writer noted, of any process; -1 where none has.

        Nor is what a collection says that was made anew in this one's place.
        """
        try:
            # without a name it is another file that is written to now
            if self._file < 0 or not os.fstat(self._file).st_nlink:
                self._reopen()
            body = os.pread(self._file, _BYTES, 0)
        except OSError:
            return -1
        seen, sequence = self._last
        if body == seen:
            return sequence
        with suppress(TriptychError):
            found = read_generation(self._path)
            sequence = -1
            if found is not None and found.collection == self._collection:
                sequence = found.sequence
            self._last = (body, sequence)
        return sequence

    def close(self) -> None:
        """Let go of the file; harmless when closed already."""
        with self._lock:
            file, self._file = self._file, -1
            if file >= 0:
                os.close(file)

    def _reopen(self) -> None:
        with self._lock:
            if self._file >= 0 and os.fstat(self._file).st_nlink:
                return  # another thread was faster
            fresh = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            old, self._file = self._file, fresh
            if old >= 0:
                os.close(old)
