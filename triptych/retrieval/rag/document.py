"""What a reader makes of a file: pages of text, with what is in them at which place.

All places are character offsets into the text of their page, counted from 0.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from triptych.errors import InvalidInput

# tabs, line ends, form feeds and escapes stand in texts of terminals
_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_MOST_CONTROL = 0.01  # of the characters
_USUAL = "cp1252"
_MEANT = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "shift_jis": "cp932",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
"""What browsers read under the name of another (the WHATWG's Encoding Standard): it holds more."""
# not "undefined", which always fails, nor "punycode", which takes its time
_OF_PAGES = re.compile(r"cp\d+|iso8859-\d+|koi8-[ru]|mac-(roman|cyrillic)|gb18030|big5hkscs|euc_jp")


class DocumentError(InvalidInput):
    """A document that cannot be used; `code` says why."""

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentLimits:
    """What is refused, before or while it is read."""

    max_bytes: int = 256_000_000
    max_characters: int = 20_000_000  # of a file's text
    max_pages: int = 10_000
    max_pictures: int = 2_000  # of a file; what is over is left out and named
    max_seconds: float = 120.0  # of the processor, for a PDF
    max_memory: int = 2**31  # bytes that a PDF may take while it is read


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    start: int
    level: int  # 1 is the highest
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Rows under names of columns: without them nobody can say what a row holds."""

    start: int  # where the row of names begins
    end: int
    columns: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """A place that a link can lead to: `file#name`."""

    start: int
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    start: int
    target: str  # as it is written


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Figure:
    """A picture: an address as it is written, or the picture itself."""

    start: int  # where in the text it stands
    end: int
    caption: str = ""
    target: str | None = None
    picture: Image.Image | None = None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Page:
    """`breaks` are the places where a block begins, ascending: the best places to cut."""

    number: int | None  # from 1; None in a format without pages
    text: str
    breaks: tuple[int, ...] = ()
    headings: tuple[Heading, ...] = ()
    tables: tuple[Table, ...] = ()
    anchors: tuple[Anchor, ...] = ()
    links: tuple[Link, ...] = ()
    figures: tuple[Figure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that a person should know of a document that was read all the same."""

    code: str
    reason: str


class Reader(Protocol):
    """Turns a file's bytes into pages: the same bytes, the same text, always."""

    def __call__(
        self,
        data: bytes,
        limits: DocumentLimits,
        note: Callable[[Note], object],
        *,
        only: int | None = None,
    ) -> Iterator[Page]:
        """Yield the pages, or that one of number `only`; raises DocumentError."""


def decoded(data: bytes, limits: DocumentLimits, *, declared: str | None = None) -> str:
    """Return the text of a file: UTF-16 by its mark, UTF-8, else `declared` or Windows-1252.

    What is no letter of it becomes U+FFFD.

    Line ends become a line feed, so that offsets are the same whoever wrote the file. Raises
    DocumentError for more than `max_characters`, and for what is no text.
    """
    text = _decoded(data, declared).replace("\r\n", "\n").replace("\r", "\n")
    check_length(len(text), limits)
    if len(_CONTROL.findall(text)) > len(text) * _MOST_CONTROL:
        raise DocumentError("document_not_text", "It holds bytes that are no text.")
    return text.replace("\0", " ")


def check_length(length: int, limits: DocumentLimits) -> None:
    """Raise DocumentError where a document has more characters than are allowed."""
    if length > limits.max_characters:
        raise DocumentError(
            "document_too_long",
            f"It has more than {limits.max_characters:,} characters.",
            hint="Split it, or raise DocumentLimits.max_characters.",
        )


def _decoded(data: bytes, declared: str | None) -> str:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    text = data.decode("utf-8-sig", errors="replace")
    lost = text.count("\ufffd")
    # UTF-8 of which a few bytes are damaged: what is none is rarely read so by chance
    if not lost or 2 * lost <= len(text) - len(text.encode("ascii", "ignore")):
        return text
    try:
        name = codecs.lookup(declared or _USUAL).name
    except LookupError:
        name = _USUAL
    name = _MEANT.get(name, name)
    return data.decode(name if _OF_PAGES.fullmatch(name) else _USUAL, errors="replace")
