"""Plain text: paragraphs, and nothing else that could be told from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from triptych.retrieval.rag.document import DocumentLimits, Note, Page, decoded

_PARAGRAPH = re.compile(r"\n[ \t]*\n\s*")


def read_plain(
    data: bytes,
    limits: DocumentLimits,
    note: Callable[[Note], object],
    *,
    only: int | None = None,
) -> Iterator[Page]:
    """Yield the one page of a text file, whose text is the file as it is."""
    text = decoded(data, limits)
    breaks = tuple(match.end() for match in _PARAGRAPH.finditer(text))
    yield Page(number=None, text=text, breaks=breaks)
