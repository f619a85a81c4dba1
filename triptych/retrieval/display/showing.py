"""Pictures of stored items as a person looks at them: one large, or a thousand tiny ones."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from io import BytesIO
from pathlib import Path

from PIL import Image

from triptych.encoders.pictures.picture import DEFAULT, load_picture, picture_bytes, thumbnail
from triptych.errors import CollectionDamaged, PictureError
from triptych.index.sqlite.records import Record
from triptych.retrieval.collection import Collection
from triptych.retrieval.prepare import is_of

CELL = 16
"""Pixels of a picture in a mosaic: its colours, and roughly where they are."""

COLUMNS = 40


def enlarged(collection: Collection, id: str, *, side: int) -> bytes | None:
    """Return a JPEG of an item's picture, its longer side at most `side`; None where it has none.

    It is made from the original, else it is the thumbnail. Nothing of a file but its pixels is
    passed on.
    """
    data = original(collection, id)
    if data is not None:
        with suppress(PictureError):  # the thumbnail was made while it could be read
            return thumbnail(load_picture(data, size_hint=side), side=side)
    return collection.thumbnail(id)


def original(collection: Collection, id: str) -> bytes | None:
    """Return what was sent as an item's picture, or the file that was indexed while that is the
    same byte for byte; None where neither is here."""
    record = collection.get([id])[0]
    if record is None or record.modality == "text":
        return None
    try:
        return collection.picture(id) or _indexed_file(record)
    except (PictureError, CollectionDamaged):
        return None


def mosaic(thumbnails: Iterable[bytes | None]) -> bytes:
    """Return one JPEG of them all, `COLUMNS` in a row, each in the middle of a white cell.

    A missing one is a white cell.
    """
    given = list(thumbnails)
    rows = max(1, -(-len(given) // COLUMNS))
    whole = Image.new("RGB", (CELL * COLUMNS, CELL * rows), "white")
    for at, jpeg in enumerate(given):
        if jpeg is not None:
            tiny = _tiny(jpeg)
            left, top = (at % COLUMNS) * CELL, (at // COLUMNS) * CELL
            whole.paste(tiny, (left + (CELL - tiny.width) // 2, top + (CELL - tiny.height) // 2))
    buffer = BytesIO()
    whole.save(buffer, "JPEG", quality=80, subsampling=0)
    return buffer.getvalue()


def _tiny(jpeg: bytes) -> Image.Image:
    picture = Image.open(BytesIO(jpeg), formats=("JPEG",))  # our own: made from what was checked
    picture.draft("RGB", (CELL, CELL))
    picture.thumbnail((CELL, CELL), Image.Resampling.BOX)
    return picture.convert("RGB")


def _indexed_file(record: Record) -> bytes | None:
    """Return the bytes of the file that was indexed, None where it is another or gone.

    Whoever may write can name any file as an item's `uri`; its hash was taken when it was indexed.
    """
    if record.uri is None or record.content is None or "://" in record.uri:
        return None
    path = Path(record.uri)
    if not path.is_file():
        return None
    data = picture_bytes(path, limits=DEFAULT)
    assert data is not None, "a file has bytes"
    return data if is_of(record.content, data) else None
