"""How much a weight matters: one score for all that is cut, whether weights, heads or experts."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from triptych.errors import InvalidInput

Score = Literal["magnitude", "taylor"]


def importance(weight: Tensor, gradient: Tensor | None = None, *, score: Score) -> Tensor:
    """Return a score of the weight's shape, never negative: higher matters more.

    "magnitude" is |w| (1710.01878); "taylor" is |w g|, by how much the loss would change to first
    order if the weight were zero (1611.06440).
    """
    if score == "magnitude":
        return weight.detach().abs()
    if score != "taylor":
        raise InvalidInput(f"Got the score {score!r}, expected 'magnitude' or 'taylor'.")
    if gradient is None or gradient.shape != weight.shape:
        found = None if gradient is None else tuple(gradient.shape)
        raise InvalidInput(
            f"Got a gradient of shape {found} for a weight of shape {tuple(weight.shape)}.",
            hint="The Taylor score needs the gradient: call it after backward.",
        )
    return (weight.detach() * gradient.detach()).abs()
