"""The part that all models with a text side and a picture side share.

N items, M embedding width, T tokens of an item, W width of their states.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from PIL.Image import Image

from triptych.encoders.base import unit_rows
from triptych.encoders.pictures.picture import load_picture
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
        texts, pictured = _sides(items)
        emb_NM = np.empty((len(items), self.dim), dtype=np.float32)
        alone = [at for at in texts if at not in pictured]
        if alone:
            emb_NM[alone] = self.embed_texts([texts[at] for at in alone])
        unsaid = {at: source for at, source in pictured.items() if at not in texts}
        for rows, pictures in self._decoded(unsaid):
            emb_NM[rows] = self.embed_pictures(pictures)
        said = {at: source for at, source in pictured.items() if at in texts}
        for rows, pictures in self._decoded(said):
            emb_NM[rows] = self.embed_both([texts[at] for at in rows], pictures)
        return emb_NM

    def embed_both(self, texts: Sequence[str], pictures: Sequence[Image]) -> Matrix:
        """Return emb_NM of items that have a text and a picture: the sum of the two, unit again."""
        return unit_rows(self.embed_texts(texts) + self.embed_pictures(pictures))

    def _decoded(
        self, pictured: Mapping[int, ImageSource]
    ) -> Iterator[tuple[list[int], list[Image]]]:
        """Yield chunks: rows and their pictures. Pillow decodes without the GIL: threads help."""
        load = partial(load_picture, size_hint=self.picture_size)
        rows, sources = list(pictured), list(pictured.values())
        if len(rows) < 2:
            yield from (([row], [load(source)]) for row, source in pictured.items())
            return
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            coming = pool.map(load, sources[:_CHUNK])
            for start in range(0, len(rows), _CHUNK):
                ready = list(coming)
                coming = pool.map(load, sources[start + _CHUNK : start + 2 * _CHUNK])
                yield rows[start : start + _CHUNK], ready


class DualStates(DualEncoder):
    """With `LateInteraction` from the two sides; a subclass gives the states of each."""

    @property
    @abstractmethod
    def token_width(self) -> int:
        """W; raises NotAvailable where a side gives no states."""

    @abstractmethod
    def text_states(self, texts: Sequence[str]) -> list[Matrix]:
        """Return states_TW of each text, float32 unit rows."""

    @abstractmethod
    def picture_states(self, pictures: Sequence[Image]) -> list[Matrix]:
        """Return states_TW of each picture, float32 unit rows; the pictures are upright RGB."""

    def token_states(self, items: Sequence[Item]) -> list[Matrix]:
        """Return states_TW of each item; of one with text and picture, the text's come first.

        Raises PictureError for a picture that cannot be read, InvalidInput for a bare vector.
        """
        texts, pictured = _sides(items)
        states: list[list[Matrix]] = [[] for _ in items]
        for at, text_TW in zip(texts, self.text_states(list(texts.values())), strict=True):
            states[at].append(text_TW)
        for rows, pictures in self._decoded(pictured):
            for at, picture_TW in zip(rows, self.picture_states(pictures), strict=True):
                states[at].append(picture_TW)
        return [np.concatenate(parts) for parts in states]


def _sides(items: Sequence[Item]) -> tuple[dict[int, str], dict[int, ImageSource]]:
    """Return the texts and the pictures by row; raises InvalidInput for an item without either."""
    for item in items:
        if item.text is None and item.image is None:
            raise InvalidInput(
                f"Item {item.id!r} holds only a vector, expected a text or an image.",
                hint="A collection of your own vectors takes the model vectors:<name>:<dim>.",
            )
    texts = {at: item.text for at, item in enumerate(items) if item.text is not None}
    pictured = {at: item.image for at, item in enumerate(items) if item.image is not None}
    return texts, pictured
