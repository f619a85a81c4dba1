"""Which parameters move, and how fast."""

from __future__ import annotations

import math

import torch
from torch import nn

from triptych.encoders.towers.mobilenet import MobileNet
from triptych.model import JointModel
from triptych.training.recipes import Recipe

_BLOCKS = "text.blocks."


def trained(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that move, by name."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def above_towers(model: JointModel) -> list[dict[str, nn.Parameter]]:
    """Return the weights that move and lead to an embedding, by layer, lowest first.

    Without the towers', and without those of the pair scorer.
    """
    layers = [
        {name: p for name, p in trained(model).items() if name.startswith(room) and p.ndim >= 2}
        for room in ("head.", "fusion.", "moe.", "leave_")
    ]
    return [layer for layer in layers if layer]


def optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.AdamW:
    """Return AdamW over what the recipe lets move; norms, biases and words do not decay."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    moving = {name.removeprefix("model."): p for name, p in trained(model).items()}
    blocks = [int(name.split(".")[2]) for name in moving if name.startswith(_BLOCKS)]
    for name, parameter in moving.items():
        plain = parameter.ndim < 2 or "words" in name
        peak = _peak(recipe, name, num_blocks=max(blocks, default=-1) + 1)
        key = (peak, 0.0 if plain else recipe.weight_decay)
        groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": params, "peak": peak, "weight_decay": decay}
            for (peak, decay), params in groups.items()
        ],
        betas=(0.9, 0.98),
        fused=True,
    )


def freeze(recipe: Recipe, model: JointModel) -> None:
    """Let move what the recipe says."""
    after = recipe.picture_after
    moving = (
        {id(p) for p in model.picture.parameters_after(after)}
        if after is not None and isinstance(model.picture, MobileNet)
        else set()
    )
    for name, parameter in model.named_parameters():
        frozen_trunk = name.startswith("picture.") and id(parameter) not in moving
        frozen_text = name.startswith("text.") and not recipe.train_text
        frozen_joint = recipe.scorer_only and not name.startswith("scorer.")
        frozen_rest = recipe.languages is not None and not name.startswith("text.")
        # where the space is as wide as the head's, that ends in a projection of its own
        doubled = name.startswith("leave_picture.") and model.config.dim == model.config.width
        frozen = frozen_trunk or frozen_text or frozen_joint or frozen_rest
        parameter.requires_grad_(not (frozen or doubled or name == "head.scale"))


def set_rates(recipe: Recipe, optimizer: torch.optim.Optimizer, step: int) -> None:
    """A linear rise, then half a cosine down to a fiftieth."""
    ramp = min(1.0, (step + 1) / max(recipe.warmup, 1))
    cosine = 0.5 * (1 + math.cos(math.pi * step / recipe.steps))
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * ramp * (0.02 + 0.98 * cosine)


def _peak(recipe: Recipe, name: str, *, num_blocks: int) -> float:
    """The highest learning rate of a parameter; the text tower's falls from block to block down."""
    if name.startswith("picture."):
        return recipe.lr_picture
    if name.startswith(_BLOCKS):
        below = num_blocks - 1 - int(name.split(".")[2])
        return recipe.lr_text * recipe.layer_decay**below
    if name.startswith("text.words"):
        return recipe.lr_words
    if name.startswith("text."):
        return recipe.lr_text * recipe.layer_decay**num_blocks
    if name.startswith(("moe.", "fusion.", "scorer.", "prototypes.")):
        return recipe.lr_new
    return recipe.lr_head
