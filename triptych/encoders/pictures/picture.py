"""Anything that holds a picture, to an upright RGB picture, or to the reason why not.

What is decoded: JPEG (and MPO), PNG, WebP, GIF, BMP, TIFF, PPM, ICO and AVIF, recognised by
content; of an animation the first frame. Transparency is composited on white, or on grey what
would vanish there. A colour profile other than sRGB is converted; one that cannot be used is
ignored. A JPEG that lacks its end mark alone is read, one that lacks a bit of its pixels is not.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

from triptych.encoders.pictures.colour import from_array, to_rgb
from triptych.encoders.pictures.guard import TimedFile, check_memory, check_scans
from triptych.encoders.pictures.jpeg import ended, is_zeroed
from triptych.encoders.pictures.kind import decoder_of, icon_sizes, is_cut, refused_kind
from triptych.encoders.pictures.source import label, read_named, too_many_bytes
from triptych.errors import InvalidInput, PictureError
from triptych.types import ImageSource

_NEW_SUBFILE_TYPE = 254  # of a TIFF; its lowest bit: this is a small copy of another picture in it
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureLimits:
    """How much of a stranger's picture is read."""

    max_bytes: int = 64 * 2**20  # encoded
    max_pixels: int = 50_000_000  # really decoded: a large JPEG is decoded at a half to an eighth
    max_memory: int = 2**31  # bytes that decoding may take for a moment, see picture_guard
    max_seconds: float = 60.0  # of the processor


DEFAULT = PictureLimits()


def load_picture(
    source: ImageSource, *, limits: PictureLimits = DEFAULT, size_hint: int | None = None
) -> Image.Image:
    """Return the picture in RGB, upright; a JPEG may come smaller, its sides >= 2 x `size_hint`.

    Raises PictureError; its `code` begins with picture_ and says why.
    """
    if isinstance(source, np.ndarray):
        _check_pixels(source.shape[:2], "The array", limits=limits)
        return to_rgb(from_array(source))
    if isinstance(source, Image.Image):
        return _from_pil(source, limits=limits)
    data = picture_bytes(source, limits=limits)
    if data is None:
        raise InvalidInput(
            f"A picture cannot be a {type(source).__name__}, "
            "expected a path, a data URI, bytes, a PIL picture or an array."
        )
    return _decoded(data, label(source), limits=limits, size_hint=size_hint)


def picture_bytes(source: ImageSource, *, limits: PictureLimits = DEFAULT) -> bytes | None:
    """Return the encoded bytes behind `source`, None for a PIL picture or an array.

    Raises PictureError where there are none to be had, or too many.
    """
    if isinstance(source, (str, Path)):
        data = read_named(source, max_bytes=limits.max_bytes)
    elif isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    else:
        return None
    if len(data) < 2:
        raise PictureError("picture_empty", f"{label(source)} is empty.")
    if len(data) > limits.max_bytes:
        name = label(source)
        raise too_many_bytes(name, num_bytes=len(data), max_bytes=limits.max_bytes)
    return data


def thumbnail(picture: Image.Image, *, side: int = 256) -> bytes:
    """Return a JPEG of `picture`, its longer side at most `side`."""
    small = picture.convert("RGB") if picture.mode != "RGB" else picture.copy()
    small.thumbnail((side, side), Image.Resampling.BICUBIC, reducing_gap=2.0)
    buffer = BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _from_pil(picture: Image.Image, *, limits: PictureLimits) -> Image.Image:
    _check_pixels(picture.size, "The picture", limits=limits)
    try:
        return _finished(picture, "The picture")
    except PictureError:
        raise
    # it may be a file that is decoded only now: see _decoded
    except Exception:
        raise PictureError("picture_unreadable", "The picture cannot be decoded.") from None


def _decoded(
    data: bytes, name: str, *, limits: PictureLimits, size_hint: int | None
) -> Image.Image:
    kind = decoder_of(data)
    if kind is None:
        raise PictureError(
            "picture_format",
            f"{name} is {refused_kind(data)}, not a picture that can be read.",
            hint="Give JPEG, PNG, WebP, GIF, BMP, TIFF, PPM, ICO or AVIF.",
        )
    if kind == "JPEG" and is_zeroed(data):
        raise _cut_short(kind, name)
    started = time.thread_time()
    try:
        return _undamaged(data, kind, name, limits=limits, size_hint=size_hint)
    except PictureError:
        raise
    # a decoder that is fed garbage raises anything; its text may hold an address, so it is dropped
    except Exception as error:
        reason = _decode_error(kind, data, name, error)
    left = replace(limits, max_seconds=limits.max_seconds - (time.thread_time() - started))
    if kind == "JPEG" and (picture := _unended(data, name, limits=left, size_hint=size_hint)):
        return picture
    raise reason


