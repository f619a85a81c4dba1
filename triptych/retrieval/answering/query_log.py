"""The questions that are asked most, to have their answers ready. Off unless somebody makes one.

It is a file of JSON that only its owner can read: it holds what people asked, so it is capped,
what nobody asked twice lately leaves it first, and what names a deleted item is dropped.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from fcntl import LOCK_EX
from pathlib import Path

from triptych.index.disk import locked

NAME = "queries.json"

_EVERY = 256  # notes between two savings
_VERSION = 1


class QueryLog:
    """Counts questions, which are texts (see questions.py), in the file `path`.

    Threads and processes may share it.
    """

    def __init__(self, path: Path, *, most: int = 1_000) -> None:
        self._path = path
        self._most = most
        self._lock = threading.Lock()  # held for moments
        self._saving = threading.Lock()  # held while the file is read and written
        self._since = 0
        self._fresh: Counter[str] = Counter()  # since the last saving

    def note(self, question: str) -> bool:
        """Count a question; return whether it is time to save. An event loop may call it."""
        with self._lock:
            self._fresh[question] += 1
            self._since += 1
            is_due = self._since >= _EVERY
            if is_due:
                self._since = 0
                if len(self._fresh) > 2 * max(self._most, _EVERY):  # the disk takes nothing
                    self._fresh = Counter(dict(self._fresh.most_common(self._most)))
        return is_due

    def top(self, count: int) -> list[str]:
        """Return the `count` most frequent questions, the most frequent first."""
        with self._saving:
            with self._lock:
                counts = self._fresh.copy()
            counts += self._read()
        return [said for said, _ in counts.most_common(count)]

    def save(self) -> None:
        """Write down what was counted; what cannot be written is lost, and harms nobody."""
        with self._saving, suppress(OSError):
            if self._fresh:
                self._change(lambda counts: counts)

    def drop(self, is_stale: Callable[[str], bool]) -> None:
        """Forget the questions of which `is_stale` says so."""
        with self._saving, suppress(OSError):
            if self._fresh or self._path.exists():
                self._change(
                    lambda counts: Counter(
                        {said: n for said, n in counts.items() if not is_stale(said)}
                    )
                )

    def clear(self) -> None:
        """Forget everything."""
        with self._saving:
            with self._lock:
                self._fresh.clear()
            for path in (self._path, self._path.with_suffix(".lock")):
                path.unlink(missing_ok=True)

    def _change(self, change: Callable[[Counter[str]], Counter[str]]) -> None:
        """Put what is counted into the file, and what another process counted stays."""
        name = self._path.with_suffix(".lock")
        with name.open("w") as guard, locked(guard.fileno(), LOCK_EX):
            with self._lock:
                fresh = self._fresh.copy()
            counts = change(self._read() + fresh)
            if counts.total() > 10 * _EVERY * self._most:
                counts = Counter({said: count // 2 for said, count in counts.items()})
            kept = [pair for pair in counts.most_common(self._most) if pair[1]]
            scratch = self._path.with_name(f"{self._path.name}.{secrets.token_hex(4)}")
            try:
                with os.fdopen(os.open(scratch, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
                    json.dump({"version": _VERSION, "queries": kept}, file)
                scratch.rename(self._path)
            finally:
                scratch.unlink(missing_ok=True)
            with self._lock:
                self._fresh -= fresh  # what was asked meanwhile is of the next saving

    def _read(self) -> Counter[str]:
        """Return what the file says; one that is damaged says nothing."""
        try:
            found = json.loads(self._path.read_bytes())
            if found["version"] != _VERSION:
                return Counter()
            return Counter({str(said): int(count) for said, count in found["queries"]})
        except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return Counter()
