"""The model of a collection whose vectors the caller makes: it embeds nothing, it only checks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from triptych.encoders.base import real_numbers, unit_rows
from triptych.errors import InvalidInput
from triptych.types import Item, Matrix

_NAME = re.compile(r"([A-Za-z0-9_.-]+):([1-9][0-9]{0,4})")


class CallerVectors:
    """`vectors:<name>:<dim>`: items bring vectors; name and width are the fingerprint."""

    languages: tuple[str, ...] = ()

    def __init__(self, name: str, dim: int) -> None:
        self.name = f"vectors:{name}:{dim}"
        self.fingerprint = self.name
        self.dim = dim

    @classmethod
    def from_name(cls, argument: str, *, threads: int = 1) -> Self:
        """Return the model that `<name>:<dim>` spells."""
        match = _NAME.fullmatch(argument)
        if match is None:
            raise InvalidInput(
                f"Got the model name 'vectors:{argument}', expected vectors:<name>:<dim>.",
                hint="For example: vectors:my-encoder:512",
            )
        return cls(match[1], int(match[2]))

    def embed(self, items: Sequence[Item]) -> Matrix:
        """Return the items' own vectors as unit rows, emb_NM."""
        if not items:
            return np.empty((0, self.dim), dtype=np.float32)
        vectors = [self._checked(item) for item in items]
        try:
            return unit_rows(np.concatenate(vectors).reshape(-1, self.dim))
        except InvalidInput:
            for item, vector_M in zip(items, vectors, strict=True):
                _check_alone(item, vector_M)
            raise

    def _checked(self, item: Item) -> NDArray[Any]:
        if item.vector is None:
            raise InvalidInput(
                f"{item.id!r} has no vector, and this collection holds vectors of your own.",
                hint=f"Give a vector of {self.dim} numbers, or use a collection with a model.",
            )
        vector = real_numbers(item.vector, repr(item.id))
        if vector.shape != (self.dim,):
            raise InvalidInput(
                f"The vector of {item.id!r} has shape {vector.shape}, expected ({self.dim},)."
            )
        return vector


def _check_alone(item: Item, vector_M: NDArray[Any]) -> None:
    try:
        unit_rows(vector_M[None])
    except InvalidInput as error:
        raise InvalidInput(f"{item.id!r}: {error.message}") from None
