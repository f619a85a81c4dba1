"""Every mode of Pillow to plain RGB: scaled, not clamped; composited, not unmasked.

What is transparent becomes white; grey where the picture is so white itself that it would vanish.
"""

from __future__ import annotations

from functools import lru_cache
from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageStat

from triptych.errors import PictureError

_WIDE = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_MAX_PROFILE_BYTES = 4 * 2**20
_WHITE = (255, 255, 255)
_GREY = (160, 160, 160)  # of white, greys and black the one on which white shapes were found best
_NEARLY_WHITE = 224
_OPAQUE = 128


def to_rgb(picture: Image.Image) -> Image.Image:
    """Return `picture` in RGB, its colour profile applied; RGB without a profile comes back as is.

    Raises PictureError for values that are not finite.
    """
    profile = picture.info.get("icc_profile")
    if picture.mode in _WIDE:
        picture = _narrowed(picture)
    elif picture.mode == "LAB":
        return _converted(picture, None)
    if picture.has_transparency_data:
        picture = _composited(picture, profile)
    elif profile and picture.mode in ("RGB", "CMYK"):
        picture = _converted(picture, profile)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def from_array(array: NDArray[Any]) -> Image.Image:
    """Return the picture in an array H x W, H x W x 1, 3 or 4; floats are 0..1, else uint8."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        raise PictureError(
            "picture_array", f"An array has the shape {array.shape}, expected H x W (x 3 or 4)."
        )
    if array.size == 0:
        raise PictureError("picture_empty", f"An array of shape {array.shape} holds no pixels.")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(_as_uint8(array)))


def _as_uint8(array: NDArray[Any]) -> NDArray[np.uint8]:
    if array.dtype == np.uint8:
        return np.asarray(array, dtype=np.uint8)
    if array.dtype.kind != "f":
        raise PictureError(
            "picture_array", f"An array of {array.dtype}, expected uint8 or floats in 0..1."
        )
    # written so that NaN fails it too
    if not (float(array.min()) >= 0.0 and float(array.max()) <= 1.0):
        raise PictureError("picture_array", "An array holds NaN or values outside 0..1.")
    return np.asarray(np.rint(array.astype(np.float32) * 255.0), dtype=np.uint8)


def _narrowed(picture: Image.Image) -> Image.Image:
    """Return the L picture of one with 16 or 32 bits; Pillow's own conversion clamps at 255."""
    values = np.asarray(picture).astype(np.float64)
    if not np.isfinite(values).all():
        raise PictureError("picture_unreadable", "The picture holds NaN or infinity.")
    low, high = _range(picture.mode, float(values.min()), float(values.max()))
    scaled = (values - low) * (255.0 / (high - low))
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


def _range(mode: str, low: float, high: float) -> tuple[float, float]:
    """Return the values that stand for black and white: the usual scale that holds them all."""
    scales = (65535.0,) if mode != "F" else (1.0, 255.0, 65535.0)
    for scale in scales:
        if low >= 0.0 and high <= scale:
            return 0.0, scale
    return low, high


def flattened(colours: Image.Image, alpha: Image.Image) -> Image.Image:
    """Return RGB `colours` on white; on grey where on white nothing of them would be seen."""
    ground = Image.new("RGB", colours.size, _WHITE)
    ground.paste(colours, mask=alpha)
    darkest = min(low for low, _ in ImageStat.Stat(ground).extrema)
    if darkest >= _NEARLY_WHITE and ImageStat.Stat(alpha).extrema[0][1] >= _OPAQUE:
        ground.paste(_GREY, (0, 0, *ground.size))  # in place: a copy more is memory nobody told
        ground.paste(colours, mask=alpha)
    return ground


def _composited(picture: Image.Image, profile: bytes | None) -> Image.Image:
    if picture.mode == "La":
        picture = picture.convert("LA")
    rgba = picture.convert("RGBA")
    colours = rgba.convert("RGB")
    if profile and picture.mode != "LA":
        colours = _converted(colours, profile)
    return flattened(colours, rgba.getchannel("A"))


def _converted(picture: Image.Image, profile: bytes | None) -> Image.Image:
    """Return `picture` in sRGB; a profile that is broken, huge or of another space is ignored."""
    if profile and (len(profile) > _MAX_PROFILE_BYTES or _is_srgb(profile)):
        return picture.convert("RGB")
    try:
        converted = _transform(profile, picture.mode).apply(picture)
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture.convert("RGB")
    return converted


def _is_srgb(profile: bytes) -> bool:
    head = profile[:4096]
    return b"sRGB" in head or "sRGB".encode("utf-16-be") in head


@lru_cache(maxsize=16)  # building one costs more than applying it
def _transform(profile: bytes | None, mode: str) -> ImageCms.ImageCmsTransform:
    source = ImageCms.getOpenProfile(BytesIO(profile)) if profile else ImageCms.createProfile("LAB")
    # without lcms's cache of the last pixel a transform may be shared between threads
    return ImageCms.buildTransform(
        source, ImageCms.createProfile("sRGB"), mode, "RGB", flags=ImageCms.Flags.NOCACHE
    )
