"""Text on pictures: fonts that have the letters, lines that fit."""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

from PIL import ImageFont

Font: TypeAlias = "ImageFont.FreeTypeFont | ImageFont.ImageFont"

# tried in this order where Pillow's own font lacks a letter; usual on Linux, macOS and Windows
_SYSTEM_FONTS = (
    "NotoSans-Regular.ttf",
    "DejaVuSans.ttf",
    "NotoSansCJK-Regular.ttc",
    "Arial Unicode.ttf",
    "msgothic.ttc",
    "seguisym.ttf",
)
_NO_LETTER = "\U0010ffff"
_STAND_IN = "·"
_MOST_LETTERS = 500  # more is never shown, and measuring it takes seconds


def fitting(text: str, *, size: int) -> tuple[str, Font]:
    """Return a font for `text`, and `text` with a dot for each letter that no font has."""
    # the true minus is in few fonts
    text = text[:_MOST_LETTERS].replace("\u2212", "-")
    text = "".join(letter if letter.isprintable() else " " for letter in text)
    fonts = [_font(None, size), *(_font(name, size) for name in _SYSTEM_FONTS)]
    present = [font for font in fonts if font is not None]
    lacking = [sum(not _has(font, letter) for letter in text) for font in present]
    best = present[lacking.index(min(lacking))]
    return "".join(letter if _has(best, letter) else _STAND_IN for letter in text), best


def clipped(text: str, font: Font, *, width: int) -> str:
    """Return `text`, its middle left out where it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    for kept in range(len(text) - 1, 1, -1):
        short = f"{text[: (kept + 1) // 2]}…{text[len(text) - kept // 2 :]}"
        if font.getlength(short) <= width:
            return short
    return text[:1]


def wrapped(text: str, font: Font, *, width: int, num_lines: int) -> list[str]:
    """Return at most `num_lines` lines of `text`; words that are too wide are broken."""
    lines = [""]
    for word in text.split():
        for piece in _pieces(word, font, width):
            longer = f"{lines[-1]} {piece}".strip()
            if font.getlength(longer) <= width:
                lines[-1] = longer
            else:
                lines.append(piece)
    if len(lines) > num_lines:
        lines[num_lines - 1] = clipped(" ".join(lines[num_lines - 1 :]), font, width=width)
    return lines[:num_lines]


def _pieces(word: str, font: Font, width: int) -> list[str]:
    pieces = [""]
    for letter in word:
        if pieces[-1] and font.getlength(pieces[-1] + letter) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


@lru_cache(maxsize=64)
def _font(name: str | None, size: int) -> Font | None:
    if name is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(name, size)
    except OSError:
        return None


@lru_cache(maxsize=2**14)
def _has(font: Font, letter: str) -> bool:
    if letter.isspace() or letter == _STAND_IN:
        return True
    return _drawn(font, letter) != _drawn(font, _NO_LETTER)


def _drawn(font: Font, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)
