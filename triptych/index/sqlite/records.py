"""What the store takes in and gives out, and the checksums that tie a row together.

The pages of the file have checksums; those of the items say besides that the parts of an answer
belong together, and hold for a copy that is repaired or restored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InvalidInput
from triptych.types import Modality, Vector

Packed = str | bytes | None
Tokens: TypeAlias = NDArray[np.int8]
"""T rows of width W, see tokens.py."""

LONGEST_ID = 10_000
"""Bytes in UTF-8."""
DEEPEST = 32
"""Objects and lists inside of each other, in metadata."""

_QUIET_BYTES = 2_000  # for more at once hashlib lets other threads run, and waits long to go on

_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode
_decode = json.JSONDecoder().raw_decode


@dataclass(frozen=True, slots=True, kw_only=True)
class FileState:
    """What a file of an indexed folder looked like when it was read."""

    root: str
    size: int
    mtime_ns: int


class Picture(NamedTuple):
    """A picture as it was sent; `data` is None where its file is there already."""

    sha256: str
    size: int
    data: bytes | None = None

    @classmethod
    def of(cls, data: bytes) -> Picture:
        """Return the picture that has these bytes."""
        return cls(hashlib.sha256(data).hexdigest(), len(data), data)


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
    tokens: Tokens | None = None
    picture: Picture | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Record:
    """One stored item; `row` is new with each write of it."""

    row: int
    id: str
    modality: Modality
    text: str | None
    uri: str | None
    metadata: dict[str, Any]
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


def checked_id(id: str) -> Packed:
    """Return the id packed; raises InvalidInput where it is empty or too long."""
    packed = pack(id) if isinstance(id, str) else None
    size = len(packed.encode("utf-8") if isinstance(packed, str) else packed or b"")
    if not 0 < size <= LONGEST_ID:
        shown = repr(id) if size <= LONGEST_ID else f"{id[:40]!r}... of {size:,} bytes"
        raise InvalidInput(f"An id is a string of 1 to {LONGEST_ID:,} bytes, got {shown}.")
    return packed


def metadata_json(id: str, metadata: Mapping[str, Any]) -> str:
    """Return JSON in ASCII; raises InvalidInput where the metadata are no JSON object.

    Nor may they be nested deeper than 32. Whole numbers of any size come back as they were.
    """
    if not _is_object(metadata):
        raise InvalidInput(f"The metadata of {id!r} are no mapping from strings: {metadata!r}.")
    try:
        text = _encode(dict(metadata))
    except RecursionError:
        raise _too_deep(id) from None
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"The metadata of {id!r} are no JSON: {error}.") from None
    if text.count("{") + text.count("[") > DEEPEST and _is_deeper(metadata, DEEPEST):
        raise _too_deep(id)
    return text


def checksum(row: int, payload: Sequence[Packed]) -> bytes:
    """Return 16 bytes over the row and all fields, so that none runs into the next."""
    parts = [b"%d" % row]
    for value in payload:
        if value is None:
            parts.append(b"-")
        else:
            raw = value.encode("utf-8") if isinstance(value, str) else value
            parts.append(b"+%d:" % len(raw))
            parts.append(raw)
    return hashlib.blake2b(b"".join(parts), digest_size=16).digest()


def bound_checksum(item: bytes, content: Any) -> bytes:
    """Return 16 bytes over the checksum of an item and `content` that belongs to it."""
    digest = hashlib.blake2b(item, digest_size=16)
    view = memoryview(content).cast("B")
    for start in range(0, len(view), _QUIET_BYTES):
        digest.update(view[start : start + _QUIET_BYTES])
    return digest.digest()


def payload_of(entry: Entry) -> tuple[Packed, ...]:
    """Return what the checksum covers: id modality text uri metadata content."""
    metadata = metadata_json(entry.id, entry.metadata)
    return (
        checked_id(entry.id), entry.modality, pack(entry.text), pack(entry.uri), metadata,
        entry.content,
    )  # fmt: skip


def record_from(columns: tuple[Any, ...]) -> Record | None:
    """Return the record of (row, checksum, *payload); None where the checksum is wrong."""
    row, expected, *payload = columns
    try:
        if checksum(row, payload) != expected:
            return None
        id, modality, text, uri, metadata, content = payload
        return Record(
            row=row,
            id=str(unpack(id)),
            modality=modality,
            text=unpack(text),
            uri=unpack(uri),
            metadata=_decode(metadata)[0],
            content=content,
        )
    # a value of another type, or text that is no UTF-8
    except (TypeError, AttributeError, ValueError, RecursionError):
        return None


def entry_from(
    columns: tuple[Any, ...], vector: Vector | None, thumbnail: bytes | None
) -> Entry | None:
    """Return the item of (row, checksum, *payload, root, size, mtime_ns) as it was written.

    None where the checksum is wrong or there is no vector.
    """
    record = record_from(columns[:8])
    if record is None or vector is None:
        return None
    root, size, mtime_ns = columns[8:]
    file = None
    if root is not None:
        file = FileState(root=str(unpack(root)), size=size, mtime_ns=mtime_ns)
    return Entry(
        id=record.id,
        modality=record.modality,
        vector=vector,
        text=record.text,
        uri=record.uri,
        metadata=record.metadata,
        content=record.content,
        file=file,
        thumbnail=None if thumbnail is None else bytes(thumbnail),
    )


def shown(id: Any) -> str:
    """Return a packed id as it can be shown, whatever happened to it."""
    return id.decode("utf-8", "replace") if isinstance(id, bytes) else str(id)


def as_stored(metadata: Mapping[str, Any], text: str) -> Mapping[str, Any]:
    """Return metadata as its JSON `text` gives them back."""
    # a flat object of plain ASCII comes back as it is
    if "\\u" in text or "[" in text or text.count("{") > 1:
        return dict(json.loads(text))
    return metadata


def _is_object(metadata: Any) -> bool:
    # a dict first: to ask for a Mapping takes as long as the encoding
    known = isinstance(metadata, (dict, Mapping))
    return known and all(isinstance(key, str) for key in metadata)


def _too_deep(id: str) -> InvalidInput:
    return InvalidInput(f"The metadata of {id!r} are nested deeper than {DEEPEST}.")


def _is_deeper(value: Any, limit: int) -> bool:
    waiting = [(value, 1)]
    while waiting:
        value, depth = waiting.pop()
        if isinstance(value, Mapping | list | tuple):
            if depth > limit:
                return True
            inner = value.values() if isinstance(value, Mapping) else value
            waiting.extend((one, depth + 1) for one in inner)
    return False
