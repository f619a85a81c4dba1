"""Markdown, read by markdown-it-py; its own source is the text, so that a citation can be found."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import accumulate

from markdown_it import MarkdownIt
from markdown_it.token import Token

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
from triptych.retrieval.rag.html import elements

_OWN_NAME = re.compile(r"\{:?\s*#([^\s{}]+)[^{}]*\}\s*$")  # not CommonMark, but widely written
_NO_SLUG = re.compile(r"[^\w\- ]")
# YAML or TOML for a generator of sites; read as Markdown, its last line underlines a heading
_FRONT = re.compile(
    r"(---|\+\+\+)[ \t]*\n(?=\s*(?:#|[\w\"'.-]+[ \t]*[:=])).*?^\1[ \t]*(?:\n|\Z)",
    re.DOTALL | re.MULTILINE,
)
_TITLE = re.compile(r"^title[ \t]*[:=][ \t]*([^\s>|].*)", re.MULTILINE)


def read_markdown(
    data: bytes,
    limits: DocumentLimits,
    note: Callable[[Note], object],
    *,
    only: int | None = None,
) -> Iterator[Page]:
    """Yield the one page of a Markdown file, whose text is the file as it is."""
    text = decoded(data, limits)
    yield _Markdown(text).page()


class _Markdown:
    def __init__(self, text: str) -> None:
        self.text = text
        self._line_starts = [0, *accumulate(len(line) + 1 for line in text.split("\n"))]
        self._breaks: set[int] = set()
        self._headings: list[Heading] = []
        self._tables: list[Table] = []
        self._columns: list[str] = []  # of the last table
        self._anchors: list[Anchor] = []
        self._links: list[Link] = []
        self._figures: list[Figure] = []
        self._slugs: dict[str, int] = {}

    def page(self) -> Page:
        parser = MarkdownIt("commonmark").enable("table")
        # an address is never followed, only compared: it is wanted as it is written
        parser.normalizeLink = lambda url: url  # type: ignore[method-assign]
        parser.validateLink = lambda url: True  # type: ignore[method-assign]
        tokens = parser.parse(self._without_front())
        for before, token in zip([None, *tokens], tokens, strict=False):
            if token.map is not None:
                self._block(before, token)
        return Page(
            number=None,
            text=self.text,
            breaks=tuple(sorted(self._breaks)),
            headings=tuple(self._headings),
            tables=tuple(self._tables),
            anchors=tuple(self._anchors),
            links=tuple(self._links),
            figures=tuple(self._figures),
        )

    def _without_front(self) -> str:
        """Return the text with empty lines for its front matter, whose title is a heading."""
        front = _FRONT.match(self.text)
        if front is None:
            return self.text
        self._breaks.add(front.end())
        title = _TITLE.search(front[0])
        if title is not None:
            self._headings.append(Heading(start=0, level=1, text=title[1].strip("\"' ")))
        return "\n" * front[0].count("\n") + self.text[front.end() :]

    def _block(self, before: Token | None, token: Token) -> None:
        assert token.map is not None
        start, end = (self._at(line) for line in token.map)
        self._breaks.add(start)
        if token.type == "table_open":
            self._columns = []
            self._tables.append(Table(start=start, end=end, columns=""))
        elif token.type == "tbody_open":
            self._tables[-1] = replace(self._tables[-1], columns=" | ".join(self._columns))
        elif token.type == "inline":
            if before is not None and before.type == "heading_open":
                self._heading(start, int(before.tag[1]), token)
            elif before is not None and before.type == "th_open":
                self._columns.append(_words(token))
            place = start
            for child in token.children or []:
                place = self._inline(child, place, end)
        elif token.type == "html_block":
            self._html(token.content, start, end)

    def _heading(self, start: int, level: int, token: Token) -> None:
        words = _words(token)
        if own := _OWN_NAME.search(words):
            words = words[: own.start()].rstrip()
            self._anchors.append(Anchor(start=start, name=own[1]))
        self._title(start, level, words)

    def _title(self, start: int, level: int, words: str) -> None:
        self._headings.append(Heading(start=start, level=level, text=words))
        slug = _NO_SLUG.sub("", words.lower()).replace(" ", "-")
        count = self._slugs.get(slug, 0)
        self._slugs[slug] = count + 1
        self._anchors.append(Anchor(start=start, name=f"{slug}-{count}" if count else slug))

    def _inline(self, child: Token, place: int, end: int) -> int:
        """Take in a link or a picture; return where to look for the next."""
        if child.type == "image":
            target = str(child.attrs.get("src", ""))
            at = self._find(target, place, end)
            title = str(child.attrs.get("title", ""))
            caption = " ".join(filter(None, (_words(child), title)))
            self._figures.append(Figure(start=at, end=end, caption=caption, target=target))
            return at
        if child.type == "link_open":
            target = str(child.attrs.get("href", ""))
            at = self._find(target, place, end)
            self._links.append(Link(start=at, target=target))
            return at
        if child.type == "html_inline":
            return self._html(child.content, place, end)
        return place

    def _html(self, source: str, start: int, end: int) -> int:
        place = start
        for tag, attributes, words in elements(source):
            target = attributes.get("src" if tag == "img" else "href") or ""
            name = attributes.get("id") or (tag == "a" and attributes.get("name"))
            if not (target or name or words):
                continue
            opening = re.compile(rf"<{re.escape(tag)}\b", re.IGNORECASE).search(
                self.text, place, end
            )
            at = self._find(target, opening.start() if opening else place, end)
            if name:
                self._anchors.append(Anchor(start=at, name=str(name)))
            if words:
                self._title(at, int(tag[1]), words)
            elif tag == "img":
                caption = attributes.get("alt") or ""
                self._figures.append(Figure(start=at, end=end, caption=caption, target=target))
            elif target:
                self._links.append(Link(start=at, target=target))
            place = max(at, opening.end() if opening else place)
        return place

    def _find(self, target: str, start: int, end: int) -> int:
        """Return where the address stands in its block; one that stands elsewhere, the block's."""
        at = self.text.find(target, start, end) if target else -1
        return start if at < 0 else at

    def _at(self, line: int) -> int:
        return min(self._line_starts[min(line, len(self._line_starts) - 1)], len(self.text))


def _words(token: Token) -> str:
    # a line end in between has no content of its own
    return "".join(
        child.content or " " * (child.type == "softbreak") for child in token.children or []
    )
