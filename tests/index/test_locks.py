"""Locks on files, given back while a child that was just forked has the same file open."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from triptych.index.disk import locked
from triptych.index.sqlite.lock import WriterLock


def as_a_child_has_it(path: Path) -> int:
    """Return a descriptor of the very file that this process has open at `path`."""
    for one in Path("/proc/self/fd").iterdir():
        if one.is_symlink() and one.readlink() == path:
            return os.dup(int(one.name))
    raise AssertionError(f"{path} is not open")


def test_a_released_lock_is_free_though_a_child_has_its_file_open(tmp_path: Path) -> None:
    lock, other = WriterLock(tmp_path / "lock"), WriterLock(tmp_path / "lock")
    lock.acquire()
    childs = as_a_child_has_it(lock.path)
    lock.release()
    with other:
        assert other.held and not lock.held
    os.close(childs)


def test_a_lock_on_an_open_file_is_free_afterwards_though_a_child_has_it_open(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    with path.open("w") as file, locked(file.fileno(), fcntl.LOCK_EX):
        childs = as_a_child_has_it(path)
    with path.open() as file, locked(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB):
        pass
    os.close(childs)
