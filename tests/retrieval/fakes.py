"""Small models that obey the protocol, and pictures that differ by colour."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from triptych.encoders.hashing import HashingEncoder
from triptych.types import Item, Matrix

DIM = 32
RED, GREEN, BLUE, BLACK = (200, 10, 10), (10, 200, 10), (10, 10, 200), (5, 5, 5)


class CountingModel(HashingEncoder):
    """Counts what it embeds; slow or failing where a test asks for it."""

    def __init__(self, *, dim: int = DIM) -> None:
        super().__init__(dim=dim)
        self.embedded: list[str] = []

    def embed(self, items: Sequence[Item]) -> Matrix:
        self.embedded += [item.id for item in items]
        return super().embed(items)


def picture(colour: tuple[int, int, int], *, size: tuple[int, int] = (48, 40)) -> Image.Image:
    return Image.new("RGB", size, colour)


def encoded(colour: tuple[int, int, int], *, format: str = "PNG") -> bytes:
    buffer = BytesIO()
    picture(colour).save(buffer, format)
    return buffer.getvalue()


def paint(path: Path, colour: tuple[int, int, int]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(colour))
    return path


def unit_vectors(num: int, *, dim: int = DIM, seed: int = 0) -> Matrix:
    matrix = np.random.default_rng(seed).standard_normal((num, dim))
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)
