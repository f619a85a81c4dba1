"""The pages of a PDF, read by pypdfium2 (PDFium, the engine of Chrome; no script of it is run).

It is called in a process of its own only (see pdf_child): what a stranger's file does to PDFium,
it does there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing

import pypdfium2
import pypdfium2.raw as pdfium
from PIL import Image

from triptych.retrieval.rag.document import (
    DocumentError,
    DocumentLimits,
    Figure,
    Note,
    Page,
)

_MANY_PIXELS = 50_000_000
_FEW_PIXELS = 32  # wide or high: lines, bullets and logos
_LONGEST_SIDE = 1024  # pixels of a picture, and of a page that is drawn because it holds no text
_BELOW = 48.0  # points under a picture in which its caption begins
_LONGEST_CAPTION = 500
# a hyphen at the end of a line, with which PDFium joins the two: before a small letter there is
# none in the word, but for the few that have one there
_SPLIT_WORD = re.compile(r"(?<=[^\W\d_])[\ufffe\x02](?=([^\W\d_]))")
_PARAGRAPH = re.compile(r"\n(?=\s*\n|\s*[A-ZÄÖÜ0-9•\-§])")


def pages_of_pdf(
    data: bytes,
    limits: DocumentLimits,
    note: Callable[[Note], object],
    *,
    only: int | None = None,
) -> Iterator[Page]:
    """Yield the pages of a PDF file, one at a time, each with its text and pictures.

    A page without text is drawn, and is a picture. Raises DocumentError: document_encrypted,
    document_damaged, document_too_long.
    """
    with closing(_open(data)) as document:
        count = len(document)
        if count > limits.max_pages:
            raise DocumentError(
                "document_too_long",
                f"It has {count:,} pages, expected at most {limits.max_pages:,}.",
                hint="Split it, or raise DocumentLimits.max_pages.",
            )
        without = pictures = 0
        for at in range(count) if only is None else range(only - 1, min(only, count)):
            page = _page(document, at, max(0, limits.max_pictures - pictures), note)
            pictures += len(page.figures)
            without += not page.text.strip()
            yield page
        if without and only is None:
            note(_no_text(without, count))
        if pictures >= limits.max_pictures:
            note(Note(code="pictures_left_out", reason=f"Only {pictures:,} pictures were taken."))


def _no_text(without: int, count: int) -> Note:
    return Note(
        code="pages_without_text",
        reason=f"{without:,} of {count:,} pages hold no text, as scans do: they are found as "
        "pictures only. To find their words, run an OCR program over the file first.",
    )


def _no_picture(number: int, lost: int) -> Note:
    return Note(
        code="picture_damaged",
        reason=f"Of the pictures on page {number:,}, {lost:,} cannot be decoded or are too large.",
    )


def _open(data: bytes) -> pypdfium2.PdfDocument:
    try:
        return pypdfium2.PdfDocument(data)
    except pypdfium2.PdfiumError as error:
        if getattr(error, "err_code", None) == pdfium.FPDF_ERR_PASSWORD:
            raise DocumentError(
                "document_encrypted",
                "It is encrypted, and cannot be read without its password.",
                hint="Save it without one.",
            ) from None
        raise DocumentError("document_damaged", "It is damaged, or no PDF.") from None


def _page(
    document: pypdfium2.PdfDocument, at: int, room: int, note: Callable[[Note], object]
) -> Page:
    number = at + 1
    try:
        with closing(document[at]) as page, closing(page.get_textpage()) as words:
            text = _clean(words.get_text_range())
            if text.strip():
                lost: list[object] = []
                figures = list(_figures(page, words, text, room, lost))
                if lost:
                    note(_no_picture(number, len(lost)))
            else:
                drawn = _drawn(page) if room else None
                figures = [] if drawn is None else [Figure(start=0, end=0, picture=drawn)]
    except pypdfium2.PdfiumError:
        note(Note(code="page_damaged", reason=f"Page {number:,} cannot be read."))
        return Page(number=number, text="")
    breaks = tuple(match.end() for match in _PARAGRAPH.finditer(text))
    return Page(number=number, text=text, breaks=breaks, figures=tuple(figures))


def _figures(
    page: pypdfium2.PdfPage,
    words: pypdfium2.PdfTextPage,
    text: str,
    room: int,
    lost: list[object],
) -> Iterator[Figure]:
    wanted = [pdfium.FPDF_PAGEOBJ_IMAGE]
    for found in page.get_objects(filter=wanted, max_depth=4):
        if room <= 0:
            return
        try:
            picture = _picture(found)
        except (pypdfium2.PdfiumError, ValueError, OSError):
            lost.append(found)
            continue
        if picture is None:
            continue
        room -= 1
        left, bottom, right, top = found.get_bounds()
        caption = _clean(words.get_text_bounded(left, bottom - _BELOW, right, bottom)).strip()
        above = _clean(words.get_text_bounded(0, top, page.get_width(), page.get_height()))
        start, end = _place(text, caption, above)
        yield Figure(start=start, end=end, caption=caption[:_LONGEST_CAPTION], picture=picture)


def _picture(found: pypdfium2.PdfObject) -> Image.Image | None:
    """Return the picture, None for one that is too small; raises for one that cannot be decoded."""
    assert isinstance(found, pypdfium2.PdfImage)
    width, height = found.get_px_size()
    if min(width, height) < _FEW_PIXELS:
        return None
    if width * height > _MANY_PIXELS:
        raise ValueError("too large")
    # not closed here: its memory may be the document's own
    picture: Image.Image = found.get_bitmap().to_pil().convert("RGB")
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE))
    return picture


def _drawn(page: pypdfium2.PdfPage) -> Image.Image | None:
    """Return the page as a person sees it, None for a blank one."""
    scale = min(_LONGEST_SIDE / max(*page.get_size(), 1.0), 4.0)
    with closing(page.render(scale=scale)) as bitmap:
        picture: Image.Image = bitmap.to_pil().convert("RGB")
    low_and_high = [picture.getchannel(band).getextrema() for band in "RGB"]
    return None if all(low == high for low, high in low_and_high) else picture


def _place(text: str, caption: str, above: str) -> tuple[int, int]:
    """Return where in the page's text a picture stands: its caption, else what is above it."""
    at = text.find(caption) if caption else -1
    if at >= 0:
        return at, at + len(caption)
    lines = above.strip().splitlines()
    at = text.find(lines[-1].strip()) if lines else -1
    return max(at, 0), max(at, 0)


def _clean(text: str) -> str:
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", " ")
    text = _SPLIT_WORD.sub(lambda mark: "" if mark[1].islower() else "-", text)
    return text.replace("\ufffe", "-").replace("\x02", "-")
