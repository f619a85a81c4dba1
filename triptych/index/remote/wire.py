"""Messages between the processes of one host: a JSON header and raw bytes, as one checked frame.

    frame    prefix | header, JSON | body, raw
    prefix   magic, version, kind, bytes of the header, bytes of the body, CRC32 of these three
             and of all that follows

Strings go as UTF-8 with surrogates passed, as a file name may be no valid Unicode. The magic and
the version keep their place in every version, so that an unknown one can be refused by name.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn, TypeAlias

from triptych.errors import InvalidInput, NotAvailable

VERSION = 1
MAX_BYTES = 256 << 20
"""Of a whole frame."""
MAX_HEADER = 64 << 20
"""Of the JSON: parsed, it takes many times its size."""

REQUEST, ACCEPTED, REPLY, ERROR = range(1, 5)
"""Kinds of frames. ACCEPTED comes before the work: without it, nothing was done."""

_MAGIC = b"TRPW"
_PREFIX = struct.Struct("<4sHHIQI")
_LENGTHS = struct.Struct("<HIQ")

Buffer: TypeAlias = bytes | memoryview
"""Of bytes, in one dimension."""
Read: TypeAlias = Callable[[int], memoryview]
"""Returns exactly so many bytes, or raises."""


class Frame(NamedTuple):
    """One message, its checksum verified."""

    kind: int
    header: dict[str, Any]
    body: memoryview


def write_frame(kind: int, header: Mapping[str, Any], body: Sequence[Buffer] = ()) -> list[Buffer]:
    """Return the buffers to send, in order; raises InvalidInput where they are too many bytes."""
    try:
        text = json.dumps(header, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidInput(f"What is to be handed over is no JSON: {error}.") from None
    raw = text.encode("utf-8", "surrogatepass")
    size = sum(map(len, body))
    if len(raw) > MAX_HEADER or _PREFIX.size + len(raw) + size > MAX_BYTES:
        raise InvalidInput(
            f"A write of {len(raw) + size} bytes ({len(raw)} of ids, text and metadata) is too "
            f"large to hand over: the process that writes takes {MAX_BYTES} ({MAX_HEADER}).",
            hint="Write fewer items at a time.",
        )
    crc = _crc([_LENGTHS.pack(kind, len(raw), size), raw, *body])
    return [_PREFIX.pack(_MAGIC, VERSION, kind, len(raw), size, crc) + raw, *body]


def read_frame(read: Read) -> Frame:
    """Return the next message; raises InvalidInput where it is none, NotAvailable if newer."""
    magic, version, kind, header_bytes, body_bytes, crc = _PREFIX.unpack(read(_PREFIX.size))
    if magic != _MAGIC:
        raise InvalidInput(f"Got {bytes(magic)!r}, expected a message of Triptych ({_MAGIC!r}).")
    if version != VERSION:
        raise NotAvailable(
            f"The other process speaks version {version}, this one version {VERSION}.",
            hint="Use the same release of Triptych for both.",
        )
    if header_bytes > MAX_HEADER or _PREFIX.size + header_bytes + body_bytes > MAX_BYTES:
        raise InvalidInput(
            f"Got a message of {header_bytes} + {body_bytes} bytes, expected at most {MAX_BYTES}."
        )
    raw = read(header_bytes)
    body = read(body_bytes)
    if _crc([_LENGTHS.pack(kind, header_bytes, body_bytes), raw, body]) != crc:
        raise InvalidInput("A message arrived damaged: its checksum is wrong.")
    try:
        header = json.loads(str(raw, "utf-8", "surrogatepass"), parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"A message is no JSON: {error}.") from None
    if not isinstance(header, dict):
        raise InvalidInput(f"Got a {type(header).__name__} as a header, expected an object.")
    return Frame(kind, header, body)


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON")


def _crc(parts: Iterable[Buffer]) -> int:
    crc = 0
    for part in parts:
        crc = zlib.crc32(part, crc)
    return crc
