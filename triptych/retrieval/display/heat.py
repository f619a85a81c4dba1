"""Where in a picture a query's words are: what their cosines lose when a place is hidden.

Occlusion (Zeiler and Fergus 2014), not of pixels but of the states that a picture's vector is made
of, which costs a fiftieth. Only pooled vectors are trained, so only they are asked.

R rows, C columns, M embedding width, W words.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

from triptych.types import Cube, Heat, Matrix, Part, Vector, WordHeat

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_MOST_WORDS = 16  # of a query: each is embedded
_SIDE = 8  # pixels of the PNG for each place
_SHADES = 32
_WARM = ((255, 214, 10), (214, 20, 30))  # of what is barely warm, and of what is hottest
_OPAQUE = 200  # of 255: what lies below is to be seen


class Word(NamedTuple):
    """A word of a query."""

    text: str
    part: int
    start: int
    stop: int


def words_of(parts: Sequence[Part]) -> list[Word]:
    """Return the words of the parts that are texts, the first 16."""
    return [
        Word(found.group(), at, found.start(), found.end())
        for at, part in enumerate(parts)
        if part.text is not None
        for found in _WORD.finditer(part.text)
    ][:_MOST_WORDS]


def heat(lost_RCM: Cube, vector_M: Vector) -> Heat:
    """Return what the cosine with the unit vector loses place by place."""
    grid_RC = _grid(lost_RCM, vector_M)
    return Heat(grid_RC=grid_RC, png=overlay(grid_RC))


def word_heats(lost_RCM: Cube, words: Sequence[Word], words_WM: Matrix) -> tuple[WordHeat, ...]:
    """Return the same for each word, of which a row of words_WM is the unit vector."""
    heats = []
    for word, vector_M in zip(words, words_WM, strict=True):
        grid_RC = _grid(lost_RCM, vector_M)
        heats.append(
            WordHeat(
                grid_RC=grid_RC,
                png=overlay(grid_RC),
                word=word.text,
                part=word.part,
                start=word.start,
                stop=word.stop,
            )
        )
    return tuple(heats)


def overlay(grid_RC: Matrix) -> bytes:
    """Return a PNG in colours from yellow to red, transparent where the grid is 0 or less.

    Eight pixels a place, under 2 kB; a viewer stretches it over the whole picture.
    """
    rows, columns = grid_RC.shape
    warm_RC = np.maximum(grid_RC, 0)
    warm_RC = warm_RC / max(float(warm_RC.max()), 1e-12)
    smooth = Image.fromarray(warm_RC.astype(np.float32)).resize(
        (columns * _SIDE, rows * _SIDE), Image.Resampling.BICUBIC
    )
    shades = np.rint(np.clip(np.asarray(smooth), 0, 1) * (_SHADES - 1)).astype(np.uint8)
    picture = Image.fromarray(shades, "P")
    picture.putpalette(_PALETTE)
    buffer = BytesIO()
    picture.save(buffer, "PNG", transparency=_ALPHA, optimize=True)
    return buffer.getvalue()


def _grid(lost_RCM: Cube, vector_M: Vector) -> Matrix:
    grid_RC: Matrix = (lost_RCM @ vector_M).astype(np.float32).round(6)
    return grid_RC


_STEPS = np.linspace(0, 1, _SHADES)[:, None]
_PALETTE = np.rint((1 - _STEPS) * _WARM[0] + _STEPS * _WARM[1]).astype(np.uint8).ravel().tolist()
_ALPHA = bytes(np.rint(_STEPS.ravel() * _OPAQUE).astype(np.uint8))
