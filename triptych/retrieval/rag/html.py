"""HTML, read by selectolax (Lexbor: the parser of the standard); scripts are no text, never run."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import islice

from selectolax.lexbor import LexborHTMLParser, LexborNode

from triptych.retrieval.rag.document import (
    Anchor,
    DocumentLimits,
    Figure,
    Heading,
    Link,
    Note,
    Page,
    Table,
    decoded,
)
from triptych.retrieval.rag.html_shape import check_shape

_SKIPPED = frozenset(
    {
        "script", "style", "noscript", "template", "iframe", "object", "embed", "applet", "head",
        "svg", "math", "canvas", "audio", "video", "select", "textarea", "button", "input",
    }
)  # fmt: skip
_BLOCKS = frozenset(
    {
        "address", "article", "aside", "blockquote", "body", "br", "caption", "center", "dd",
        "details", "dialog", "dir", "div", "dl", "dt", "fieldset", "figcaption", "figure",
        "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hgroup", "hr", "legend",
        "li", "main", "menu", "nav", "ol", "optgroup", "option", "p", "pre", "search", "section",
        "summary", "table", "tbody", "tfoot", "thead", "tr", "ul",
    }
)  # fmt: skip
_CELLS = frozenset({"td", "th"})
HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_HIDDEN = re.compile(r"(?:display\s*:\s*none|visibility\s*:\s*hidden)", re.IGNORECASE)
_CHARSET = re.compile(
    rb"<(?:meta|\?xml)[^>]{0,200}(?:charset|encoding)\s*=\s*[\"']?\s*([\w-]{1,40})", re.IGNORECASE
)
_BLANKS = re.compile(r"[ \t\n\f\u00a0]+")
_UNSEEN = dict.fromkeys((0xAD, 0x200B, 0x2060, 0xFEFF))  # where a word may break, or may not
_LONGEST_CAPTION = 500
_LONGEST_NAME = 1_000  # characters of a heading or of the names of columns: pages nest them, to
_MOST_NODES = 1_000  # make a reader copy all of the text for each


def read_html(
    data: bytes,
    limits: DocumentLimits,
    note: Callable[[Note], object],
    *,
    only: int | None = None,
) -> Iterator[Page]:
    """Yield the one page of an HTML file: the text that a person would see, block by block."""
    declared = _CHARSET.search(data[:4096])
    source = decoded(data, limits, declared=declared[1].decode("ascii") if declared else None)
    check_shape(source)
    parsed = LexborHTMLParser(source)
    yield _Html(title=_title(parsed)).page(parsed.body)


def elements(source: str) -> Iterator[tuple[str, Mapping[str, str | None], str]]:
    """Yield tag, attributes and, of a heading, the words of each element, in order."""
    check_shape(source)
    for node in LexborHTMLParser(source).css("*"):
        yield node.tag or "", node.attributes, _words(node) if node.tag in HEADINGS else ""


class _Html:
    def __init__(self, *, title: str) -> None:
        self._parts: list[str] = []
        self._starts: list[int] = []  # of the parts
        self._length = 0
        self._breaks: list[int] = []
        # the first <h1> takes its place
        self._headings = [Heading(start=0, level=1, text=title)] if title else []
        self._titles: list[int] = []  # which of them have not ended
        self._tables: list[Table] = []
        self._begun: list[tuple[int, str | None]] = []  # tables that have not ended, and columns
        self._anchors: list[Anchor] = []
        self._links: list[Link] = []
        self._figures: list[Figure] = []
        self._captions: dict[int, str] = {}  # of figures, each of which may hold many pictures
        self._in_pre = 0
        self._row = 0  # where the row of a table begins
        self._cell = 0  # where the text of a cell that is not its row's first begins

    def page(self, body: LexborNode | None) -> Page:
        # a stack, not recursion: a page may be nested deeper than Python goes
        stack: list[tuple[LexborNode, bool]] = [(body, True)] if body is not None else []
        while stack:
            node, entering = stack.pop()
            if not entering:
                self._leave(node)
            elif node.is_text_node:
                self._write((node.text_content or "").translate(_UNSEEN))
            elif node.is_element_node and not _is_hidden(node):
                self._enter(node)
                stack.append((node, False))
                stack += [(child, True) for child in reversed(_children(node))]
        return Page(
            number=None,
            text="".join(self._parts),
            breaks=tuple(dict.fromkeys(self._breaks)),
            headings=tuple(self._headings),
            tables=tuple(sorted(self._tables, key=lambda table: table.start)),
            anchors=tuple(self._anchors),
            links=tuple(self._links),
            figures=tuple(self._figures),
        )

    def _enter(self, node: LexborNode) -> None:
        tag = node.tag or ""
        if tag in _BLOCKS:
            self._break()
        elif tag in _CELLS:
            self._begin_cell()
        if tag == "tr":
            self._row = self._length
        elif tag == "table":
            self._begun.append((self._length, None))
        attributes = node.attributes
        if name := attributes.get("id") or (tag == "a" and attributes.get("name")):
            self._anchors.append(Anchor(start=self._length, name=str(name)))
        if tag == "pre":
            self._in_pre += 1
        elif tag in HEADINGS:
            self._titles.append(len(self._headings))
            self._headings.append(Heading(start=self._length, level=int(tag[1]), text=""))
        elif tag == "a" and (target := attributes.get("href")):
            self._links.append(Link(start=self._length, target=target))
        elif tag == "img" and (target := attributes.get("src")):
            self._figure(node, target, attributes.get("alt") or attributes.get("title") or "")

    def _leave(self, node: LexborNode) -> None:
        if node.tag == "pre":
            self._in_pre -= 1
        if node.tag in HEADINGS:
            at = self._titles.pop()
            words = " ".join(self._since(self._headings[at].start).split())
            self._headings[at] = replace(self._headings[at], text=words)
        if node.tag == "tr":
            self._name_columns(node)
            self._cell = 0
            if self._parts and self._parts[-1] == "\t":  # its last cells are empty
                self._parts[-1] = "\n"
        if node.tag in _BLOCKS:
            self._break()
        elif node.tag in _CELLS:
            self._end_line()
        if node.tag == "table":
            start, columns = self._begun.pop()
            if columns:
                self._tables.append(Table(start=start, end=self._length, columns=columns))

    def _name_columns(self, row: LexborNode) -> None:
        """Take the first row of a table for the names of its columns, if all its cells are such."""
        if not self._begun or self._begun[-1][1] is not None:
            return
        cells = [cell.tag for cell in _children(row) if cell.is_element_node]
        names = self._since(self._row).split("\t") if {*cells} == {"th"} else []
        columns = " | ".join(" ".join(name.split()) for name in names) if len(names) > 1 else ""
        self._begun[-1] = (self._begun[-1][0], columns)

    def _since(self, start: int) -> str:
        """Return the first that was written from there on: what is hidden is not in it."""
        written, length = [], 0
        for at in range(bisect_left(self._starts, start), len(self._parts)):
            written.append(self._parts[at][:_LONGEST_NAME])
            length += len(written[-1])
            if length > _LONGEST_NAME:
                break
        return "".join(written)[:_LONGEST_NAME]

    def _figure(self, node: LexborNode, target: str, alt: str) -> None:
        below = self._caption(node)
        words = below if alt in below else " ".join(filter(None, (alt, below)))
        at = self._length
        self._figures.append(
            Figure(start=at, end=at, caption=words[:_LONGEST_CAPTION], target=target)
        )

    def _caption(self, node: LexborNode) -> str:
        """Return the caption of the figure that the picture stands in."""
        above = node.parent
        for _ in range(4):
            if above is None or above.tag == "figure":
                break
            above = above.parent
        if above is None or above.tag != "figure":
            return ""
        if above.mem_id not in self._captions:
            found = above.css_first("figcaption")
            self._captions[above.mem_id] = "" if found is None else _words(found, between=" ")
        return self._captions[above.mem_id]

    def _write(self, text: str) -> None:
        if not self._in_pre:
            text = _BLANKS.sub(" ", text)
            if not self._length or self._parts[-1].endswith(("\n", "\t", " ")):
                text = text.removeprefix(" ")
        if text:
            self._append(text)

    def _append(self, text: str) -> None:
        self._parts.append(text)
        self._starts.append(self._length)
        self._length += len(text)

    def _begin_cell(self) -> None:
        """Part it from the cell before by a tab, as a browser copies it: a row stays one line."""
        if self._length == self._row:
            return  # nothing is before it
        if self._parts[-1] == "\n":
            self._parts[-1] = "\t"
        self._cell = self._length

    def _break(self) -> None:
        self._end_line()
        self._breaks.append(self._length)

    def _end_line(self) -> None:
        # the first block of a cell stands in its row
        if self._length != self._cell and not self._parts[-1].endswith("\n"):
            self._append("\n")


def _children(node: LexborNode) -> list[LexborNode]:
    children = []
    child = node.first_child
    while child is not None:
        children.append(child)
        child = child.next
    return children


def _is_hidden(node: LexborNode) -> bool:
    if node.tag in _SKIPPED:
        return True
    attributes = node.attributes
    # what no person sees is the usual way to speak to a machine behind their back
    return "hidden" in attributes or _HIDDEN.search(attributes.get("style") or "") is not None


def _title(parsed: LexborHTMLParser) -> str:
    """Return what stands in the tab of a browser."""
    found = None if parsed.head is None else parsed.head.css_first("title")
    return "" if found is None else _words(found)


def _words(node: LexborNode, between: str = "") -> str:
    """Return the first words that stand in an element."""
    inside = islice(node.traverse(include_text=True), _MOST_NODES)
    written = (one.text_content or "" for one in inside if one.is_text_node)
    return " ".join(between.join(written)[:_LONGEST_NAME].split())
