"""Token states of items, for a model with a text side and a picture side."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from PIL.Image import Image

from triptych.encoders.pictures.picture import load_picture
from triptych.types import Item, Matrix


class DualStates(ABC):
    """`LateInteraction` from two sides; a subclass gives the states of each.

    W width of the states, T tokens of an item.
    """

    picture_size: int

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
