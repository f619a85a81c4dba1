"""Pages on their way out of the process that reads a PDF: a line of JSON, then its pictures' bytes.

A message is the length of its JSON (4 bytes), the JSON, and the RGB bytes of the pictures that the
JSON names by width and height. What is read is never trusted to be one.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from PIL import Image

from triptych.retrieval.rag.document import Figure, Page

_HEAD = 4
_MOST_JSON = 2**28  # bytes
_MOST_PIXELS = 2**24


def packed(kind: str, said: object = None) -> bytes:
    """Return a message: what it is, and the page or the JSON that it brings."""
    pictures: list[Image.Image] = []
    if isinstance(said, Page):
        pictures = [figure.picture for figure in said.figures if figure.picture is not None]
        figures = [[one.start, one.end, one.caption] for one in said.figures]
        said = [said.number, said.text, said.breaks, figures]
    head = json.dumps([kind, said, [one.size for one in pictures]]).encode("ascii")
    return b"".join([len(head).to_bytes(_HEAD, "big"), head, *(one.tobytes() for one in pictures)])


def unpacked(read: Callable[[int], bytes]) -> tuple[str, Any]:
    """Return what `packed` was given, from a `read` that gives as many bytes as it is asked for.

    Raises ValueError or TypeError for what is no message.
    """
    kind, said, sizes = json.loads(read(_at_most(_MOST_JSON, int.from_bytes(read(_HEAD), "big"))))
    pictures = []
    for width, height in sizes:
        length = 3 * _at_most(_MOST_PIXELS, width * height)
        pictures.append(Image.frombytes("RGB", (width, height), read(length)))
    return kind, _page(said, pictures) if kind == "page" else said


def _page(said: Any, pictures: list[Image.Image]) -> Page:
    number, text, breaks, figures = said
    return Page(
        number=number,
        text=text,
        breaks=tuple(breaks),
        figures=tuple(
            Figure(start=start, end=end, caption=caption, picture=picture)
            for (start, end, caption), picture in zip(figures, pictures, strict=True)
        ),
    )


def _at_most(most: int, value: int) -> int:
    if not 0 <= value <= most:
        raise ValueError(f"got {value}, expected at most {most}")
    return value
