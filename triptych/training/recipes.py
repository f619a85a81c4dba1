"""Recipes: functions that return what a run is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

MIXTURE = {
    "flickr8k": 0.41,
    "fashion": 0.22,
    "emoji": 0.11,
    "emoji_names": 0.04,
    "vietnamese": 0.06,
    "grocery": 0.07,
    "caltech101": 0.04,
    "clothing": 0.02,
    "medpix": 0.02,
    "law": 0.01,
}
VIEWS = {"flickr8k": 3, "grocery": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that a run depends on but the data."""

    name: str
    steps: int
    mixture: Mapping[str, float] = field(
        default_factory=lambda: dict(MIXTURE)
    )  # set -> share of the steps
    views: Mapping[str, int] = field(
        default_factory=lambda: dict(VIEWS)
    )  # set -> cached views, else 1
    batch: int = 128  # pictures, or pairs of texts
    warmup: int = 40  # steps over which the rates rise
    lr_head: float = 5e-4
    lr_text: float = 5e-5
    lr_words: float = 1e-4  # the table of words: new pieces have far to go
    lr_picture: float = 8e-5
    layer_decay: float = 0.85  # of the text tower's learning rate, per layer downwards
    weight_decay: float = 0.05
    train_text: bool = True
    picture_after: int | None = 41  # layers above this one are trained; None: the trunk is frozen
    attend: bool = True  # attention pooling beside the mean
    joint_weight: float = 0.3  # of the joint loss, beside the cross-modal one
    ema: float = 0.99
    dim: int = 384
    num_new_pieces: int = 8000
    head_steps: int = 130  # steps with frozen towers before, so that no noise goes down into them
    seed: int = 7
    eval_every: int = 200
    threads: int = 2


def default() -> Recipe:
    """The model that ships."""
    return Recipe(name="default", steps=650)


def heads_of(recipe: Recipe) -> Recipe:
    """The short stage before the towers move: heads alone, at a high rate."""
    return replace(
        recipe,
        name=f"{recipe.name}_heads",
        steps=recipe.head_steps,
        eval_every=recipe.head_steps,
        warmup=min(15, recipe.head_steps),
        lr_head=2e-3,
        ema=0.97,
        train_text=False,
        picture_after=None,
        head_steps=0,
    )


def attention_pool() -> Recipe:
    """Frozen towers, trained heads with attention pooling, Flickr8k alone."""
    recipe = replace(default(), name="attention_pool", mixture={"flickr8k": 1.0}, head_steps=300)
    return replace(heads_of(recipe), name="attention_pool")


def floor() -> Recipe:
    """Frozen towers, a head on the mean of the features, one view: the least that is possible."""
    return replace(attention_pool(), name="floor", attend=False, views={})


def smoke() -> Recipe:
    """A few steps on made-up data, for tests."""
    return Recipe(
        name="smoke",
        steps=6,
        mixture={"flickr8k": 0.5, "emoji": 0.5},
        views={},
        batch=8,
        warmup=2,
        num_new_pieces=200,
        head_steps=2,
        eval_every=3,
        threads=1,
    )


RECIPES = {recipe.__name__: recipe for recipe in (default, floor, attention_pool, smoke)}
