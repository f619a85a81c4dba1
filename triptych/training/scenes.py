"""Pictures made up for the purpose: things at known places, and a sentence that says where.

Scenes come in twins that hold the same two things in exchanged places, so that only the relation
tells their sentences apart.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import NamedTuple

from PIL import Image, ImageDraw

from triptych.errors import InvalidInput
from triptych.pairs import Row

SIZE = 224
COLOURS = {
    "red": (210, 40, 40),
    "green": (40, 160, 60),
    "blue": (50, 80, 210),
    "yellow": (235, 205, 50),
    "purple": (140, 60, 170),
    "orange": (240, 140, 40),
    "black": (25, 25, 25),
    "brown": (120, 75, 40),
}
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
# what the first thing is to the second, and where its middle lies from there: right, down
RELATIONS = {"left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "below": (0, 1)}
_NAME = re.compile(r"[A-Za-z]+( [A-Za-z]+){0,2}")
_DRAWN = SIZE  # shapes are drawn larger than they come to lie, for smooth edges


class Box(NamedTuple):
    """A part of a picture, edges in 0..1."""

    left: float
    top: float
    right: float
    bottom: float


class Thing(NamedTuple):
    """What can be put into a scene."""

    name: str
    cutout: Image.Image  # RGBA


@dataclass(frozen=True, slots=True, kw_only=True)
class Mention:
    """Characters start:stop of a sentence speak of what is in the box."""

    start: int
    stop: int
    box: Box


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A picture and two sentences about it."""

    picture: Image.Image
    caption: str
    swapped: str  # the same words with the two things exchanged: false here, true of the twin
    mentions: tuple[Mention, Mention]  # in `caption`


def shapes() -> list[Thing]:
    """Return every shape in every colour, "red circle" and so on."""
    return [
        Thing(f"{colour} {shape}", _drawn(shape, rgb))
        for colour, rgb in COLOURS.items()
        for shape in SHAPES
    ]


def stamps(rows: Iterable[Row]) -> list[Thing]:
    """Return the pictures of rows as things, where the label is a name of one to three words."""
    return [
        Thing(row.label.lower(), Image.open(io.BytesIO(row.image)).convert("RGBA"))
        for row in rows
        if row.image is not None and _NAME.fullmatch(row.label)
    ]


def twins(things: Sequence[Thing], *, count: int, seed: int, clutter: int = 1) -> list[Scene]:
    """Return `count` pairs of scenes, one after the other: 2i and 2i + 1 are twins.

    `clutter` further things lie about, of which no sentence speaks. The same arguments give the
    same scenes. Raises InvalidInput where there are too few things, or no room for the clutter.
    """
    if not 0 <= clutter <= 3 or len(things) < 2 + clutter:
        raise InvalidInput(
            f"Got {len(things)} things and a clutter of {clutter}, expected at most 3 of clutter "
            "and two things more than that."
        )
    random = Random(seed)  # noqa: S311
    found: list[Scene] = []
    for _ in range(count):
        found += _pair(things, random, clutter=clutter)
    return found


def _pair(things: Sequence[Thing], random: Random, *, clutter: int) -> list[Scene]:
    one, other, *rest = random.sample(things, 2 + clutter)
    relation = random.choice(list(RELATIONS))
    boxes = _boxes(random, RELATIONS[relation], count=2 + clutter)
    ground = tuple(random.randint(200, 255) for _ in range(3))
    return [
        _scene(first, second, relation, ground, [first, second, *rest], boxes)
        for first, second in ((one, other), (other, one))
    ]


def _scene(
    first: Thing,
    second: Thing,
    relation: str,
    ground: tuple[int, ...],
    things: Sequence[Thing],
    boxes: Sequence[Box],
) -> Scene:
    picture = Image.new("RGB", (SIZE, SIZE), ground)
    for thing, box in zip(things, boxes, strict=True):
        left, top, right, bottom = (round(SIZE * edge) for edge in box)
        cutout = thing.cutout.resize((right - left, bottom - top), Image.Resampling.LANCZOS)
        picture.paste(cutout, (left, top), cutout)
    caption, (at_first, at_second) = _sentence(first.name, relation, second.name)
    return Scene(
        picture=picture,
        caption=caption,
        swapped=_sentence(second.name, relation, first.name)[0],
        mentions=(
            Mention(start=at_first, stop=at_first + len(first.name), box=boxes[0]),
            Mention(start=at_second, stop=at_second + len(second.name), box=boxes[1]),
        ),
    )


def _sentence(first: str, relation: str, second: str) -> tuple[str, tuple[int, int]]:
    """Return the sentence and where the two names begin in it."""
    head = f"{_article(first)} "
    middle = f"{head}{first} {relation} {_article(second)} "
    return middle + second, (len(head), len(middle))


def _article(name: str) -> str:
    return "an" if name[0] in "aeiou" else "a"


def _boxes(random: Random, direction: tuple[int, int], *, count: int) -> list[Box]:
    """Boxes that do not touch; the first lies in `direction` from the second, clearly."""
    while True:
        boxes = [_box(random) for _ in range(count)]
        apart = all(not _touch(one, other) for at, one in enumerate(boxes) for other in boxes[:at])
        if apart and _lies(boxes[0], boxes[1], direction):
            return boxes


def _box(random: Random) -> Box:
    side = random.uniform(0.2, 0.34)
    left, top = random.uniform(0.01, 0.99 - side), random.uniform(0.01, 0.99 - side)
    return Box(left, top, left + side, top + side)


def _touch(one: Box, other: Box) -> bool:
    return (
        one.left < other.right + 0.02
        and other.left < one.right + 0.02
        and one.top < other.bottom + 0.02
        and other.top < one.bottom + 0.02
    )


def _lies(one: Box, other: Box, direction: tuple[int, int]) -> bool:
    right = (one.left + one.right - other.left - other.right) / 2
    down = (one.top + one.bottom - other.top - other.bottom) / 2
    along = right * direction[0] + down * direction[1]
    across = right * direction[1] + down * direction[0]
    return along > 0.25 and along > 1.5 * abs(across)


def _drawn(shape: str, rgb: tuple[int, int, int]) -> Image.Image:
    side = _DRAWN
    picture = Image.new("RGBA", (side, side), (*rgb, 0))
    draw, last = ImageDraw.Draw(picture), side - 1
    if shape == "circle":
        draw.ellipse((0, 0, last, last), fill=rgb)
    elif shape == "ring":
        draw.ellipse((0, 0, last, last), outline=rgb, width=side // 5)
    elif shape == "square":
        draw.rectangle((0, 0, last, last), fill=rgb)
    elif shape == "cross":
        draw.rectangle((side // 3, 0, 2 * side // 3, last), fill=rgb)
        draw.rectangle((0, side // 3, last, 2 * side // 3), fill=rgb)
    else:
        draw.polygon(_corners(shape, side), fill=rgb)
    return picture


def _corners(shape: str, side: int) -> list[tuple[float, float]]:
    if shape == "triangle":
        return [(side / 2, 0), (side, side), (0, side)]
    turns = [math.pi * (step / 5 - 0.5) for step in range(10)]
    radii = [side / 2 if step % 2 == 0 else side / 5 for step in range(10)]
    return [
        (side / 2 + radius * math.cos(turn), side / 2 + radius * math.sin(turn))
        for turn, radius in zip(turns, radii, strict=True)
    ]
