"""Is a page of a shape that its parser can read in reasonable time?

A parser of the standard compares a new element with those that it stands in, and an attribute with
the others of its tag: 100,000 nested elements, half a megabyte, take Lexbor over a minute.
"""

from __future__ import annotations

import re
from collections import Counter

from triptych.retrieval.rag.document import DocumentError

_DEEPEST = 10_000
_MOST_ATTRIBUTES = 10_000
_TAG = re.compile(r"<(/?)([a-zA-Z][^\s/>]*)")
_IN_TAG = re.compile(r"=\s*\"[^\"]*\"|=\s*'[^']*'|\s[^\s>=/]|/?>")
_NOT_NESTED = frozenset(
    {
        "p", "li", "td", "th", "tr", "dt", "dd", "option", "thead", "tbody", "tfoot", "area",
        "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track",
        "wbr",
    }
)  # fmt: skip


def check_shape(source: str) -> None:
    """Raise DocumentError for more than 10,000 elements in each other, or attributes of a tag.

    Takes one pass. Nesting is counted from tags that were opened and not closed.
    """
    opened: Counter[str] = Counter()
    depth = place = 0
    while (tag := _TAG.search(source, place)) is not None:
        name = tag[2].lower()
        place, count, closed = _end_of(source, tag.end())
        if count > _MOST_ATTRIBUTES:
            raise _refused(f"a tag of more than {_MOST_ATTRIBUTES:,} attributes")
        if tag[1]:
            depth -= min(opened[name], 1)
            opened[name] -= min(opened[name], 1)
        elif name not in _NOT_NESTED and not (closed and (opened["svg"] or opened["math"])):
            opened[name] += 1
            depth += 1
        if depth > _DEEPEST:
            raise _refused(f"elements that are nested deeper than {_DEEPEST:,}")


def _end_of(source: str, place: int) -> tuple[int, int, bool]:
    """Return where a tag ends, how many attributes it has, and whether it ends in />."""
    count = 0
    while (found := _IN_TAG.search(source, place)) is not None:
        place = found.end()
        if found[0] in (">", "/>"):
            return place, count, found[0] == "/>"
        count += found[0][0].isspace()
    return len(source), count, False


def _refused(what: str) -> DocumentError:
    return DocumentError("document_too_deep", f"It has {what}, as no page needs.")