def _undamaged(
    data: bytes, kind: str, name: str, *, limits: PictureLimits, size_hint: int | None
) -> Image.Image:
    check_scans(data, kind, name)
    file = TimedFile(data, seconds=limits.max_seconds, name=name)
    picture = _opened(file, kind)
    full = picture.size
    _check_whole(picture, name)
    _shrink(picture, kind, size_hint=size_hint, limits=limits)
    sizes = icon_sizes(data) if kind == "ICO" else []
    for size in [picture.size, *sizes]:
        _check_pixels(size, name, limits=limits)
    check_memory(picture, kind, name, full=full, max_memory=limits.max_memory)
    finished = _finished(picture, name)
    file.check()
    return finished


def _unended(
    data: bytes, name: str, *, limits: PictureLimits, size_hint: int | None
) -> Image.Image | None:
    """Return the picture of a JPEG that lacks its end mark only, None of one that lacks more."""
    third = replace(limits, max_seconds=limits.max_seconds / 3)

    def picture_of(variant: bytes) -> Image.Image:
        return _undamaged(variant, "JPEG", name, limits=third, size_hint=size_hint)

    def pixels_of(picture: Image.Image) -> bytes:
        return sha256(picture.tobytes()).digest()  # for one in memory its bytes were told

    variants = ended(data)
    if not variants:
        return None
    try:
        others = {pixels_of(picture_of(variant)) for variant in variants[1:]}
        picture = picture_of(variants[0])
    # as above: what garbage raises says only that it is some
    except Exception:
        return None
    return picture if others == {pixels_of(picture)} else None


def _opened(file: BytesIO, kind: str) -> Image.Image:
    """Return the picture, not decoded yet.

    As `Image.open` does, but with one decoder only, and without its own fixed limit, which warns.
    """
    if kind not in Image.OPEN:
        Image.init()
    factory, _ = Image.OPEN[kind]
    return factory(file, "")


def _check_whole(picture: Image.Image, name: str) -> None:
    """Raise PictureError for a TIFF that begins with a small copy of what it holds."""
    tags = getattr(picture, "tag_v2", {})  # which a TIFF alone has
    if tags.get(_NEW_SUBFILE_TYPE, 0) & 1:
        raise PictureError(
            "picture_format",
            f"{name} is camera raw (NEF, DNG ...) or alike: a TIFF of which only a small copy, "
            f"{picture.width} x {picture.height}, can be read.",
            hint="Export it as JPEG, PNG or an ordinary TIFF.",
        )


def _shrink(
    picture: Image.Image, kind: str, *, size_hint: int | None, limits: PictureLimits
) -> None:
    """Have a JPEG decoded at a half, a quarter or an eighth, where that is enough or a must."""
    if kind != "JPEG":
        return
    width, height = picture.size
    scale = min(width, height) // (2 * size_hint) if size_hint else 1
    # all coefficients of a progressive JPEG lie in memory, whatever the scale
    if not picture.info.get("progressive"):
        while scale < 8 and width * height > limits.max_pixels * max(scale, 1) ** 2:
            scale = max(scale, 1) * 2
    elif width * height > limits.max_pixels:
        return
    if scale > 1:
        picture.draft(None, (max(width // scale, 1), max(height // scale, 1)))


def _check_pixels(size: tuple[int, ...], name: str, *, limits: PictureLimits) -> None:
    num_pixels = int(np.prod([int(side) for side in size], dtype=np.float64))
    if num_pixels > limits.max_pixels:
        raise PictureError(
            "picture_too_large",
            f"{name} has {num_pixels / 1e6:,.1f} megapixels, "
            f"expected at most {limits.max_pixels / 1e6:,.1f}.",
            hint="Make it smaller, or raise the limit (max_pixels, --max-megapixels).",
        )


def _finished(picture: Image.Image, name: str) -> Image.Image:
    """Return the decoded picture upright and in RGB, free of its file and its metadata."""
    if min(picture.size) < 1:
        raise PictureError("picture_empty", f"{name} has no pixels.")
    picture.load()
    upright = _UPRIGHT.get(_orientation(picture))
    rgb = to_rgb(picture)
    if upright is not None:
        rgb = rgb.transpose(upright)
    elif type(rgb) is not Image.Image:
        rgb = rgb.copy()
    if rgb is not picture:
        rgb.info = {}  # else a second load would turn it, or convert its colours, once more
    return rgb


def _orientation(picture: Image.Image) -> int:
    try:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))
    # broken metadata is no reason to refuse the pixels
    except Exception:
        return 1


def _decode_error(kind: str, data: bytes, name: str, error: Exception) -> PictureError:
    cut = isinstance(error, EOFError) or "truncated" in str(error).lower() or is_cut(kind, data)
    if cut:
        return _cut_short(kind, name)
    what = "TIFF that is damaged, cut or camera raw" if kind == "TIFF" else f"damaged or cut {kind}"
    return PictureError("picture_unreadable", f"{name} is a {what}: it cannot be decoded.")


def _cut_short(kind: str, name: str) -> PictureError:
    return PictureError(
        "picture_truncated", f"{name} is cut short: a part of the {kind} is missing."
    )
