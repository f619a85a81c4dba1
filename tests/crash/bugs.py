"""Mistakes that somebody could make, planted into the product, each to be found by the harness.

Most are planted below the product, in what it calls: its own code may change freely.
"""

from __future__ import annotations

import os
import re
import shutil
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw

BUGS: dict[str, Callable[[], None]] = {}


def plant(name: str) -> None:
    """Put the bug into this process."""
    BUGS[name]()


def bug(function: Callable[[], None]) -> Callable[[], None]:
    BUGS[function.__name__] = function
    return function


def _patch(owner: Any, name: str, new: Any) -> None:
    setattr(owner, name, new)


def _connections(execute: Callable[[Any, str, Callable[[str], Any]], Any]) -> None:
    """Let `execute(connection, statement, do)` stand before each statement of SQLite."""

    class Connection(apsw.Connection):
        def execute(self, statement: str, *arguments: Any, **named: Any) -> Any:
            do = super().execute
            return execute(self, statement, lambda text: do(text, *arguments, **named))

    _patch(apsw, "Connection", Connection)


@bug
def no_rename() -> None:
    """A file is written in place of the old one, instead of beside it and renamed."""

    def in_place(self: Path, target: str | Path) -> Path:
        target = Path(target)
        if self.is_dir() or not target.exists():
            os.rename(self, target)
            return target
        body = self.read_bytes()
        with target.open("wb", buffering=0) as file:
            for at in range(0, len(body), 200):
                file.write(body[at : at + 200])
        self.unlink()
        return target

    _patch(Path, "rename", in_place)
    _patch(Path, "replace", in_place)


@bug
def export_in_place() -> None:
    """An archive is written over the old one."""
    real = Path.rename

    def rename(self: Path, target: str | Path) -> Path:
        if Path(target).name != "archive":
            return real(self, target)
        body = self.read_bytes()
        with Path(target).open("wb", buffering=0) as file:
            for at in range(0, len(body), 20):  # so slowly that some kill falls into it
                file.write(body[at : at + 20])
        self.unlink()
        return Path(target)

    _patch(Path, "rename", rename)


@bug
def states_not_migrated() -> None:
    """Whatever has its vector counts as done, with states or without."""
    _connections(
        lambda connection, text, do: do(
            re.sub(r" OR row NOT IN \(SELECT row FROM tokens\w*\)", "", text)
        )
    )

    class Connection(apsw.Connection):
        def executemany(self, statement: str, values: Any, **named: Any) -> Any:
            if "INTO tokens_" in statement and len(values := list(values)) > 1:
                values = values[1:]
            return super().executemany(statement, values, **named)

    _patch(apsw, "Connection", Connection)


@bug
def no_fsync() -> None:
    """What is renamed may not be on the disk yet."""
    _patch(os, "fsync", lambda descriptor: None)


@bug
def manifest_first() -> None:
    """The manifest names what gets its name only afterwards."""
    real, held = Path.rename, []

    def rename(self: Path, target: str | Path) -> Path:
        if Path(target).parent.name != "index":
            return real(self, target)
        held.append((self, Path(target)))
        if Path(target).name == "manifest.json":
            for pair in reversed(held):
                real(*pair)
            held.clear()
        return Path(target)

    _patch(Path, "rename", rename)


@bug
def old_files_removed_first() -> None:
    """What is published goes before the new manifest is there."""
    real = Path.rename

    def rename(self: Path, target: str | Path) -> Path:
        if Path(target).name == "manifest.json":
            for path in Path(target).parent.iterdir():
                if path.is_dir() and path.suffix != ".tmp":
                    shutil.rmtree(path)
                elif path.name != self.name:
                    path.unlink()
        return real(self, target)

    _patch(Path, "rename", rename)


@bug
def scratch_files_stay() -> None:
    """What a kill left half written is never removed."""
    _patch(Path, "unlink", lambda self, missing_ok=False: None)
    _patch(shutil, "rmtree", lambda *arguments, **named: None)


@bug
def no_sync_at_commit() -> None:
    """SQLite leaves it to the system when a commit reaches the disk."""
    _connections(
        lambda connection, text, do: do(text.replace("synchronous = FULL", "synchronous = NORMAL"))
    )


@bug
def acknowledged_before_commit() -> None:
    """A transaction is committed when the next one begins."""
    writing: set[int] = set()
    late: set[int] = set()
    begun: list[int] = []

    def execute(connection: Any, text: str, do: Callable[[str], Any]) -> Any:
        one = id(connection)
        if one in late and text in ("BEGIN IMMEDIATE", "VACUUM"):
            late.discard(one)
            connection.execute("END")
        if text == "BEGIN IMMEDIATE":
            writing.add(one)
            begun.append(one)
        elif text == "COMMIT" and one in writing and len(begun) > 1:  # after the tables are there
            writing.discard(one)
            late.add(one)
            return do("SELECT 1")
        return do(text)

    _connections(execute)


@bug
def store_not_written() -> None:
    """Every fifth write is in the index, and is rolled back in the store."""
    writes = [0]

    def execute(connection: Any, text: str, do: Callable[[str], Any]) -> Any:
        if text.startswith("BEGIN IMMEDIATE"):
            writes[0] += 1
        return do("ROLLBACK" if text == "COMMIT" and writes[0] % 5 == 4 else text)

    _connections(execute)


@bug
def failed_commit_swallowed() -> None:
    """An error of the disk while committing is taken for a success."""

    def execute(connection: Any, text: str, do: Callable[[str], Any]) -> Any:
        try:
            return do(text)
        except apsw.Error:
            if text != "COMMIT":
                raise
            return connection.execute("ROLLBACK") if connection.in_transaction else None

    _connections(execute)


@bug
def a_batch_in_two_transactions() -> None:
    """A kill in between leaves half of it."""

    class Connection(apsw.Connection):
        def executemany(self, statement: str, values: Any, **named: Any) -> Any:
            values = list(values)
            if "INSERT INTO items" not in statement or len(values) < 2:
                return super().executemany(statement, values, **named)
            super().executemany(statement, values[:1], **named)
            self.execute("COMMIT")
            self.execute("BEGIN IMMEDIATE")
            return super().executemany(statement, values[1:], **named)

    _patch(apsw, "Connection", Connection)


@bug
def checksums_ignored() -> None:
    """Whatever is read counts as whole."""
    _patch(zlib, "crc32", lambda data, value=0: 0)
