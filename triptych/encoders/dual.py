"""The part that all models with a text side and a picture side share.

N items, M embedding width, T tokens of an item, W width of their states.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
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
        for item in items:
            if item.text is None and item.image is None:
                raise InvalidInput(
                    f"Item {item.id!r} holds only a vector, expected a text or an image.",
                    hint="A collection of your own vectors takes the model vectors:<name>:<dim>.",
                )
        emb_NM = np.empty((len(items), self.dim), dtype=np.float32)
        texts = {at: one.text for at, one in enumerate(items) if one.text is not None}
        pictured = {at: one.image for at, one in enumerate(items) if one.image is not None}
        alone = [at for at in texts if at not in pictured]
        if alone:
            emb_NM[alone] = self.embed_texts([texts[at] for at in alone])
        for chosen in ([at for at in pictured if at not in texts], texts.keys() & pictured.keys()):
            rows, start = sorted(chosen), 0
            for pictures in self._decoded([pictured[at] for at in rows]):
                some = rows[start : start + len(pictures)]
                emb_NM[some] = (
                    self.embed_both([texts[at] for at in some], pictures)
                    if some[0] in texts
                    else self.embed_pictures(pictures)
                )
                start += len(pictures)
        return emb_NM

    def embed_both(self, texts: Sequence[str], pictures: Sequence[Image]) -> Matrix:
        """Return emb_NM of items that have a text and a picture: the sum of the two, unit again."""
        return unit_rows(self.embed_texts(texts) + self.embed_pictures(pictures))

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

        Raises PictureError for a picture that cannot be read.
        """
        states: list[list[Matrix]] = [[] for _ in items]
        texts = {at: item.text for at, item in enumerate(items) if item.text is not None}
        pictures = {
            at: load_picture(item.image, size_hint=self.picture_size)
            for at, item in enumerate(items)
            if item.image is not None
        }
        for at, text_TW in zip(texts, self.text_states(list(texts.values())), strict=True):
            states[at].append(text_TW)
        for at, picture_TW in zip(
            pictures, self.picture_states(list(pictures.values())), strict=True
        ):
            states[at].append(picture_TW)
        return [np.concatenate(parts) for parts in states]
