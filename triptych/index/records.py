"""What the store takes in and gives out, and the checksum that ties a row together.

SQLite does not notice a flipped bit in its data, so each row carries a checksum of everything
that an answer is made of.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from triptych.errors import InvalidInput
from triptych.types import Modality, Vector

Packed = str | bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """What a file of an indexed folder looked like when it was read."""

    root: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """One item on its way into the store; `vector` is a unit row in float32."""

    id: str
    modality: Modality
    vector: Vector
    text: str | None = None
    uri: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    content: str | None = None  # hash of the picture file
    file: FileState | None = None
    thumbnail: bytes | None = None  # JPEG


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """One stored item; `row` is new with each write of it."""

    row: int
    id: str
    modality: Modality
    text: str | None
    uri: str | None
    metadata: dict[str, Any]
    vector: Vector = field(repr=False)
    content: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownFile:
    """What the store remembers of a file of an indexed folder."""

    row: int
    content: str | None
    state: FileState


def pack(text: str | None) -> Packed:
    """Return what SQLite can hold: bytes where `text` (a file name, say) is not valid Unicode."""
    if text is None:
        return None
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def unpack(value: Packed) -> str | None:
    """Return what `pack` was given."""
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else value


def metadata_json(id: str, metadata: Mapping[str, Any]) -> str:
    """Return canonical JSON; raises InvalidInput where the metadata are no JSON object."""
    if not isinstance(metadata, Mapping) or not all(isinstance(key, str) for key in metadata):
        raise InvalidInput(f"The metadata of {id!r} are no mapping from strings: {metadata!r}.")
    try:
        return json.dumps(dict(metadata), allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"The metadata of {id!r} are no JSON: {error}.") from None


def checksum(payload: tuple[Packed, ...], vector: bytes) -> bytes:
    """Return 16 bytes over all fields, each with its length, so that none runs into the next."""
    digest = hashlib.blake2b(vector, digest_size=16)
    for value in payload:
        raw = value.encode("utf-8") if isinstance(value, str) else value
        digest.update(b"-" if raw is None else len(raw).to_bytes(8, "little") + raw)
    return digest.digest()


def entry_columns(entry: Entry) -> tuple[tuple[Packed, ...], bytes]:
    """Return the checksummed payload (id modality text uri metadata content) and the vector."""
    metadata = metadata_json(entry.id, entry.metadata)
    payload = (
        pack(entry.id), entry.modality, pack(entry.text), pack(entry.uri), metadata, entry.content
    )  # fmt: skip
    return payload, np.ascontiguousarray(entry.vector, dtype="<f4").tobytes()


def record_from(columns: tuple[Any, ...], dim: int) -> Record | None:
    """Return the record of (row, *payload, checksum, vector); None where the checksum is wrong."""
    row, *payload, expected, vector = columns
    try:
        if len(vector) != 4 * dim or checksum(tuple(payload), vector) != expected:
            return None
        return Record(
            row=row,
            id=str(unpack(payload[0])),
            modality=payload[1],
            text=unpack(payload[2]),
            uri=unpack(payload[3]),
            metadata=json.loads(payload[4]),
            content=payload[5],
            vector=np.frombuffer(vector, dtype="<f4"),
        )
    # a flipped bit can change a value's type too, or make text that is no UTF-8
    except (TypeError, AttributeError, ValueError):
        return None
