"""A model without weights: words and colours hashed into one space. For tests and first steps.

Texts that share words or pieces of words are near; a picture is near the names of its colours
("red", "dark") and near pictures of the same layout. Numpy only, the same everywhere.

Letters: T words or cells, D = M width, C 16 cells of a picture, P pixels of a cell.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, Resampling

from triptych.encoders.base import unit_rows
from triptych.encoders.dual import DualStates
from triptych.errors import InvalidInput
from triptych.types import Matrix

Vector = NDArray[np.float64]

_COMMON = frozenset(("a", "an", "and", "at", "by", "for", "in", "is", "of", "on", "the", "with"))
_WORD = re.compile(r"\w+|[^\w\s]")
_GRID, _CELL = 4, 8  # cells per side, pixels per side of a cell
_LAYOUT = 1.5  # weight of where colours lie against which they are; chosen by eye

# (upper end of the hue in degrees, name); what is dark, pale or grey is named before the hue is
_HUES = (
    (15, "red"),
    (42, "orange"),
    (70, "yellow"),
    (165, "green"),
    (195, "cyan"),
    (260, "blue"),
    (295, "purple"),
    (345, "pink"),
    (360, "red"),
)
COLOURS = ("black", "white", "gray", "brown", *dict.fromkeys(name for _, name in _HUES))


class HashingEncoder(DualStates):
    """Deterministic texts and pictures to vectors."""

    languages = ("und",)
    picture_size = _GRID * _CELL

    def __init__(self, *, dim: int = 256) -> None:
        self.dim = dim
        self.name = f"hashing:{dim}"
        self.fingerprint = hashlib.sha256(f"triptych hashing 1 {dim}".encode()).hexdigest()

    def num_tokens(self, texts: Sequence[str], num_pictures: int) -> int:
        """Return the words and marks of the texts, and the cells of so many pictures."""
        return sum(len(_WORD.findall(text)) for text in texts) + num_pictures * _GRID**2

    @classmethod
    def from_name(cls, argument: str, *, threads: int = 1) -> Self:
        """Return the model that `hashing:<dim>` spells; plain `hashing` has 256."""
        if argument and not (argument.isdecimal() and 0 < int(argument) <= 65536):
            raise InvalidInput(f"Got the model name 'hashing:{argument}', expected hashing:<dim>.")
        return cls(dim=int(argument or 256))

    def embed_texts(self, texts: Sequence[str]) -> Matrix:
        """Return emb_NM, unit rows."""
        return self._pooled([_text_tokens(text, self.dim) for text in texts])

    def embed_pictures(self, pictures: Sequence[Image]) -> Matrix:
        """Return emb_NM, unit rows."""
        return self._pooled([_picture_tokens(picture, self.dim) for picture in pictures])

    @property
    def token_width(self) -> int:
        return self.dim

    def text_states(self, texts: Sequence[str]) -> list[Matrix]:
        """Return a unit row per word."""
        return [unit_rows(_text_tokens(text, self.dim)) for text in texts]

    def picture_states(self, pictures: Sequence[Image]) -> list[Matrix]:
        """Return 16 unit rows per picture, row by row."""
        return [unit_rows(_picture_tokens(picture, self.dim)) for picture in pictures]

    def _pooled(self, states: list[Vector]) -> Matrix:
        sums = [tokens_TD.sum(axis=0) for tokens_TD in states]
        return unit_rows(np.reshape(sums, (-1, self.dim)))


def _text_tokens(text: str, dim: int) -> Vector:
    words = _WORD.findall(unicodedata.normalize("NFKC", text).casefold()) or [""]
    return np.stack([_word(word, dim) * (0.2 if word in _COMMON else 1.0) for word in words])


@lru_cache(maxsize=2**14)
def _word(word: str, dim: int) -> Vector:
    """Return the unit vector of a word: itself and its pieces of three letters, half and half."""
    marked = f"<{word}>"
    pieces = [_direction(f"piece {marked[at : at + 3]}", dim) for at in range(len(marked) - 2)]
    vector = _direction(f"word {word}", dim)
    if pieces:
        together = np.sum(pieces, axis=0)
        vector = vector + together / max(float(np.linalg.norm(together)), 1e-9)
    return np.asarray(vector / max(float(np.linalg.norm(vector)), 1e-9))


@lru_cache(maxsize=2**14)
def _direction(feature: str, dim: int) -> Vector:
    """Return a unit vector of plus and minus 1/sqrt(dim), drawn from the feature's hash."""
    seed = hashlib.blake2b(feature.encode("utf-8", "surrogatepass")).digest()
    stream = hashlib.shake_128(seed).digest((dim + 7) // 8)
    bits = np.unpackbits(np.frombuffer(stream, dtype=np.uint8))[:dim]
    return np.asarray((bits * 2.0 - 1.0) / np.sqrt(dim))


def _picture_tokens(picture: Image, dim: int) -> Vector:
    side = _GRID * _CELL
    pixels = np.asarray(picture.resize((side, side), Resampling.BOX), dtype=np.float64) / 255.0
    cells = pixels.reshape(_GRID, _CELL, _GRID, _CELL, 3).transpose(0, 2, 1, 3, 4)
    cells_CP3 = cells.reshape(_GRID * _GRID, _CELL * _CELL, 3)
    names_CP = _colour_ids(cells_CP3)
    shares_CK = (names_CP[:, :, None] == np.arange(len(COLOURS))).mean(axis=1)
    colours_CD = shares_CK @ _colour_words(dim)
    means_C3 = cells_CP3.mean(axis=1) * 2.0 - 1.0
    layout_CD = np.einsum("ck,ckd->cd", means_C3, _cell_directions(dim))
    return np.asarray(colours_CD + _LAYOUT * layout_CD)


def _colour_ids(rgb: Vector) -> NDArray[np.int64]:
    """Return for each pixel (..., 3) the index of its colour's name in COLOURS."""
    high, low = rgb.max(axis=-1), rgb.min(axis=-1)
    spread = high - low
    hue = _hue(rgb, high, spread)
    hue_names = np.array([COLOURS.index(name) for _, name in _HUES])
    ids = hue_names[np.searchsorted([end for end, _ in _HUES], hue, side="left")]
    is_brown = (hue > 10) & (hue < 45) & (high < 0.65)
    is_pale_red = (ids == COLOURS.index("red")) & (low > 0.45)
    ids = np.where(is_brown, COLOURS.index("brown"), ids)
    ids = np.where(is_pale_red, COLOURS.index("pink"), ids)
    ids = np.where(spread < 0.15, COLOURS.index("gray"), ids)
    ids = np.where((spread < 0.15) & (high > 0.85), COLOURS.index("white"), ids)
    return np.where(high < 0.2, COLOURS.index("black"), ids)


def _hue(rgb: Vector, high: Vector, spread: Vector) -> Vector:
    """Return the hue in degrees, 0..360."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    spread = np.maximum(spread, 1e-9)
    sixth = np.select(
        [high == red, high == green],
        [((green - blue) / spread) % 6.0, (blue - red) / spread + 2.0],
        (red - green) / spread + 4.0,
    )
    return np.clip(sixth * 60.0, 0.0, 360.0)


@lru_cache(maxsize=8)
def _colour_words(dim: int) -> Vector:
    """Return colour_KD: what a text that names the colour would get."""
    return np.stack([_word(name, dim) for name in COLOURS])


@lru_cache(maxsize=8)
def _cell_directions(dim: int) -> Vector:
    """Return cell_C3D: a direction for each cell and channel."""
    names = [f"cell {cell} {channel}" for cell in range(_GRID * _GRID) for channel in "rgb"]
    flat = np.stack([_direction(name, dim) for name in names])
    return flat.reshape(_GRID * _GRID, 3, dim)
