"""How far a store is, in a small file of its own that any process can look at or map.

SQLite stops in silence at the first damaged frame of its log, and takes the log of another store
for its own: what was acknowledged would be gone without a word. A store that is behind this file
has lost something. It is written after each commit and never before; it needs no sync, since
being behind is harmless.
"""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from triptych.errors import CollectionDamaged
from triptych.index.pages import repair

NAME = "generation"

_LAYOUT = struct.Struct("<q32s")  # the counter stands first, at an address that is a multiple of 8


class Seen(NamedTuple):
    """A store, and a sequence that it certainly reached."""

    sequence: int
    collection: str


def read_generation(path: Path) -> Seen | None:
    """Return what the file says, None where there is none."""
    try:
        sequence, collection = _LAYOUT.unpack(path.read_bytes())
    except (OSError, struct.error):
        return None
    return Seen(sequence, collection.decode("ascii", "replace"))


def write_generation(path: Path, seen: Seen) -> None:
    """Note how far the store is; what cannot be written is left out."""
    with suppress(OSError):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            os.pwrite(file, _LAYOUT.pack(seen.sequence, seen.collection.encode("ascii")), 0)
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
