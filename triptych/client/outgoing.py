"""Items, queries and pictures as JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from triptych.client.call import encoded
from triptych.encoders.base import real_numbers
from triptych.encoders.pictures.picture import load_picture, picture_bytes
from triptych.errors import PictureError
from triptych.filters import Filter, to_json
from triptych.retrieval.prepare import AnyItem, as_item, check_item
from triptych.types import ImageSource, Part


def item_line(given: AnyItem) -> bytes:
    """Return an item as a line of NDJSON.

    Raises InvalidInput for what cannot be stored, PictureError for a picture that is not there.
    """
    item = as_item(given)
    check_item(item)
    said: dict[str, Any] = {"id": item.id, "metadata": dict(item.metadata)}
    if item.text is not None:
        said["text"] = item.text
    if item.vector is not None:
        said["vector"] = vector_json(item.vector)
    if item.image is not None:
        try:
            said["image"] = picture_json(item.image)
        except PictureError as error:
            message = f"{item.id!r}: {error.message}"
            raise PictureError(error.code, message, hint=error.hint) from None
    # the server sees no path: as in a collection here, it is the address unless another is given
    uri = item.uri if item.uri is not None else _address(item.image)
    if uri is not None:
        said["uri"] = uri
    return encoded(said) + b"\n"


def part_json(part: Part) -> dict[str, Any]:
    """Return one part of a query."""
    said: dict[str, Any] = {"weight": part.weight}
    if part.text is not None:
        said["text"] = part.text
    if part.id is not None:
        said["id"] = part.id
    if part.image is not None:
        said["image"] = picture_json(part.image)
    if part.vector is not None:
        # one row of a matrix is a vector as well
        said["vector"] = vector_json(real_numbers(part.vector, "the query").reshape(-1))
    return said


def filter_json(given: Filter | Mapping[str, Any] | str | None) -> Any:
    """Return a filter as it was written, a tree as JSON."""
    if given is None or isinstance(given, Mapping | str):
        return given
    return json.loads(to_json(given))


def vector_json(vector: Any) -> list[float]:
    """Return the numbers; a float32 loses nothing."""
    numbers: list[float] = np.asarray(vector, dtype=np.float64).tolist()
    return numbers


def picture_json(source: ImageSource) -> str:
    """Return a data URI, or a web address as it is: only the server decides what it fetches.

    A file goes as it is; a PIL picture or an array as PNG, which loses nothing.
    """
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        return source
    data = picture_bytes(source)
    if data is None:
        buffer = BytesIO()
        load_picture(source).save(buffer, "PNG", compress_level=1)
        data = buffer.getvalue()
    # the kind is recognised by content, whatever is said here
    return f"data:image/png;base64,{base64.b64encode(data).decode('ascii')}"


def _address(image: ImageSource | None) -> str | None:
    if isinstance(image, str):
        return None if image.startswith("data:") else image
    return str(image) if isinstance(image, Path) else None
