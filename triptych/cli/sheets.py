"""Hits as pictures for people: rows of a contact sheet, and a collection's map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from triptych.encoders.pictures.picture import load_picture
from triptych.errors import InvalidInput
from triptych.retrieval.collection import Collection
from triptych.retrieval.display.atlas import atlas
from triptych.retrieval.display.hits import MOST, stored_picture, tiles
from triptych.retrieval.display.sheet import SheetRow
from triptych.types import Hit, Part, Query

_ON_MAP = 1_000  # pictures; more would not be seen
_KINDS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_MARK = "triptych search --sheet"  # in the file: what has it may be replaced
_HEAD = 1_000  # bytes that hold it


def sheet_file(path: Path, *, limit: int) -> Path:
    """Return where a sheet of `limit` hits will be written; raises InvalidInput where it cannot."""
    kind = _KINDS.get(path.suffix.lower())
    if kind is None:
        raise InvalidInput(
            f"The sheet {path} ends in {path.suffix or 'nothing'}, expected .png or .jpg.",
            hint="Its ending says how it is written.",
        )
    if limit > MOST:
        raise InvalidInput(
            f"A sheet has room for {MOST:,} hits, got {limit:,}.", hint="Ask for fewer."
        )
    path = path.expanduser()
    if not path.parent.is_dir():
        raise InvalidInput(
            f"There is no folder {str(path.parent)!r} for the sheet.", hint="Make it first."
        )
    if path.is_dir():
        raise InvalidInput(f"The sheet {path} is a folder.", hint="Name a file, such as hits.png.")
    if path.is_file() and not _is_sheet(path):
        raise InvalidInput(
            f"{path} is there already, and is not a sheet of ours.", hint="Name another file."
        )
    return path


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a sheet as its ending says."""
    if _KINDS[path.suffix.lower()] == "JPEG":
        sheet.save(path, "JPEG", quality=90, comment=_MARK)
        return
    marked = PngInfo()
    marked.add_text("Software", _MARK)
    sheet.save(path, "PNG", pnginfo=marked)


def _is_sheet(path: Path) -> bool:
    with path.open("rb") as file:
        head = file.read(_HEAD)
    return not head or _MARK.encode() in head


def sheet_row(collection: Collection, query: Query, hits: Sequence[Hit]) -> SheetRow:
    """Return what was asked and what was found, ready to draw."""
    pictures = [picture for part in query.parts if (picture := _asked(collection, part))]
    return SheetRow(_title(query), pictures, tiles(collection, hits))


def atlas_of(collection: Collection) -> Image.Image:
    """Return the collection's pictures laid out by likeness; of a large one an even sample."""
    ids = sorted(collection.files())
    ids = ids[:: max(1, len(ids) // _ON_MAP)]
    kept = [(id, picture) for id in ids if (picture := stored_picture(collection, id))]
    return atlas(collection.vectors([id for id, _ in kept]), [picture for _, picture in kept])


def _title(query: Query) -> str:
    """Return the query as it would be typed, pictures as a mark."""
    words = []
    for at, part in enumerate(query.parts):
        sign = "− " if part.weight < 0 else "+ " if at else ""
        weight = f"{abs(part.weight):g}×" if abs(part.weight) != 1 else ""
        words.append(f"{sign}{weight}{part.text or part.id or '[picture]'}")
    return "\n".join(words)


def _asked(collection: Collection, part: Part) -> Image.Image | None:
    if part.image is not None:
        return load_picture(part.image, size_hint=256)
    return stored_picture(collection, part.id) if part.id is not None else None
