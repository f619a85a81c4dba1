"""The way of a tower's token states into the inner width of what joins the towers.

B batch, T tokens, D width of the tower, W inner width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from triptych.encoders.towers.states import TokenStates
from triptych.errors import InvalidInput


class Entrance(nn.Module):
    """Norm and projection; for patches of a fixed grid, each place may add a vector of its own."""

    def __init__(self, width: int, *, inner: int, num_places: int = 0) -> None:
        super().__init__()
        self.norm, self.enter = nn.LayerNorm(width), nn.Linear(width, inner)
        self.places_TW = nn.Parameter(0.02 * torch.randn(num_places, inner)) if num_places else None

    def forward(self, states: TokenStates) -> Tensor:
        """Return inner_BTW; what padding holds, even NaN, has no influence."""
        tokens_BTD = states.tokens_BTD.masked_fill(~states.mask_BT.unsqueeze(-1), 0.0)
        inner_BTW: Tensor = self.enter(self.norm(tokens_BTD))
        if self.places_TW is None:
            return inner_BTW
        if inner_BTW.shape[1] != len(self.places_TW):
            raise InvalidInput(
                f"Got {inner_BTW.shape[1]} patches, expected the {len(self.places_TW)} of the grid "
                "whose places were learned.",
                hint="Set num_places to the number of patches, or to 0 where it varies.",
            )
        return inner_BTW + self.places_TW
