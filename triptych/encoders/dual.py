"""The part that all models with a text side and a picture side share."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from PIL.Image import Image

from triptych.encoders.base import unit_rows
from triptych.encoders.pictures import load_picture
from triptych.errors import InvalidInput
from triptych.types import ImageSource, Item, Matrix

_CHUNK = 32  # decoded pictures in memory, twice: one chunk is embedded while the next is decoded


class DualEncoder(ABC):
    """An `EmbeddingModel` from two towers; a subclass sets the attributes and embeds each side."""

    name: str
    fingerprint: str
    dim: int
    languages: tuple[str, ...]
    picture_size: int  # the side that the picture tower sees; a large JPEG is decoded near to it

    @abstractmethod
    def embed_texts(self, texts: Sequence[str]) -> Matrix:
        """Return emb_NM, float32 unit rows."""

    @abstractmethod
    def embed_pictures(self, pictures: Sequence[Image]) -> Matrix:
        """Return emb_NM, float32 unit rows; the pictures are upright RGB."""

    def embed(self, items: Sequence[Item]) -> Matrix:
        """Return emb_NM in the order of `items`; one with text and picture lies between the two.

        Raises PictureError for a picture that cannot be read, InvalidInput for a bare vector.
        """
        for item in items:
            if item.text is None and item.image is None:
                raise InvalidInput(
                    f"Item {item.id!r} holds only a vector, expected a text or an image.",
                    hint="A collection of your own vectors takes the model vectors:<name>:<dim>.",
                )
        rows = range(len(items))
        emb_NM = np.zeros((len(items), self.dim), dtype=np.float32)
        self._add_texts(
            emb_NM, {row: text for row in rows if (text := items[row].text) is not None}
        )
        self._add_pictures(
            emb_NM, {row: image for row in rows if (image := items[row].image) is not None}
        )
        both = [row for row in rows if items[row].modality == "both"]
        if both:
            emb_NM[both] = unit_rows(emb_NM[both])
        return emb_NM

    def _add_texts(self, emb_NM: Matrix, texts: dict[int, str]) -> None:
        if texts:
            emb_NM[list(texts)] += self.embed_texts(list(texts.values()))

    def _add_pictures(self, emb_NM: Matrix, sources: dict[int, ImageSource]) -> None:
        rows = list(sources)
        start = 0
        for pictures in self._decoded(list(sources.values())):
            emb_NM[rows[start : start + len(pictures)]] += self.embed_pictures(pictures)
            start += len(pictures)

    def _decoded(self, sources: list[ImageSource]) -> Iterator[list[Image]]:
        """Yield chunks of pictures; Pillow decodes without the GIL, so threads do help."""
        load = partial(load_picture, size_hint=self.picture_size)
        if len(sources) < 2:
            yield from ([load(source)] for source in sources)
            return
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            coming = pool.map(load, sources[:_CHUNK])
            for start in range(0, len(sources), _CHUNK):
                ready = list(coming)
                coming = pool.map(load, sources[start + _CHUNK : start + 2 * _CHUNK])
                yield ready
