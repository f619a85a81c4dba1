"""How far a store is, in a small file of its own that any process can look at or map.

SQLite stops in silence at the first damaged frame of its log, and takes the log of another store
for its own: what was acknowledged would be gone without a word. A store that is behind this file
has lost something. It is written after each commit and never before; it needs no sync, since
being behind is harmless.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from triptych.errors import CollectionDamaged, NotAvailable
from triptych.index.disk import sync_file
from triptych.index.sqlite.pages import repair

NAME = "generation"

_LAYOUT = struct.Struct("<q32s")  # the counter stands first, at an address that is a multiple of 8
_SUM = struct.Struct("<I")
_SLOT = 64  # two of them, written in turns: one is whole whenever the power fails
_TRIES = 3  # while another process writes
_PAUSE = 0.002  # seconds


class Seen(NamedTuple):
    """A store, and a sequence that it certainly reached."""

    sequence: int
    collection: str


def read_generation(path: Path) -> Seen | None:
    """Return what the file says, None where there is none.

    Raises CollectionDamaged where it says nothing: what was lost of the store, if anything, would
    not be noticed. Raises NotAvailable where it cannot be read.
    """
    for _ in range(_TRIES):
        try:
            body = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NotAvailable(f"{path} cannot be read: {error.strerror}.") from None
        whole = [seen for at in (0, _SLOT) if (seen := _unpacked(body[at:])) is not None]
        if whole:
            return max(whole)
        time.sleep(_PAUSE)
    raise CollectionDamaged(
        f"{path} is damaged: whether the last writes are all there cannot be told.",
        hint=repair(path),
    )


def write_generation(path: Path, seen: Seen) -> None:
    """Note how far the store is; what cannot be written is left out."""
    with suppress(OSError):
        body = _packed(seen)
        try:
            file = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            _create(path, body)
            return
        try:
            os.pwrite(file, body, seen.sequence % 2 * _SLOT)
        finally:
            os.close(file)


def check_generation(path: Path, seen: Seen | None, found: Seen) -> None:
    """Raise CollectionDamaged where the store `found` is not what was `seen` before."""
    if seen is None:
        return
    store = path.parent
    if seen.collection != found.collection:
        raise CollectionDamaged(
            f"{store} holds a store or a log of another collection: "
            f"got {found.collection[:12]}, expected {seen.collection[:12]}.",
            hint=f"Put its own files back. If that is what you want, delete {path}.",
        )
    if seen.sequence > found.sequence:
        lost = seen.sequence - found.sequence
        raise CollectionDamaged(
            f"The last {lost:,} writes to {store} are lost: its log is damaged or missing.",
            hint=f"Restore a backup, or go on with what is left. {repair(path)}",
        )


def _create(path: Path, body: bytes) -> None:
    """Make the file under another name first: it is there whole or not at all."""
    scratch = path.with_name(f"{path.name}.new")
    scratch.write_bytes(body.ljust(_SLOT, b"\0") + body)
    sync_file(scratch)
    scratch.rename(path)


def _packed(seen: Seen) -> bytes:
    said = _LAYOUT.pack(seen.sequence, seen.collection.encode("ascii"))
    return said + _SUM.pack(zlib.crc32(said))


def _unpacked(body: bytes) -> Seen | None:
    said = body[: _LAYOUT.size]
    if body[_LAYOUT.size :][: _SUM.size] != _SUM.pack(zlib.crc32(said)):
        return None
    sequence, collection = _LAYOUT.unpack(said)
    return Seen(sequence, collection.decode("ascii", "replace"))
