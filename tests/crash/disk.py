"""What a power cut may leave: a trace of the disk's calls, played up to a moment, with what was not
synced yet lost, kept, torn or in another order.

The rules are POSIX's, harder than those of most file systems: bytes are safe after fsync of their
file, names after fsync of their folder. Names reach the disk in their order, bytes in any.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_HEAD = struct.Struct("<c7xqqqiiii")
_SECTOR = 512
VARIANTS = ("lost", "names", "bytes", "torn")


@dataclass(frozen=True, slots=True)
class Event:
    """One call of the disk, or a line of the test's (kind M)."""

    kind: str  # Create, Write, Truncate, Sync, Rename, Unlink, Directory, Mark
    inode: int
    offset: int
    length: int
    path: str
    other: str
    data: bytes


def read_trace(path: Path) -> list[Event]:
    """Return the calls that the shim wrote down."""
    return list(_events(path.read_bytes()))


def _events(raw: bytes) -> Iterator[Event]:
    at = 0
    while at < len(raw):
        kind, inode, offset, length, *sizes, _ = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        parts = []
        for size in sizes:
            parts.append(raw[at : at + size])
            at += size
        path, other, data = parts
        yield Event(kind.decode(), inode, offset, length, path.decode(), other.decode(), data)


@dataclass(slots=True, eq=False)
class _File:
    safe: bytes = b""
    pending: list[tuple[int, bytes | int]] = field(default_factory=list)  # writes and truncations

    def content(self, changes: list[tuple[int, bytes | int]] | None = None) -> bytes:
        body = bytearray(self.safe)
        for offset, what in self.pending if changes is None else changes:
            if isinstance(what, int):
                del body[what:]
                body.extend(bytes(what - len(body)))
            else:
                body.extend(bytes(max(0, offset - len(body))))
                body[offset : offset + len(what)] = what
        return bytes(body)

    def sync(self) -> None:
        self.safe = self.content()
        self.pending.clear()


_Names = dict[str, "_File | None"]  # path below the folder; None for a folder


class Disk:
    """The state of one folder, as a program sees it and as it is on the disk."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._files: dict[int, _File] = {}
        self._names: _Names = {}
        self._safe: _Names = {}
        self._pending: list[tuple[set[str], dict[str, _File | str | None]]] = []

    def apply(self, event: Event) -> None:
        """Follow one call."""
        match event.kind:
            case "C":
                self._files[event.inode] = _File()
                self._name({event.path: self._files[event.inode]})
            case "W":
                self._file(event).pending.append((event.offset, event.data))
            case "T":
                self._file(event).pending.append((0, event.length))
            case "S":
                self._sync(event)
            case "R":
                moved: _Names = {}
                for path, what in self._names.items():
                    if path == event.path or path.startswith(f"{event.path}/"):
                        moved[event.other + path.removeprefix(event.path)] = what
                self._name(dict.fromkeys(self._under(event.path), "gone") | moved)
            case "U":
                self._name({event.path: "gone"})
            case "D":
                self._name({event.path: None})

    def materialise(self, folder: Path, variant: str, rng: random.Random) -> None:
        """Write what is left of it into the new folder `folder`.

        "lost": what was not synced is gone; "names": names are kept, bytes are gone; "bytes": the
        other way round; "torn": any part of either; "all": nothing is lost, as after a kill.
        """
        names = dict(self._safe)
        kept = {"names": len(self._pending), "all": len(self._pending)}.get(variant, 0)
        if variant == "torn":
            kept = rng.randint(0, len(self._pending))
        for _, change in self._pending[:kept]:
            _take(names, change)
        folder.mkdir(parents=True)
        for path, file in sorted(names.items()):
            target = folder / path[len(self._root) + 1 :]
            if file is None:
                target.mkdir(parents=True, exist_ok=True)
            elif target.parent.is_dir():  # else the folder's own name was lost
                target.write_bytes(self._left(file, variant, rng))

    def _left(self, file: _File, variant: str, rng: random.Random) -> bytes:
        if variant in ("bytes", "all"):
            return file.content()
        if variant != "torn":
            return file.safe
        chance = rng.random()
        changes = [change for change in file.pending if rng.random() < chance]
        if changes and rng.random() < 0.5:
            at = rng.randrange(len(changes))
            offset, what = changes[at]
            if isinstance(what, bytes) and len(what) > _SECTOR:
                cut = rng.randrange(1, (len(what) - 1) // _SECTOR + 1) * _SECTOR
                changes[at] = (offset, what[:cut])
        return file.content(changes)

    def _file(self, event: Event) -> _File:
        return self._files.setdefault(event.inode, _File())

    def _under(self, start: str) -> list[str]:
        return [path for path in self._names if path == start or path.startswith(f"{start}/")]

    def _name(self, change: dict[str, _File | str | None]) -> None:
        _take(self._names, change)
        self._pending.append(({path.rsplit("/", 1)[0] for path in change}, change))

    def _sync(self, event: Event) -> None:
        if event.inode in self._files:
            self._files[event.inode].sync()
            return
        later = []
        for folders, change in self._pending:
            if event.path in folders:
                _take(self._safe, change)
            else:
                later.append((folders, change))
        self._pending = later


def _take(names: _Names, change: dict[str, _File | str | None]) -> None:
    for path, what in change.items():
        if isinstance(what, str):
            names.pop(path, None)
        else:
            names[path] = what
