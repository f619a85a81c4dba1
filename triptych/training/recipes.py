"""Recipes: functions that return what a run is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace


MIXTURE = {
    "flickr8k": 0.42,
    "fashion": 0.17,
    "emoji": 0.09,
    "emoji_names": 0.05,
    "vietnamese": 0.07,
    "grocery": 0.06,
    "caltech101": 0.05,
    "clothing": 0.03,
    "medpix": 0.02,
    "law": 0.02,
    "imagenet": 0.02,
}
VIEWS = {"flickr8k": 3, "grocery": 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Everything that a run depends on but the data."""

    name: str
    steps: int
    mixture: Mapping[str, float] = field(default_factory=lambda: dict(MIXTURE))  # set -> share of the steps
    views: Mapping[str, int] = field(default_factory=lambda: dict(VIEWS))  # set -> cached views, else 1
    batch: int = 128  # pictures, or pairs of texts
    warmup: int = 60  # steps over which the rates rise
    lr_head: float = 5e-4
    lr_text: float = 4e-5
    lr_words: float = 1e-4  # the table of words: new pieces have far to go
    lr_picture: float = 6e-5
    layer_decay: float = 0.85  # of the text tower's learning rate, per layer downwards
    weight_decay: float = 0.05
    train_text: bool = True
    picture_after: int | None = 41  # layers above this one are trained; None: the trunk is frozen
    attend: bool = True  # attention pooling beside the mean
    joint_weight: float = 0.3  # of the joint loss, beside the cross-modal one
    ema: float = 0.995
    dim: int = 384
    num_new_pieces: int = 8000
    seed: int = 7
    eval_every: int = 250
    threads: int = 2


def default() -> Recipe:
    """The model that ships."""
    return Recipe(name="default", steps=1500)


def attention_pool() -> Recipe:
    """Frozen towers, trained heads with attention pooling."""
    return replace(default(), name="attention_pool", steps=500, train_text=False, picture_after=None)


def floor() -> Recipe:
    """Frozen towers, heads on the mean of the features, one view: what ten seconds of training give."""
    return replace(attention_pool(), name="floor", attend=False, views={}, mixture={"flickr8k": 1.0})


def smoke() -> Recipe:
    """A few steps on made-up data, for tests."""
    return Recipe(
        name="smoke", steps=6, batch=8, warmup=2, num_new_pieces=200, eval_every=3, views={}, threads=1,
        mixture={"flickr8k": 0.5, "emoji": 0.5},
    )  # fmt: skip
