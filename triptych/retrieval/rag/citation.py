"""Where a passage stands, and what stands there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from triptych.registry import Registry
from triptych.retrieval.rag.document import (
    DocumentError,
    DocumentLimits,
    Note,
    Page,
    Reader,
    check_length,
)
from triptych.retrieval.rag.inside import read_file
from triptych.types import Metadata

READERS = Registry(
    "document format",
    {
        "markdown": "triptych.retrieval.rag.markdown:read_markdown",
        "html": "triptych.retrieval.rag.html:read_html",
        "pdf": "triptych.retrieval.rag.pdf:read_pdf",
        "text": "triptych.retrieval.rag.plain:read_plain",
    },
    extras={"markdown": "documents", "html": "documents", "pdf": "documents"},
)
SUFFIXES = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".xhtml": "html",
    ".pdf": "pdf",
    ".txt": "text",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Citation:
    """Characters `start` to `end` of a page of a file whose bytes had the hash `content`."""

    document: str  # an absolute path
    content: str  # SHA-256 of the file, hex
    page: int | None  # from 1; None in a format without pages
    start: int
    end: int

    @classmethod
    def of(cls, metadata: Metadata) -> Citation | None:
        """Return what the metadata of an item say, None for an item that is of no document."""
        if not isinstance(metadata.get("document"), str):
            return None
        names = ("document", "content", "page", "start", "end")
        return cls(**{name: metadata.get(name) for name in names})  # type: ignore[arg-type]

    def metadata(self) -> dict[str, Any]:
        """Return what `of` reads."""
        return {
            "document": self.document,
            "content": self.content,
            "page": self.page,
            "start": self.start,
            "end": self.end,
        }

    def text(self, limits: DocumentLimits | None = None) -> str:
        """Return exactly what stands there, read from the file again.

        Raises DocumentError where the file is not what was indexed: document_changed, or what
        reading it raises.
        """
        limits = limits or DocumentLimits()
        data = read_file(Path(self.document), max_bytes=limits.max_bytes)
        if sha256(data).hexdigest() != self.content:
            raise DocumentError(
                "document_changed",
                f"{self.document} is not what was indexed.",
                hint="Index it again.",
            )
        for page in pages_of(Path(self.document), data, limits, lambda note: None, only=self.page):
            if page.number == self.page:
                return page.text[self.start : self.end]
        raise DocumentError("document_changed", f"{self.document} has no page {self.page}.")

    def __str__(self) -> str:
        page = "" if self.page is None else f", page {self.page}"
        name = Path(self.document).name.encode("utf-8", "backslashreplace").decode()
        # a picture without a caption stands between two characters
        place = f", characters {self.start}-{self.end}" if self.start < self.end else ""
        return f"{name}{page}{place}"


def pages_of(
    path: Path,
    data: bytes,
    limits: DocumentLimits,
    note: Callable[[Note], object],
    *,
    only: int | None = None,
) -> Iterator[Page]:
    """Yield the pages of a file, or `only` one, by the reader that its name asks for.

    Raises DocumentError, and NotAvailable where the reader's library is missing.
    """
    kind = SUFFIXES.get(path.suffix.lower())
    if kind is None:
        raise DocumentError(
            "document_unknown",
            f"Got a file {path.suffix or 'without a suffix'}, expected {', '.join(SUFFIXES)}.",
            hint="Save it as one of these, or convert it: pandoc FILE -o FILE.md",
        )
    reader: Reader = READERS.resolve(kind)
    length = 0
    for page in reader(data, limits, note, only=only):
        length += len(page.text)
        check_length(length, limits)
        yield page
