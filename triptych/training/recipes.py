"""Recipes: functions that return the stages of a run, each with everything that it depends on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from triptych.encoders.cross_modal.fusion import CrossModalConfig
from triptych.encoders.hubness import HubnessConfig
from triptych.encoders.scorers.token_matcher import TokenMatcherConfig
from triptych.errors import InvalidInput
from triptych.model import JointConfig
from triptych.moe.layer import MoEConfig
from triptych.training.languages import LanguagesConfig
from triptych.training.schedule import Kind
from triptych.training.sources import is_own
from triptych.training.sparsity import SparsityConfig

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
    "clipart": 0.08,
    "law": 0.01,
}
VIEWS = {"flickr8k": 4, "grocery": 2}
DUAL = JointConfig(dim=384, prefixes=())
JOINT = JointConfig(
    fusion=CrossModalConfig(
        text_width=384, picture_width=384, width=192, hidden=384, num_latents=8
    ),
    # the rate that the shipped model was trained with
    moe=MoEConfig(width=384, hidden=64, zero_output=True, balance_rate=0.02),
    scorer=TokenMatcherConfig(),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One stage: everything that it depends on but the data and where it starts."""

    name: str
    steps: int
    model: JointConfig = DUAL
    mixture: Mapping[str, float] = field(
        default_factory=lambda: dict(MIXTURE)
    )  # set -> share of the steps
    own: float = 0.5  # the share of each set that no recipe names
    views: Mapping[str, int] = field(
        default_factory=lambda: dict(VIEWS)
    )  # set -> cached views, else 1
    most_pictures: int | None = None  # of a set, but for those that hubs are measured on
    batch: int = 128  # pictures, or pairs of texts
    looks: int = (
        1  # views of every picture in a batch, which are alike as a picture and its texts are
    )
    warmup: int = 40  # steps over which the rates rise
    lr_head: float = 5e-4
    lr_new: float = 1e-3  # fusion, experts, scorer, prototypes
    lr_text: float = 5e-5
    lr_words: float = 1e-4  # the table of words: new pieces have far to go
    lr_picture: float = 8e-5
    layer_decay: float = 0.85  # of the text tower's learning rate, per layer downwards
    weight_decay: float = 0.05
    shipped: bool = False  # the first stage goes on from the model in the package
    train_text: bool = True
    picture_after: int | None = 41  # layers above this one are trained; None: the trunk is frozen
    scorer_only: bool = False  # the pair scorer alone learns, from states that stay
    languages: LanguagesConfig | None = None  # the text tower alone learns: others than English
    hubness: HubnessConfig | None = None  # hubs are measured when all else is learnt
    hub_sets: tuple[str, ...] = ("flickr8k",)  # whose questions they are measured on
    sparsity: SparsityConfig | None = None  # which weights above the towers are left, and when
    weights: Kind = "fixed"  # of the four terms
    prefixes: Mapping[int, float] = field(default_factory=lambda: {384: 1.0})  # length -> weight
    joint_weight: float = 0.3  # of the joint loss, beside the cross-modal one
    both_weight: float = 0.0  # of the contrast between a picture with a text and another text
    token_weight: float = 0.0  # of late interaction, words to patches
    token_scale: float = 20.0  # its inverse temperature
    classified: tuple[str, ...] = ()  # sets whose labels are learnt too
    ema: float = 0.99
    kept: float = 0.0  # share in the result of the weights that the stage began with
    num_new_pieces: int = 8000
    seed: int = 7
    eval_every: int = 200
    patience: int = 0  # measurements without a better first figure before it stops; 0: never
    threads: int = 2

    def mixture_of(self, names: Collection[str]) -> dict[str, float]:
        """Return the shares of the sets that are there; raises InvalidInput where none is."""
        shares = {**self.mixture, **{name: self.own for name in names if is_own(name)}}
        found = {name: share for name, share in shares.items() if name in names}
        if not found:
            raise InvalidInput(
                f"The stage {self.name} learns from {', '.join(self.mixture)}: none is there."
            )
        return found

    def views_of(self, name: str) -> int:
        """Return how many views of a set are cached; of one that no recipe names, many."""
        return self.views.get(name, max(self.views.values(), default=1) if is_own(name) else 1)

    def most_pictures_of(self, name: str) -> int | None:
        """Return how many pictures of a set are looked at, None for all."""
        return None if name in self.hub_sets or is_own(name) else self.most_pictures

    def at_most(self, steps: int) -> Recipe:
        """Return the stage with so many steps or fewer."""
        steps = min(steps, self.steps)
        warmup, eval_every = min(self.warmup, steps // 4), min(self.eval_every, steps)
        return replace(self, steps=steps, warmup=warmup, eval_every=eval_every)


Stages: TypeAlias = tuple[Recipe, ...]


def base() -> Stages:
    """A dual tower from its pretrained starts: heads first, as noise must not go down; then all."""
    towers = Recipe(name="base", steps=650)
    heads = replace(
        towers,
        name="base_heads",
        steps=130,
        eval_every=130,
        warmup=15,
        lr_head=2e-3,
        ema=0.97,
        train_text=False,
        picture_after=None,
    )
    return heads, towers


def joint() -> Stages:
    """The joint model, from the dual tower: what is new first, then all, then the pair scorer."""
    everything = Recipe(
        name="joint",
        steps=420,
        model=JOINT,
        mixture={**MIXTURE, "flickr8k": 0.5},
        lr_head=2e-4,
        lr_new=5e-4,
        prefixes={512: 1.0, 256: 0.5, 128: 0.25, 64: 0.25},
        both_weight=0.25,
        token_weight=0.1,
        classified=("fashion", "caltech101", "clothing", "grocery"),
        eval_every=140,
    )
    new = replace(
        everything,
        name="joint_new",
        mixture=dict(MIXTURE),
        steps=60,
        eval_every=60,
        warmup=10,
        lr_head=5e-4,
        lr_new=2e-3,
        ema=0.95,
        train_text=False,
        picture_after=None,
    )
    pairs = replace(
        everything,
        name="pairs",
        steps=600,
        mixture={"flickr8k": 0.85, "fashion": 0.1, "grocery": 0.05},
        eval_every=200,
        warmup=20,
        lr_new=1e-3,
        both_weight=0.0,
        train_text=False,
        picture_after=None,
        scorer_only=True,
        hubness=HubnessConfig(),
    )
    return new, everything, pairs


def default() -> Stages:
    """The model that ships."""
    return *base(), *joint()


def sparse() -> Stages:
    """The same with 30 % of the weights above the towers; most are the experts', which lose most.

    Not what ships: a zero takes as many bytes and as much time as any other number.
    """
    new, everything, pairs = joint()
    thin = replace(everything, name="sparse", sparsity=SparsityConfig(by_shape=True))
    return *base(), new, thin, replace(pairs, name="sparse_pairs")


def more() -> Stages:
    """The model in the package, taught further: at half the rates, as it is near its end.

    With twice the views, as it has seen the first ones often. What it ends with is averaged with
    what it began with: better than either on what was seen most (Wortsman et al. 2022, 2109.01903).
    """
    _, everything, pairs = joint()
    further = replace(
        everything,
        name="more",
        shipped=True,
        views={name: 2 * number for name, number in VIEWS.items()},
        steps=600,
        warmup=40,
        eval_every=150,
        lr_head=1e-4,
        lr_new=2.5e-4,
        lr_text=2.5e-5,
        lr_words=5e-5,
        lr_picture=4e-5,
        kept=0.4,
    )
    return further, replace(pairs, name="more_pairs")


def languages() -> Stages:
    """The model in the package, its text tower taught other languages by texts alone.

    The sets of the mixture say what is held where it was. Few pictures, and one view of each, will
    do: only hubs and the experts' budget are measured on them.
    """
    taught = Recipe(
        name="languages",
        model=JOINT,
        shipped=True,
        languages=LanguagesConfig(),
        hubness=HubnessConfig(),
        mixture={
            "flickr8k": 0.38,
            "emoji": 0.18,
            "fashion": 0.16,
            "vietnamese": 0.08,
            "grocery": 0.06,
            "caltech101": 0.06,
            "clipart": 0.03,
            "medpix": 0.03,
            "clothing": 0.02,
        },
        views={},
        most_pictures=400,
        prefixes={512: 1.0, 256: 0.5, 128: 0.25, 64: 0.25},
        steps=180,
        eval_every=180,
        warmup=15,
        lr_words=6e-4,
        lr_text=1.2e-4,
        layer_decay=0.9,
        weight_decay=0.0,
        picture_after=None,
    )
    return (taught,)


def attention_pool() -> Stages:
    """Frozen towers, trained heads with attention pooling, Flickr8k alone."""
    return (replace(base()[0], name="attention_pool", steps=300, mixture={"flickr8k": 1.0}),)


def floor() -> Stages:
    """Frozen towers, a head on the mean of the features, one view: the least that is possible."""
    model = replace(DUAL, attend=False)
    return (replace(attention_pool()[0], name="floor", model=model, views={}),)


def smoke() -> Stages:
    """A few steps of every stage on made-up data, for tests."""
    moe = replace(JOINT.moe or MoEConfig(width=384, hidden=64), num_experts=16, hidden=16)
    stages = [
        replace(
            stage,
            steps=4,
            mixture={"flickr8k": 0.5, "emoji": 0.5},
            views={},
            batch=8,
            warmup=2,
            num_new_pieces=200,
            eval_every=2,
            threads=1,
            hubness=stage.hubness and replace(stage.hubness, num_centres=4),
        )
        for stage in default()
    ]
    return tuple(
        replace(stage, model=replace(JOINT, moe=moe)) if stage.model is JOINT else stage
        for stage in stages
    )


RECIPES = {
    recipe.__name__: recipe
    for recipe in (default, more, languages, sparse, base, floor, attention_pool, smoke)
}
