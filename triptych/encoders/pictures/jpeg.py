"""The markers of a JPEG: how many scans it has, and what of its end is lacking."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from itertools import islice

_MARKER = re.compile(rb"\xff([^\x00\xff])", re.DOTALL)
_BARE = frozenset({*range(0x01, 0xC0), *range(0xD0, 0xD9)})  # markers that no length follows
_FRAMES = (0xC0, 0xC1, 0xC2)  # sequential and progressive
_COEFFICIENTS = 64  # of a component's block
_SCAN, _END = 0xDA, 0xD9
_END_MARK = b"\xff\xd9"
_RESTARTS = [bytes((0xFF, 0xD0 + at)) for at in range(8)]
_ZEROS = bytes(16)


def num_scans(data: bytes, *, at_most: int) -> int:
    """Return the scans up to the end of the first picture, or `at_most` + 1 where it has more.

    By their mark alone only where that is enough: what a camera hangs on, a second picture or some
    seconds of film, holds the same two bytes by chance, about once in 64 kB.
    """
    count = data.count(b"\xff\xda")
    if count <= at_most:
        return count
    scans = (marker for marker, _ in _markers(data) if marker == _SCAN)
    return sum(1 for _ in islice(scans, at_most + 1))


def ended(data: bytes) -> list[bytes]:
    """Return `data` with an end mark, and twice with other bits before that mark.

    All make the same picture only where every bit of it is there: a decoder that lacks some takes
    zeros, or those. Empty where it has that mark, or where a whole scan is lacking.
    """
    components, known = 0, Counter[int]()
    for marker, at in _markers(data):
        if marker in _FRAMES:
            components = int.from_bytes(data[at + 7 : at + 8], "big")
        elif marker == _SCAN:
            known.update(_known_after(data[at : at + 16]))
        elif marker == _END:
            return []
    if not components or [*known.values()] != [_COEFFICIENTS] * components:
        return []
    cut = data.rstrip(b"\xff")  # of a mark that is cut in two
    # any of the restarts may be the next, and what is before it is passed over
    rising = bytes(range(0x55, 0xB5)).join([b"", *_RESTARTS])
    falling = bytes(range(0xB2, 0x52, -1)).join([b"", *_RESTARTS[4:], *_RESTARTS[:4]])
    return [cut + bits + _END_MARK for bits in (b"", rising, falling)]


def _known_after(header: bytes) -> dict[int, int]:
    """Return how many coefficients of each component a scan brings to their last bit."""
    num = min(header[2] if len(header) > 2 else 0, 4)
    first, last, bits = header.ljust(16, b"\xff")[3 + 2 * num : 6 + 2 * num]
    return dict.fromkeys(header[3 : 3 + 2 * num : 2], last - first + 1) if not bits & 15 else {}


def is_zeroed(data: bytes) -> bool:
    """Whether zeros stand in the place of the end, as where a download was broken off."""
    return data.endswith(_ZEROS) and all(marker != _END for marker, _ in _markers(data))


def _markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield each marker up to the end of the first picture, and where what it heads begins."""
    at = 0
    while (found := _MARKER.search(data, at)) is not None:
        marker, at = found[1][0], found.end()
        if marker not in _BARE:
            yield marker, at
            if marker == _END:
                return
            at += int.from_bytes(data[at : at + 2], "big")
