"""The way of a tower's token states into the inner width of what joins the towers.

B batch, T tokens, D width of the tower, W inner width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from triptych.encoders.base import TokenStates
from triptych.errors import InvalidInput

States = TokenStates[Tensor]


class Entrance(nn.Module):
    """Norm and projection; for patches of a fixed grid, each place may add a vector of its own."""

    def __init__(self, width: int, *, inner: int, num_places: int = 0) -> None:
        super().__init__()
        self.norm, self.enter = nn.LayerNorm(width), nn.Linear(width, inner)
        self.places_TW = nn.Parameter(0.02 * torch.randn(num_places, inner)) if num_places else None

    def forward(self, states: States) -> Tensor:
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


def check_states(states: States, width: int, *, what: str) -> None:
    """Raise InvalidInput unless `states` are B x T x width with a mask B x T, finite on it."""
    tokens, mask = states
    if tokens.ndim != 3 or tokens.shape[-1] != width or mask.shape != tokens.shape[:-1]:
        raise InvalidInput(
            f"Token states of {what} have the shape {tuple(tokens.shape)} and a mask of "
            f"{tuple(mask.shape)}, expected (batch, tokens, {width}) and (batch, tokens)."
        )
    if mask.dtype != torch.bool:
        raise InvalidInput(f"The mask of {what} is {mask.dtype}, expected torch.bool.")
    bad_BT = ~tokens.isfinite().all(dim=-1) & mask
    if bad_BT.any():
        rows = bad_BT.any(dim=1).nonzero().flatten().tolist()
        raise InvalidInput(
            f"Token states of {what} hold NaN or infinity in row {rows[0]} of the batch "
            f"({len(rows)} of {len(mask)} rows), expected finite numbers."
        )
