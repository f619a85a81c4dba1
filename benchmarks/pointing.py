"""Does the heat of a word lie on the thing that it names? The pointing game (Zhang et al. 2016).

Pictures of two things of different names, each a quarter to a half of a side wide, at random places
that do not overlap, on a background of one random colour: so the boxes are known. Each thing is
named once, and the hottest place of the 7 x 7 counts where its middle lies in the thing's box.
Beside it: a guess at the middle of the picture, and a guess at a random place.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

import numpy as np
from PIL import Image

from benchmarks.common import DATA
from triptych.encoders.onnx import OnnxModel
from triptych.training.data import read_rows

SETS = ("emoji", "caltech101", "grocery")  # drawn stamps, photos of one thing, photos of shelves
SEEDS = (0, 1, 2)
PICTURES = 150  # a seed
SIDE = 224

Box: TypeAlias = tuple[int, int, int, int]  # left, top, right, bottom


@dataclass(frozen=True, slots=True)
class Thing:
    name: str
    image: bytes


def main() -> None:
    model = OnnxModel.load()
    print(f"{PICTURES} pictures of two things a seed, {len(SEEDS)} seeds: in the box, percent")
    print(f"  {'':<12}{'heat':>14}{'middle':>14}{'random':>14}{'heat / middle':>15}")
    for name in SETS:
        things = _things(name)
        rates = np.array([_play(model, things, seed) for seed in SEEDS])
        mean, spread = rates.mean(axis=0), rates.std(axis=0)
        cells = "".join(f"{m:8.1f} ± {s:3.1f}" for m, s in zip(mean, spread, strict=True))
        print(f"  {name:<12}{cells}{mean[0] / mean[1]:14.2f}x")


def _play(model: OnnxModel, things: Sequence[Thing], seed: int) -> tuple[float, float, float]:
    random = Random(seed)
    hits = np.zeros(3)
    for _ in range(PICTURES):
        picture, named = _composed(things, random)
        (lost_RCM,) = model.hidden_places([picture])
        vectors_WM = model.embed_texts([thing.name for thing, _ in named])
        for (_, box), vector_M in zip(named, vectors_WM, strict=True):
            grid_RC = lost_RCM @ vector_M
            rows, columns = grid_RC.shape
            row, column = divmod(int(grid_RC.argmax()), columns)
            guesses = [
                ((column + 0.5) / columns, (row + 0.5) / rows),
                (0.5, 0.5),
                (random.random(), random.random()),
            ]
            hits += [_inside(box, SIDE * x, SIDE * y) for x, y in guesses]
    heat, middle, chance = 100 * hits / (2 * PICTURES)
    return float(heat), float(middle), float(chance)


def _composed(
    things: Sequence[Thing], random: Random
) -> tuple[Image.Image, list[tuple[Thing, Box]]]:
    """Return a picture of two things of different names, and their boxes."""
    one = random.choice(things)
    other = random.choice([thing for thing in things if thing.name != one.name])
    picture = Image.new("RGB", (SIDE, SIDE), tuple(random.randrange(256) for _ in range(3)))
    boxes: list[Box] = []
    for thing in (one, other):
        part = Image.open(io.BytesIO(thing.image)).convert("RGBA")
        box = _place(part.size, boxes, random)
        part = part.resize((box[2] - box[0], box[3] - box[1]))
        picture.paste(part, box[:2], part)
        boxes.append(box)
    return picture, [(one, boxes[0]), (other, boxes[1])]


def _place(size: tuple[int, int], taken: Sequence[Box], random: Random) -> Box:
    """Return where a thing of this shape stands, beside what is there."""
    while True:
        longest = random.randint(SIDE // 4, SIDE // 2)
        width, height = (max(1, longest * side // max(size)) for side in size)
        left, top = random.randint(0, SIDE - width), random.randint(0, SIDE - height)
        box = (left, top, left + width, top + height)
        if not any(_overlap(box, other) for other in taken):
            return box


def _overlap(one: Box, other: Box) -> bool:
    beside = one[2] <= other[0] or other[2] <= one[0]
    return not (beside or one[3] <= other[1] or other[3] <= one[1])


def _inside(box: Box, x: float, y: float) -> bool:
    return box[0] <= x < box[2] and box[1] <= y < box[3]


def _things(name: str) -> list[Thing]:
    """Return the dev pictures of a set; what has no name is left out."""
    return [
        Thing(name=row.texts[0] if row.texts else row.label, image=row.image)
        for row in read_rows(DATA / f"{name}.parquet", splits=["dev"])
        if row.image and (row.texts or row.label)
    ]


if __name__ == "__main__":
    main()
