"""What stored items were made of: their text, and the picture behind their address.

What came as bytes was kept, unless that was not wanted. The file behind an address counts as the
original while it is what was indexed: its hash says so, or, where none was kept, its thumbnail.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from triptych.encoders.pictures.picture import (
    DEFAULT,
    PictureLimits,
    load_picture,
    picture_bytes,
    thumbnail,
)
from triptych.errors import CollectionDamaged, InvalidInput, PictureError
from triptych.index.base import checked_vectors
from triptych.index.sqlite.meta import Space
from triptych.index.sqlite.records import Record
from triptych.index.sqlite.store import Store
from triptych.retrieval.late import stored_tokens
from triptych.retrieval.models import Models, named
from triptych.retrieval.prepare import as_read, is_of
from triptych.types import Item

_FEW = 256  # those who write wait some seconds meanwhile
_ALIKE = 4.0  # of 255, mean over all pixels: as much as another scale of decoding makes


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """An item that cannot be made again, and why: picture_gone, picture_changed, damaged ..."""

    row: int
    id: str
    code: str


@dataclass(slots=True)
class Found:
    """Items as they were given, with their rows, and those that are lost."""

    rows: list[int] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    lost: list[Lost] = field(default_factory=list)
    num_thumbnails: int = 0  # of the items, those whose picture is the thumbnail


class Originals:
    """Reads items again, for a model whose pictures are decoded near `size_hint`."""

    def __init__(
        self,
        store: Store,
        *,
        limits: PictureLimits = DEFAULT,
        size_hint: int | None,
        from_thumbnails: bool,
    ) -> None:
        self._store = store
        self._limits = limits
        self._size_hint = size_hint
        self._from_thumbnails = from_thumbnails

    def read(self, rows: Sequence[int]) -> Found:
        """Return the items of those rows that are there."""
        found = Found()
        for record in self._records(rows, found):
            try:
                item = self._item(record, found)
            except PictureError as error:
                found.lost.append(Lost(row=record.row, id=record.id, code=error.code))
                continue
            found.rows.append(record.row)
            found.items.append(item)
        return found

    def absent(self, rows: Sequence[int]) -> list[Lost]:
        """Return what is certainly lost, without reading a picture."""
        found, kept = Found(), self._store.pictures(rows)
        for record in self._records(rows, found):
            code = _absence(record)
            if code is None or record.row in kept:
                continue
            if self._from_thumbnails and self._thumbnail(record) is not None:
                continue
            found.lost.append(Lost(row=record.row, id=record.id, code=code))
        return found.lost

    def _records(self, rows: Sequence[int], found: Found) -> list[Record]:
        records, damaged = self._store.records(rows)
        found.lost += [Lost(row=row, id=id, code="damaged") for row, id in damaged.items()]
        return records

    def _item(self, record: Record, found: Found) -> Item:
        if not _has_picture(record):
            return as_read(Item(id=record.id, text=record.text, metadata=record.metadata))
        try:
            picture = self._picture(record)
        except PictureError:
            small = self._thumbnail(record) if self._from_thumbnails else None
            if small is None:
                raise
            picture = load_picture(small)
            found.num_thumbnails += 1
        return Item(id=record.id, text=record.text, image=picture)

    def _picture(self, record: Record) -> Image.Image:
        sent = self._sent(record)
        if sent is not None:
            return load_picture(sent, limits=self._limits, size_hint=self._size_hint)
        code = _absence(record)
        if code is not None or record.uri is None:
            raise PictureError(code or "picture_gone", f"{record.id!r} has no picture any more.")
        data = picture_bytes(Path(record.uri), limits=self._limits)
        assert data is not None, "a file has bytes"
        picture = load_picture(data, limits=self._limits, size_hint=self._size_hint)
        if not self._is_same(record, data, picture):
            raise PictureError("picture_changed", f"The picture of {record.id!r} is another now.")
        return picture

    def _sent(self, record: Record) -> bytes | None:
        """Return the picture as it was sent, None where it was not kept or is gone."""
        picture = self._store.pictures([record.row]).get(record.row)
        try:
            return None if picture is None else self._store.picture_data(picture)
        except CollectionDamaged:
            raise PictureError("damaged", f"The picture of {record.id!r} is damaged.") from None

    def _is_same(self, record: Record, data: bytes, picture: Image.Image) -> bool:
        if record.content is not None:
            return is_of(record.content, data)
        small = self._thumbnail(record)
        return small is not None and _look_alike(small, thumbnail(picture))

    def _thumbnail(self, record: Record) -> bytes | None:
        try:
            return self._store.thumbnail(record.id)
        except CollectionDamaged:
            return None


def fill_the_rest(store: Store, models: Models, space: Space, from_thumbnails: bool) -> None:
    """Embed the last few that a space lacks, while nobody else writes; what cannot be, is left.

    So a migration ends although another process writes all the time. Raises ModelMismatch where
    the model of the space cannot be opened here: then it must not be searched either.
    """
    model = models.of(named(store.meta, space))
    rows_N = store.missing(space, limit=_FEW + 1)
    if not 0 < len(rows_N) <= _FEW:
        return
    found = Originals(
        store, size_hint=getattr(model, "picture_size", None), from_thumbnails=from_thumbnails
    ).read(rows_N.tolist())
    if found.items:
        with suppress(InvalidInput):
            vectors_NM = checked_vectors(model.embed(found.items), space.dim)
            states = stored_tokens(model, found.items, space.token_width)
            store.put_vectors(space, np.array(found.rows, dtype=np.int64), vectors_NM, states)


def _has_picture(record: Record) -> bool:
    return record.modality in ("image", "both")


def _absence(record: Record) -> str | None:
    """Return why there is no picture's file, None where there is one or none is needed."""
    if not _has_picture(record) or os.path.isfile(record.uri or ""):
        return None
    is_path = record.uri is not None and "://" not in record.uri
    return "picture_gone" if is_path else "picture_not_kept"


def _look_alike(one: bytes, other: bytes) -> bool:
    first, second = (load_picture(jpeg) for jpeg in (one, other))
    # a file decoded at a half may round its sides the other way
    if any(abs(a - b) > 1 for a, b in zip(first.size, second.size, strict=True)):
        return False
    second = second.resize(first.size)
    difference = np.asarray(first, dtype=np.int16) - np.asarray(second, dtype=np.int16)
    return float(np.abs(difference).mean()) <= _ALIKE
