"""A contact sheet: what was asked at the left, what was found beside it, query below query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image, ImageDraw, ImageOps

from triptych.retrieval.display.lettering import clipped, fitting, wrapped

COLUMNS = 8
"""Hits side by side; more go on below."""

_CARD = 200  # side of a card, in pixels
_GAP = 16
_ASKED = 240  # width of the column at the left
_BELOW = 52  # room for score and caption
_LINE_HEIGHT = _CARD + _BELOW + _GAP
_SMALL = 72  # side of a query's picture

_PAPER, _TINT, _INK, _GREY = "#ffffff", "#f1f3f5", "#212529", "#868e96"
_LINE, _BLUE, _RED = "#dee2e6", "#1c7ed6", "#c92a2a"


@dataclass(frozen=True, slots=True, eq=False)
class Tile:
    """One hit; without a picture its caption is shown as the text that was found."""

    picture: Image.Image | None
    score: float
    caption: str


@dataclass(frozen=True, slots=True, eq=False)
class SheetRow:
    """One query; a line of `title` that begins with a minus is drawn in red."""

    title: str
    query_pictures: Sequence[Image.Image] = ()
    tiles: Sequence[Tile] = field(default_factory=tuple)


def contact_sheet(rows: Sequence[SheetRow]) -> Image.Image:
    """Return the sheet, RGB; no rows give a sheet that says so."""
    rows = rows or [SheetRow(title="Nothing was asked.")]
    num_columns = min(max(1, *(len(row.tiles) for row in rows)), COLUMNS)
    heights = [_height(row) for row in rows]
    width = _ASKED + num_columns * (_CARD + _GAP) + 2 * _GAP
    sheet = Image.new("RGB", (width, sum(heights)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        top = sum(heights[:number])
        if number:
            draw.line((_GAP, top, width - _GAP, top), fill=_LINE)
        _draw_query(sheet, row, top=top + _GAP, bottom=top + heights[number] - _GAP)
        for at, tile in enumerate(row.tiles):
            line, column = divmod(at, COLUMNS)
            left = _ASKED + 2 * _GAP + column * (_CARD + _GAP)
            _draw_tile(sheet, tile, left=left, top=top + _GAP + line * _LINE_HEIGHT)
        if not row.tiles:
            text, font = fitting("Nothing found.", size=16)
            draw.text((_ASKED + 2 * _GAP, top + _GAP + 2), text, _GREY, font)
    return sheet


def _height(row: SheetRow) -> int:
    if not row.tiles and not row.query_pictures:
        return _CARD // 2 + 2 * _GAP
    return max(1, -(-len(row.tiles) // COLUMNS)) * _LINE_HEIGHT + _GAP


def _draw_query(sheet: Image.Image, row: SheetRow, *, top: int, bottom: int) -> None:
    draw = ImageDraw.Draw(sheet)
    num_lines = 3 if row.query_pictures else 7
    for part in row.title.splitlines() or [""]:
        text, font = fitting(part, size=20)
        colour = _RED if part.lstrip().startswith(("-", "−")) else _INK
        for line in wrapped(text, font, width=_ASKED - _GAP, num_lines=num_lines):
            if top + 28 > bottom:
                return
            draw.text((_GAP, top), line, colour, font)
            top += 28
    per_row = (_ASKED - _GAP) // (_SMALL + 4)
    for number, picture in enumerate(row.query_pictures):
        y = top + 6 + number // per_row * (_SMALL + 4)
        if y + _SMALL > bottom:
            return
        small = ImageOps.fit(picture.convert("RGB"), (_SMALL, _SMALL))
        _paste_rounded(sheet, small, (_GAP + number % per_row * (_SMALL + 4), y), radius=6)


def _draw_tile(sheet: Image.Image, tile: Tile, *, left: int, top: int) -> None:
    card = Image.new("RGB", (_CARD, _CARD), _TINT)
    if tile.picture is None:
        _draw_passage(card, tile.caption)
    else:
        small = _contained(tile.picture)
        card.paste(small, ((_CARD - small.width) // 2, (_CARD - small.height) // 2))
    _paste_rounded(sheet, card, (left, top), radius=8)
    draw = ImageDraw.Draw(sheet)
    below = top + _CARD + 6
    score, font = fitting(f"{tile.score:.3f}", size=16)
    draw.text((left, below), score, _INK, font)
    _draw_bar(draw, tile.score, (left + 64, below + 8))
    if tile.picture is not None:
        text, font = fitting(tile.caption, size=14)
        draw.text((left, below + 24), clipped(text, font, width=_CARD), _GREY, font)


def _draw_passage(card: Image.Image, words: str) -> None:
    text, font = fitting(words, size=15)
    draw = ImageDraw.Draw(card)
    for number, line in enumerate(wrapped(text, font, width=_CARD - 24, num_lines=8)):
        draw.text((12, 12 + number * 22), line, _INK, font)


def _draw_bar(draw: ImageDraw.ImageDraw, score: float, at: tuple[int, int]) -> None:
    """Draw a cosine as a bar; one below 0 stays empty."""
    x, y = at
    full = _CARD - 64
    draw.rounded_rectangle((x, y, x + full, y + 4), 2, fill=_LINE)
    share = min(max(score, 0.0), 1.0) if score == score else 0.0
    if share * full >= 4:
        draw.rounded_rectangle((x, y, x + round(share * full), y + 4), 2, fill=_BLUE)


def _contained(picture: Image.Image) -> Image.Image:
    """Return a copy that fits a card, not enlarged more than four times, at least one pixel."""
    scale = min(_CARD / picture.width, _CARD / picture.height, 4.0)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGB").resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)


def _paste_rounded(
    sheet: Image.Image, picture: Image.Image, at: tuple[int, int], *, radius: int
) -> None:
    mask = Image.new("L", (picture.width * 2, picture.height * 2))
    box = (0, 0, mask.width - 1, mask.height - 1)
    ImageDraw.Draw(mask).rounded_rectangle(box, radius * 2, fill=255)
    sheet.paste(picture, at, mask.resize(picture.size, Image.Resampling.BOX))
