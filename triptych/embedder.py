"""Any model behind a cache: what was embedded once is looked up.

N items, M embedding width, T tokens, W their width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np

from triptych.cache.base import Cache
from triptych.cache.keys import digest, embedding_prefix
from triptych.cache.single_flight import SingleFlight
from triptych.encoders.base import EmbeddingModel
from triptych.encoders.pictures.picture import load_picture, picture_bytes
from triptych.errors import PictureError
from triptych.types import ImageSource, Item, Matrix, Vector

_UNIT = 1e-3  # how far from 1 the length of a cached vector may be


class Pinned(NamedTuple):
    """A picture whose content was looked at, and does not change any more."""

    content: bytes  # equal where the pixels that a model sees are equal; a digest
    picture: ImageSource


def pin(source: ImageSource) -> Pinned:
    """Return the content behind a source; raises PictureError where there is none.

    A file is read once: what is embedded is certainly what was looked at, whoever changes it.
    """
    data = picture_bytes(source)
    if data is not None:
        return Pinned(b"file:" + blake2b(data).digest(), data)
    picture = load_picture(source)  # upright RGB, whatever the mode, shape or tags were
    pixels = blake2b(picture.tobytes())
    pixels.update(f"{picture.size}".encode())
    return Pinned(b"pixels:" + pixels.digest(), picture)


class Embedder:
    """The same model with a memory: it has all that the model has, and gives the same bits.

    An item of which nothing can be remembered (it brings a vector) goes to the model as it is.
    """

    def __init__(
        self,
        model: EmbeddingModel,
        *,
        cache: Cache,
        tenant: str = "default",
        ttl: float | None = None,  # seconds; None is the cache's own
    ) -> None:
        self.model = model
        self._ttl = ttl
        self._cache = cache
        self._prefix = embedding_prefix(tenant)
        self._flight: SingleFlight[bytes, Vector] = SingleFlight()

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def fingerprint(self) -> str:
        return self.model.fingerprint

    @property
    def dim(self) -> int:
        return self.model.dim

    @property
    def languages(self) -> tuple[str, ...]:
        return self.model.languages

    def __getattr__(self, name: str) -> Any:
        """Return what else the model has: `picture_size`, `folder`, token states."""
        if name == "model":  # not made yet
            raise AttributeError(name)
        return getattr(self.model, name)

    def embed(self, items: Sequence[Item]) -> Matrix:
        """Return emb_NM as the model does; each content that is not remembered is embedded once.

        Raises what the model raises.
        """
        if not items or any(item.vector is not None for item in items):
            return self.model.embed(items)
        try:
            pinned = [_pinned(item) for item in items]
        except PictureError:
            return self.model.embed(items)  # its message names the source
        keys = [self._key(content) for content, _ in pinned]
        known = self._known(keys)
        missing: dict[bytes, Item] = {}
        for key, (_, item) in zip(keys, pinned, strict=True):
            if known[key] is None:
                missing.setdefault(key, item)
        if missing:
            try:
                fresh = self._flight.do_many(
                    list(missing), lambda mine: self._computed({key: missing[key] for key in mine})
                )
            except PictureError:
                return self.model.embed(items)
            known |= fresh
        return np.stack([row for key in keys if (row := known[key]) is not None])

    def _key(self, content: bytes) -> bytes:
        return self._prefix + digest(content, self.fingerprint, self.dim)

    def _known(self, keys: Sequence[bytes]) -> dict[bytes, Vector | None]:
        wanted = list(dict.fromkeys(keys))
        values = self._cache.get_many(wanted)
        return {key: self._row(value) for key, value in zip(wanted, values, strict=True)}

    def _row(self, value: bytes | None) -> Vector | None:
        """Return the vector in these bytes, None where there is none."""
        if value is None or len(value) != 4 * self.dim:
            return None
        row_M: Vector = np.frombuffer(value, dtype="<f4")
        # NaN fails every comparison
        is_unit = abs(float(np.dot(row_M, row_M)) - 1.0) < _UNIT
        return row_M if is_unit else None

    def _computed(self, missing: dict[bytes, Item]) -> dict[bytes, Vector]:
        # who led before may have landed between the look into the cache and now
        rows = {
            key: row for key in missing if (row := self._row(self._cache.near(key))) is not None
        }
        left = [key for key in missing if key not in rows]
        if left:
            emb_NM = self.model.embed([missing[key] for key in left])
            fresh = dict(zip(left, emb_NM, strict=True))
            values = [(key, row.astype("<f4").tobytes()) for key, row in fresh.items()]
            self._cache.put_many(values, ttl=self._ttl)
            rows |= fresh
        return rows


def _pinned(item: Item) -> tuple[bytes, Item]:
    """Return a name for all that the model sees of the item, and the item to show it."""
    text = b"" if item.text is None else b"text:" + item.text.encode("utf-8", "surrogatepass")
    if item.image is None:
        return digest(text, None), item
    content, picture = pin(item.image)
    return digest(text, content), replace(item, image=picture)
