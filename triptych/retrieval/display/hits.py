"""Hits as a contact sheet: what a notebook shows, or a file that is looked at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Protocol

from PIL import Image

from triptych.errors import InvalidInput
from triptych.retrieval.display.sheet import SheetRow, Tile, contact_sheet
from triptych.types import Hit

MOST = 1_000
"""Hits on a sheet, which is then 33,500 pixels high."""


class HasThumbnails(Protocol):
    """A collection, here or of a server."""

    def thumbnail(self, id: str) -> bytes | None: ...


def sheet(
    collection: HasThumbnails, found: Sequence[Hit] | Mapping[str, Sequence[Hit]]
) -> Image.Image:
    """Return hits of `collection` as one picture (RGB), which a notebook shows.

    Of several searches give what was asked and what was found: `{"a dog": hits, "a cat": others}`.
    Raises InvalidInput for more than 1,000 hits.
    """
    rows = found if isinstance(found, Mapping) else {"": found}
    count = sum(len(hits) for hits in rows.values())
    if count > MOST:
        raise InvalidInput(f"A sheet has room for {MOST:,} hits, got {count:,}.")
    return contact_sheet(
        [SheetRow(asked, tiles=tiles(collection, hits)) for asked, hits in rows.items()]
    )


def tiles(collection: HasThumbnails, hits: Sequence[Hit]) -> list[Tile]:
    """Return the hits ready to draw, with their thumbnails."""
    return [Tile(stored_picture(collection, hit.id), hit.score, _caption(hit)) for hit in hits]


def stored_picture(collection: HasThumbnails, id: str) -> Image.Image | None:
    """Return the thumbnail of an item, RGB; None where it has none."""
    jpeg = collection.thumbnail(id)
    return Image.open(BytesIO(jpeg)).convert("RGB") if jpeg is not None else None


def _caption(hit: Hit) -> str:
    return hit.text or Path(hit.uri or hit.id).name
