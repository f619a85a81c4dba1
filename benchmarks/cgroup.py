"""A bound on a process's memory that counts the page cache too: a cgroup, of either version."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Self

CGROUPS = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class _Files:
    """What one version calls its files."""

    parent: Path
    limit: str
    swap: str
    peak: str


V1 = _Files(
    parent=CGROUPS / "memory",
    limit="memory.limit_in_bytes",
    swap="memory.memsw.limit_in_bytes",
    peak="memory.max_usage_in_bytes",
)
V2 = _Files(parent=CGROUPS, limit="memory.max", swap="memory.swap.max", peak="memory.peak")


class MemoryGroup:
    """Processes started by `command` get no more than `limit` bytes together, without swap.

    Whoever needs more is killed by the system. Raises OSError where groups cannot be made.
    """

    def __init__(self, limit: int) -> None:
        self._files = V1 if (V1.parent / V1.limit).exists() else V2
        self._folder = self._files.parent / f"triptych-bench-{os.getpid()}"
        if self._files is V2:
            _write(V2.parent / "cgroup.subtree_control", "+memory")
        self._folder.mkdir()
        try:
            _write(self._folder / self._files.limit, str(limit))
        except OSError:
            self._folder.rmdir()
            raise
        with suppress(OSError):  # a machine without swap has no such file
            _write(self._folder / self._files.swap, str(limit) if self._files is V1 else "0")

    @property
    def command(self) -> tuple[str, ...]:
        """Return what to put before a command, so that it and its children are in the group."""
        return ("sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._folder / "cgroup.procs"))

    def peak(self) -> int:
        """Return the most bytes that were held at once, cached pages of files included."""
        return int((self._folder / self._files.peak).read_text())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._folder.rmdir()


def available() -> bool:
    """Return whether a group can be made here."""
    try:
        with MemoryGroup(1 << 30):
            return True
    except OSError:
        return False


def forget(folder: Path) -> None:
    """Drop the files below from the page cache: a group pays only for what it reads itself."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def _write(path: Path, text: str) -> None:
    with path.open("w") as file:
        file.write(text)
