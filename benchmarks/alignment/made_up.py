"""The made-up scenes and their states."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from benchmarks.alignment.towers import PictureTower, Texts, TextTower
from benchmarks.common import DATA
from triptych.training.data import read_rows
from triptych.training.scenes import Scene, Thing, shapes, stamps, twins


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """Scenes with the states of their captions and pictures."""

    scenes: list[Scene]
    texts: Texts
    places_NPC: Tensor


def staged(name: str, things: list[Thing], *, count: int, seed: int) -> Staged:
    """Return `count` pairs of twins."""
    scenes = twins(things, count=count, seed=seed)
    return Staged(
        scenes=scenes,
        texts=TextTower()([scene.caption for scene in scenes]),
        places_NPC=PictureTower()(f"{name}-{seed}", len(scenes), lambda row: scenes[row].picture),
    )


def of_shapes(*, count: int, seed: int) -> Staged:
    return staged("shapes", shapes(), count=count, seed=seed)


def of_emoji(*, count: int, seed: int) -> Staged:
    """Things that no training saw, by names that none heard."""
    things = stamps(read_rows(DATA / "emoji.parquet", splits=["dev"]))
    return staged("emoji", things, count=count, seed=seed)
