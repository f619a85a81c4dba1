"""What of a picture a tower sees, as a square of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The whole picture as it is, unless said otherwise."""

    middle: float = 1.0  # share of each side that is looked at, around the middle
    mirrored: bool = False

    def square(self, picture: Image.Image, side: int) -> NDArray[np.uint8]:
        """Return pixels (side, side, 3) of an RGB picture, whatever its shape squashed to these."""
        width, height = picture.size
        left, top = width * (1 - self.middle) / 2, height * (1 - self.middle) / 2
        seen = picture.resize(
            (side, side),
            Image.Resampling.BILINEAR,
            box=(left, top, width - left, height - top),
        )
        return np.asarray(ImageOps.mirror(seen) if self.mirrored else seen)


FINE = (Look(), Look(middle=0.8, mirrored=True))
"""Averaged they find more than the whole alone (docs/benchmarks.md, Two looks)."""
