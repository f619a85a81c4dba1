"""What a store says about itself: its format, its model, its birth."""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import NamedTuple

import apsw

from triptych.errors import CollectionDamaged, NotAvailable
from triptych.index.database import connect, is_blank, transaction, translated

FORMAT = 1

# epochs: each process that writes leaves a name and the sequence it began at, so that an index
# saved along another history (a backup was restored, a folder was copied) is told apart
_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE items (
    row INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE, modality TEXT NOT NULL, text TEXT, uri TEXT, metadata TEXT NOT NULL,
    content TEXT, checksum BLOB NOT NULL, root TEXT, size INTEGER, mtime_ns INTEGER
);
CREATE TABLE vectors (row INTEGER PRIMARY KEY, vector BLOB NOT NULL);
CREATE TABLE thumbnails (row INTEGER PRIMARY KEY, jpeg BLOB NOT NULL);
CREATE TABLE epochs (sequence INTEGER NOT NULL, epoch TEXT NOT NULL);
"""


class Meta(NamedTuple):
    """What a collection says about itself."""

    format: int
    collection: str  # unique for ever
    model: str
    fingerprint: str
    dim: int
    created: float


def create(connection: apsw.Connection, *, model: str, fingerprint: str, dim: int) -> None:
    """Make the tables, unless another process was faster."""
    meta = Meta(FORMAT, uuid.uuid4().hex, model, fingerprint, dim, time.time())
    with transaction(connection, "IMMEDIATE"):
        if not is_blank(connection):
            return
        connection.execute(_SCHEMA)
        rows = [*meta._asdict().items(), ("sequence", 0)]
        connection.executemany("INSERT INTO meta VALUES (?, ?)", rows)


def read_meta(connection: apsw.Connection, path: Path | None) -> Meta:
    """Return the meta; raises NotAvailable for a newer format, CollectionDamaged for none."""
    with translated(path):
        cursor = connection.execute("SELECT key, value FROM meta")
        found: dict[str, object] = {str(key): value for key, value in cursor}
    written = found.get("format")
    if isinstance(written, int) and written > FORMAT:
        raise NotAvailable(
            f"{path} has format {written}, this Triptych reads up to {FORMAT}.",
            hint="Run: pip install --upgrade triptych",
        )
    dim, created = found.get("dim"), found.get("created")
    if written != FORMAT or not isinstance(dim, int) or not isinstance(created, float):
        raise CollectionDamaged(f"{path} does not say which model it belongs to.")
    names = {name: str(found.get(name)) for name in ("collection", "model", "fingerprint")}
    return Meta(format=FORMAT, dim=dim, created=created, **names)


def peek(path: Path) -> Meta | None:
    """Return what the store at `path` says about itself, None where there is none."""
    if not path.is_file():
        return None
    with translated(path):
        connection = connect(path)
        try:
            return None if is_blank(connection) else read_meta(connection, path)
        finally:
            connection.close()
