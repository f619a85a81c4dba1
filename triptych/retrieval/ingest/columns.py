"""Which column of a manifest is what, and a row made into an item."""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from triptych.errors import InvalidInput
from triptych.retrieval.ingest.offers import BadRow, Offer
from triptych.retrieval.ingest.rows import Row
from triptych.retrieval.ingest.rows_csv import plain
from triptych.retrieval.ingest.rows_jsonl import parse_object
from triptych.types import ImageSource, Item

_GUESSES = {
    "id": ("id", "_id", "key", "uuid", "item_id", "image_id", "product_id"),
    "image": (
        "image", "image_path", "img", "picture", "photo", "path", "file_path", "filepath",
        "file_name", "filename", "file", "jpg", "png",
    ),
    "text": ("text", "caption", "title", "description", "content"),
    "uri": ("uri", "url"),
    "metadata": ("metadata", "meta"),
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Columns that the caller named; None leaves one to be guessed, "" means that there is none."""

    id: str | None = None
    image: str | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The column of each part of an item; all others become metadata.

    Without an `id` it is the picture's absolute path; of one that lies in the file, the file's name
    and the row.
    """

    id: str | None
    image: str | None
    text: str | None
    uri: str | None
    metadata: str | None

    @classmethod
    def of(cls, names: Sequence[str], wanted: Wanted, *, path: str) -> Columns:
        """Return the columns of the file at `path`: those wanted, else the first known names.

        Raises InvalidInput where one is not there, or where no item could come of any row.
        """
        chosen: dict[str, str | None] = {}
        for part, known in _GUESSES.items():
            asked: str | None = getattr(wanted, part, None)
            if asked is not None and asked not in ("", *names):
                raise InvalidInput(f"{path} has no column {asked!r}, it has: {_listed(names)}.")
            taken = {*chosen.values(), wanted.id, wanted.image, wanted.text}
            guess = _guess(known, names, taken) if asked is None else asked or None
            chosen[part] = guess
        if chosen["image"] is None and chosen["text"] is None:
            raise InvalidInput(
                f"{path} has neither pictures nor text that are known by name, "
                f"it has: {_listed(names)}.",
                hint="Say --image-column NAME or --text-column NAME; vectors of your own go in "
                "from Python, see docs/python.md.",
            )
        if chosen["id"] is None and chosen["image"] is None:
            raise InvalidInput(
                f"{path} has no column that is an id, it has: {_listed(names)}.",
                hint="Say --id-column NAME.",
            )
        return cls(**chosen)

    def widened(self, names: Collection[str], wanted: Wanted) -> Columns:
        """Return the columns of a row that may have more of them, as in JSONL.

        What was not seen so far may be the picture or the text; what was chosen stays.
        """
        found: dict[str, str] = {}
        for part, chosen in (("image", self.image), ("text", self.text)):
            if chosen is None and getattr(wanted, part) is None:
                taken = {self.id, self.image, self.text, self.uri, self.metadata, *found.values()}
                if guess := _guess(_GUESSES[part], names, taken):
                    found[part] = guess
        return replace(self, **found) if found else self

    def said(self, names: Sequence[str]) -> str:
        """Return a sentence on what is read from where."""
        parts = [
            f"id from {self.id!r}" if self.id else "id is the picture's path, of bytes the row"
        ]
        for part, name in (("picture", self.image), ("text", self.text), ("uri", self.uri)):
            if name is not None:
                parts.append(f"{part} from {name!r}")
        used = {self.id, self.image, self.text, self.uri}
        rest = [name for name in names if name not in used]
        return ", ".join(parts) + (f"; metadata from {_listed(rest)}" if rest else "")

    def offer(self, row: Row, *, manifest: str, is_text: bool) -> Offer:
        """Return the item of a row; `is_text`: all its values were written as text, as in CSV.

        A picture's path is relative to the folder of `manifest`, an absolute path. Raises BadRow.
        """
        folder, name = os.path.split(manifest)
        values = {name: value for name, value in row.values.items() if not _is_missing(value)}
        id = self._id(values.get(self.id)) if self.id else None
        try:
            image = _image(values.get(self.image), folder=folder) if self.image else None
            text = _text(values.get(self.text), "text") if self.text else None
            uri = _text(values.get(self.uri), "uri") if self.uri else None
            metadata = self._metadata(values, is_text=is_text)
        except BadRow as error:
            raise BadRow(error.code, error.message, id=id) from None
        if image is None and text is None:
            raise BadRow("row_empty", "It has neither a picture nor a text.", id=id)
        path = image if isinstance(image, str) and image[:5].lower() != "data:" else None
        if id is None and isinstance(image, bytes):
            id = f"{name}/{row.place}"
        if id is None and (id := path) is None:
            raise BadRow("row_id", "It has no id, and no path of a picture to take its place.")
        item = Item(id=id, image=image, text=text, uri=uri or path, metadata=metadata)
        return Offer(place=row.place, item=item)

    def _id(self, value: Any) -> str:
        if isinstance(value, str) and value:
            return value
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        got = "is missing" if value is None else f"is {_shown(value)}, expected text or a number"
        raise BadRow("row_id", f"Its id ({self.id!r}) {got}.")

    def _metadata(self, values: Mapping[str, Any], *, is_text: bool) -> dict[str, Any]:
        given = values.get(self.metadata) if self.metadata else None
        if isinstance(given, str):
            given = parse_object(given)
        if not isinstance(given, dict | None):
            raise BadRow("row_metadata", f"Its metadata is {_shown(given)}, expected an object.")
        used = {self.id, self.image, self.text, self.uri, self.metadata}
        rest = {name: value for name, value in values.items() if name not in used}
        both = sorted(rest.keys() & (given or {}).keys())
        if both:
            raise BadRow("row_metadata", f"Its metadata and its columns both have {both[0]!r}.")
        if is_text:
            rest = {name: plain(value) for name, value in rest.items()}
        metadata: dict[str, Any] = _jsonable({**(given or {}), **rest})
        return metadata


def _guess(
    known: Sequence[str], names: Collection[str], taken: Collection[str | None]
) -> str | None:
    """Return the first of the known names that is there, as it is written there."""
    by_name = {name.lower(): name for name in reversed([*names]) if name not in taken}
    return next((by_name[name] for name in known if name in by_name), None)


def _image(value: Any, *, folder: str) -> ImageSource | None:
    if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:  # as Hugging Face writes it
        value = value.get("bytes") or value.get("path")
    if value is None or value == "" or isinstance(value, bytes):
        return value or None
    if not isinstance(value, str):
        reason = f"Its picture is {_shown(value)}, expected a path, a data URI or bytes."
        raise BadRow("row_image", reason)
    if value[:5].lower() == "data:" or "://" in value[:32]:
        return value
    if "\0" in value:
        raise BadRow("row_image", "The path of its picture holds a NUL byte.")
    return os.path.abspath(os.path.join(folder, os.path.expanduser(value)))


def _text(value: Any, part: str) -> str | None:
    if not isinstance(value, str | None):
        raise BadRow(f"row_{part}", f"Its {part} is {_shown(value)}, expected text.")
    if value is None or not value.strip():
        return None
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise BadRow(f"row_{part}", f"Its {part} is no Unicode: it holds half a character.")
    return value


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _jsonable(value: Any) -> Any:
    """Return what JSON can hold; bytes and what is missing are left out of an object."""
    if isinstance(value, dict):
        kept = {name: one for name, one in value.items() if not isinstance(one, bytes)}
        return {name: _jsonable(one) for name, one in kept.items() if not _is_missing(one)}
    if isinstance(value, list):
        return [_jsonable(one) for one in value]
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    return str(value) if isinstance(value, Decimal) else value


def _shown(value: Any) -> str:
    shown = repr(value)
    return f"{type(value).__name__} {shown if len(shown) <= 40 else shown[:37] + '...'}"


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:12])
    return shown + (f" and {len(names) - 12} more" if len(names) > 12 else "")
