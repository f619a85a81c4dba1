"""The cache of feature maps: the lower, frozen part of the picture tower runs once per view.

N pictures, H W rows and columns, C channels. View 0 is the picture squashed to a square, as in use;
the others are random crops with changed light. Flips and further crops are made on the maps.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor

from triptych.encoders.pictures.picture import load_picture
from triptych.encoders.towers.mobilenet import IMAGE_SIZE, MobileNet
from triptych.errors import InvalidInput, PictureError
from triptych.pairs import Row
from triptych.training.precision import autocast

LOG = logging.getLogger(__name__)

CUT = 26  # 14x14x96: what lies above is a fifth of the multiplications
MAP_SHAPE = (14, 14, 96)
BATCH = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewCache:
    """Maps of one set in a file per view, bfloat16, mapped into memory."""

    folder: Path
    name: str
    num_pictures: int
    seed: int  # other crops and light for another

    def path(self, view: int) -> Path:
        drawn = f"{self.seed}.{view}" if view else "whole"
        return self.folder / f"{self.name}.{drawn}.bf16"

    def maps(self, view: int) -> Tensor:
        """maps_NHWC of one view, backed by its file."""
        height, width, channels = MAP_SHAPE
        size = self.num_pictures * height * width * channels
        flat = torch.from_file(str(self.path(view)), shared=True, size=size, dtype=torch.bfloat16)
        return flat.view(self.num_pictures, height, width, channels)


def build_cache(
    rows: Sequence[Row], *, name: str, views: int, seed: int, folder: Path, tower: MobileNet
) -> ViewCache:
    """Compute the views that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    cache = ViewCache(folder=folder, name=name, num_pictures=len(rows), seed=seed)
    for view in range(views):
        done = cache.path(view).with_suffix(".done")
        if done.exists():
            continue
        LOG.info("features of %s, view %d, %d pictures", name, view, len(rows))
        pixels = pixel_batches(rows, view=view, seed=seed)
        _fill(cache.maps(view), pixels=pixels, tower=tower)
        done.touch()
    return cache


def _fill(maps_NHWC: Tensor, *, pixels: Iterator[Tensor], tower: MobileNet) -> None:
    start = 0
    with torch.inference_mode(), autocast(torch.device("cpu")):
        for pixels_BCHW in pixels:
            map_BCHW = tower(pixels_BCHW, until=CUT)
            stop = start + len(map_BCHW)
            maps_NHWC[start:stop] = map_BCHW.permute(0, 2, 3, 1).to(torch.bfloat16)
            start = stop


def pixel_batches(rows: Sequence[Row], *, view: int = 0, seed: int = 0) -> Iterator[Tensor]:
    """pixels_BCHW of one view, in order; the first is the whole picture, whatever the seed."""

    def prepare(index: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        picture = _opened(rows[index])
        return np.asarray(
            varied(picture, Random(f"{seed}:{view}:{index}")) if view else squash(picture)  # noqa: S311
        )

    with ThreadPoolExecutor(2) as pool:
        for start in range(0, len(rows), BATCH):
            stop = min(start + BATCH, len(rows))
            yield to_pixels(np.stack(list(pool.map(prepare, range(start, stop)))))


def _opened(row: Row) -> Image.Image:
    assert row.image is not None
    try:
        return load_picture(row.image)
    except PictureError as error:
        raise InvalidInput(
            f"The picture of the row {row.id!r} cannot be read: {error.message}", hint=error.hint
        ) from None


def to_pixels(bytes_NHWC: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    """pixels_NCHW in -1..1, channels last in memory."""
    pixels_NHWC = torch.from_numpy(bytes_NHWC).float().mul_(1 / 127.5).sub_(1.0)
    return pixels_NHWC.permute(0, 3, 1, 2)


def squash(picture: Image.Image) -> Image.Image:
    """The whole picture as a square: nothing is cut away."""
    return picture.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)


def varied(picture: Image.Image, random: Random) -> Image.Image:
    """A random crop of 45 to 100 % of the area, perhaps mirrored, in changed light."""
    width, height = picture.size
    area, stretch = random.uniform(0.45, 1.0), random.uniform(0.85, 1.18)
    part_x, part_y = min(1.0, (area * stretch) ** 0.5), min(1.0, (area / stretch) ** 0.5)
    left, top = random.uniform(0, 1 - part_x) * width, random.uniform(0, 1 - part_y) * height
    box = (left, top, left + part_x * width, top + part_y * height)
    picture = picture.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR, box=box)
    if random.random() < 0.5:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    for enhancer in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhancer(picture).enhance(random.uniform(0.75, 1.3))
    return picture
