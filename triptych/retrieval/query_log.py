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
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

NAME = "queries.json"

_EVERY = 256  # notes between two savings
_VERSION = 1


class QueryLog:
    """Counts questions, which are JSON, in the file `path`. Threads and processes may share it."""

    def __init__(self, path: Path, *, most: int = 1_000) -> None:
        self._path = path
        self._most = most
        self._lock = threading.Lock()
        self._fresh: Counter[str] = Counter()  # since the last saving

    def note(self, question: Any) -> None:
        """Count a question."""
        said = json.dumps(question, sort_keys=True, separators=(",", ":"))
        with self._lock:
            self._fresh[said] += 1
            is_due = self._fresh.total() >= _EVERY
        if is_due:
            self.save()

    def top(self, count: int) -> list[Any]:
        """Return the `count` most frequent questions, the most frequent first."""
        with self._lock:
            counts = self._read() + self._fresh
        return [json.loads(said) for said, _ in counts.most_common(count)]

    def save(self) -> None:
        """Write down what was counted; what cannot be written is lost, and harms nobody."""
        with self._lock, suppress(OSError):
            if self._fresh:
                self._change(lambda counts: counts)

    def drop(self, is_stale: Callable[[Any], bool]) -> None:
        """Forget the questions of which `is_stale` says so."""
        with self._lock, suppress(OSError):
            if self._fresh or self._path.exists():
                self._change(
                    lambda counts: Counter(
                        {said: n for said, n in counts.items() if not is_stale(json.loads(said))}
                    )
                )

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._fresh.clear()
            for path in (self._path, self._path.with_suffix(".lock")):
                path.unlink(missing_ok=True)

    def _change(self, change: Callable[[Counter[str]], Counter[str]]) -> None:
        """Put what is counted into the file, and what another process counted stays."""
        with self._path.with_suffix(".lock").open("w") as guard:
            flock(guard, LOCK_EX)
            counts = change(self._read() + self._fresh)
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
            self._fresh.clear()

    def _read(self) -> Counter[str]:
        """Return what the file says; one that is damaged says nothing."""
        try:
            found = json.loads(self._path.read_bytes())
            if found["version"] != _VERSION:
                return Counter()
            return Counter({_checked(said): int(count) for said, count in found["queries"]})
        except (OSError, ValueError, TypeError, KeyError):
            return Counter()


def _checked(said: str) -> str:
    json.loads(said)
    return said
