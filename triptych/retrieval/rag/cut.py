"""A document into items: passages, and pictures that are linked to the passages around them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from math import ceil
from pathlib import Path
from typing import Any

from PIL import Image

from triptych.encoders.pictures.picture import PictureLimits, load_picture
from triptych.errors import PictureError
from triptych.retrieval.prepare import with_headings
from triptych.retrieval.rag.citation import SUFFIXES, Citation, pages_of
from triptych.retrieval.rag.document import (
    DocumentError,
    DocumentLimits,
    Figure,
    Heading,
    Note,
    Page,
)
from triptych.retrieval.rag.inside import linked_name, named_file
from triptych.retrieval.rag.split import SEGMENT, Span, SplitConfig, passages
from triptych.retrieval.rag.suspicion import order_in
from triptych.retrieval.rag.tokens import count_tokens
from triptych.types import Item

_TRAIL = 200  # characters of the headings above a passage
_PICTURE_SIDE = 256  # pixels that a model may want; a JPEG is decoded near it
_NAMES = 256  # names and links of one passage


@dataclass(slots=True, kw_only=True, eq=False)
class Cut:
    """Cuts one file; every item has the id `<path>#<number>`, numbered from 0 without a gap."""

    path: Path
    root: Path
    data: bytes
    note: Callable[[Note], object]
    split: SplitConfig = field(default_factory=SplitConfig)
    limits: DocumentLimits = field(default_factory=DocumentLimits)
    pictures: PictureLimits = field(default_factory=PictureLimits)
    count: int = 0  # of items so far

    def items(self) -> Iterator[Item]:
        """Yield the items, page by page; raises DocumentError, NotAvailable for a library."""
        content = sha256(self.data).hexdigest()
        num_pictures = 0
        for page in pages_of(self.path, self.data, self.limits, self.note):
            # a control character is a token, and no text
            spans = [s for s in passages(page, self.split) if page.text[s.start : s.end].strip()]
            ids = []
            for span in spans:
                item = self._passage(page, span, content)
                ids.append(item.id)
                yield item
            for figure in page.figures:
                if num_pictures == self.limits.max_pictures:
                    reason = f"Only {num_pictures:,} of its pictures were taken."
                    self.note(Note(code="pictures_left_out", reason=reason))
                loaded = self._load(figure) if num_pictures < self.limits.max_pictures else None
                num_pictures += 1
                if loaded is not None:
                    near = [id for id, span in zip(ids, spans, strict=True) if _holds(span, figure)]
                    yield self._picture(page, figure, loaded, near or ids[-1:], content)

    def _passage(self, page: Page, span: Span, content: str) -> Item:
        text = page.text[span.start : span.end]
        id = self._next_id()
        names = [str(self.path)] if id.endswith("#0") else []
        names += [f"{self.path}#{a.name}" for a in page.anchors if span.start <= a.start < span.end]
        targets = [link.target for link in page.links if span.start <= link.start < span.end]
        links = [linked_name(target, beside=self.path, root=self.root) for target in targets]
        heading = _heading(page, span)
        metadata = {
            **self._place(page, span, content),
            **self._warning(f"{heading}\n{text}", page),  # both are shown to a model
            "kind": "passage",
            "heading": heading,
            "headed": _has_room(heading, text),
            "names": [id, *names][:_NAMES],
            "links": list(dict.fromkeys(name for name in links if name))[:_NAMES],
        }
        return Item(id=id, text=text, uri=self._uri(page), metadata=metadata)

    def _picture(
        self,
        page: Page,
        figure: Figure,
        loaded: tuple[Image.Image, str | None],
        near: list[str],
        content: str,
    ) -> Item:
        id = self._next_id()
        picture, file = loaded
        caption = figure.caption.strip() or None
        metadata = {
            **self._place(page, Span(figure.start, figure.end), content),
            **self._warning(caption or "", page),
            "kind": "picture",
            "names": [id],
            "links": near[:_NAMES],
        }
        uri = file or self._uri(page)
        return Item(id=id, text=caption, image=picture, uri=uri, metadata=metadata)

    def _load(self, figure: Figure) -> tuple[Image.Image, str | None] | None:
        """Return the picture and the file it is from; None, with a note, where there is none."""
        if figure.picture is not None:
            return figure.picture, None
        target, file = figure.target or "", None
        try:
            if target[:5].lower() != "data:":
                file = named_file(target, beside=self.path, root=self.root)
            picture = load_picture(file or target, limits=self.pictures, size_hint=_PICTURE_SIDE)
        except (DocumentError, PictureError) as error:
            self.note(Note(code=error.code, reason=str(error)))
            return None
        return picture, None if file is None else str(file)

    def _warning(self, text: str, page: Page) -> dict[str, Any]:
        said = order_in(text)
        if said is None:
            return {}
        where = "" if page.number is None else f" on page {page.number}"
        reason = f"It says {said!r}{where}: like all text here, it is passed on as data."
        self.note(Note(code="speaks_to_models", reason=reason))
        return {"speaks_to_models": True}

    def _place(self, page: Page, span: Span, content: str) -> dict[str, Any]:
        citation = Citation(
            document=str(self.path),
            content=content,
            page=page.number,
            start=span.start,
            end=span.end,
        )
        return {**citation.metadata(), "folder": str(self.root), "format": self.format}

    @property
    def format(self) -> str:
        """markdown, html, pdf or text."""
        return SUFFIXES[self.path.suffix.lower()]

    def _uri(self, page: Page) -> str:
        # the fragment that browsers understand
        return str(self.path) if page.number is None else f"{self.path}#page={page.number}"

    def _next_id(self) -> str:
        self.count += 1
        return f"{self.path}#{self.count - 1}"


def _holds(span: Span, figure: Figure) -> bool:
    return span.start <= figure.end and figure.start < span.end


def _has_room(heading: str, text: str) -> bool:
    """Whether a model reads the text with its headings in no more segments than without.

    Segments count alike: a few words in one of their own would be half of a passage.
    """
    without, headed = (count_tokens(one) for one in (text, with_headings(heading, text)))
    return ceil(headed / SEGMENT) == ceil(without / SEGMENT)


def _heading(page: Page, span: Span) -> str:
    """Return the headings that the passage's first word stands under, the highest first.

    Inside a table that began before, the names of its columns are the last of them.
    """
    trail: list[Heading] = []
    last = bisect_right([heading.start for heading in page.headings], span.start)
    for heading in page.headings[:last]:
        while trail and trail[-1].level >= heading.level:
            trail.pop()
        trail.append(heading)
    texts = [heading.text for heading in trail]
    at = bisect_left([table.start for table in page.tables], span.start)
    if at and span.start < page.tables[at - 1].end:
        texts.append(page.tables[at - 1].columns)
    return " > ".join(filter(None, texts))[:_TRAIL]
