"""What decoding a stranger's picture may cost: memory told beforehand, scans counted, time kept.

The bytes a pixel takes were measured: a decoder's own buffers, its picture, and the copies on the
way to RGB (python -m benchmarks uploads measures them again).
"""

from __future__ import annotations

import time
from io import BytesIO

from PIL import Image

from triptych.encoders.pictures.jpeg import num_scans
from triptych.errors import PictureError

MAX_SCANS = 32
"""Of a JPEG; encoders write about ten, and each one goes over the whole picture once more."""

_PLAIN = {"1": 8, "L": 8, "P": 8, "RGB": 8, "CMYK": 8, "YCbCr": 8}  # bytes a pixel
_ALPHA = 20
_DEEP = 28
_OF_DECODER = {"WEBP": 8, "AVIF": 8}
_COEFFICIENTS = 6  # of a progressive JPEG, three planes of two bytes


class TimedFile(BytesIO):
    """Bytes that a decoder reads, until it has used up its seconds of the processor.

    Formats that are decoded in one call (WebP, AVIF, most TIFFs) are stopped only after it.
    """

    def __init__(self, data: bytes, *, seconds: float, name: str) -> None:
        super().__init__(data)
        self._until = time.thread_time() + seconds
        self._seconds, self._name = seconds, name

    def read(self, size: int | None = -1, /) -> bytes:
        """Return the next bytes; raises PictureError where the time is over."""
        self.check()
        return super().read(size)

    def check(self) -> None:
        """Raise PictureError where the time is over."""
        if time.thread_time() > self._until:
            raise PictureError(
                "picture_too_slow",
                f"{self._name} takes more than {self._seconds:g} s to decode.",
                hint="Save it again, as a plain JPEG or PNG.",
            )


def check_scans(data: bytes, kind: str, name: str) -> None:
    """Raise PictureError for a JPEG with more scans than any encoder has a use for."""
    if kind != "JPEG":
        return
    if num_scans(data, at_most=MAX_SCANS) > MAX_SCANS:
        raise PictureError(
            "picture_too_slow",
            f"{name} is a JPEG of more than {MAX_SCANS} scans, expected about ten.",
            hint="Save it again, as a plain JPEG.",
        )


def check_memory(
    picture: Image.Image, kind: str, name: str, *, full: tuple[int, int], max_memory: int
) -> None:
    """Raise PictureError where decoding would take more bytes than `max_memory`.

    `full` is the size of the picture in the file, which a JPEG may be decoded below.
    """
    width, height = picture.size
    num_bytes = width * height * (_of_mode(picture) + _OF_DECODER.get(kind, 0))
    if picture.info.get("progressive"):
        num_bytes += full[0] * full[1] * _COEFFICIENTS
    if num_bytes > max_memory:
        raise PictureError(
            "picture_too_large",
            f"{name}, {width} x {height} in mode {picture.mode}, would take about "
            f"{num_bytes >> 20:,} MB to decode, expected at most {max_memory >> 20:,}.",
            hint="Make it smaller, or save it in eight bits and without transparency.",
        )


def _of_mode(picture: Image.Image) -> int:
    if "transparency" in picture.info or picture.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        return _ALPHA
    return _PLAIN.get(picture.mode, _DEEP)
