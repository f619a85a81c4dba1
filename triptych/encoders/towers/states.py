"""What a tower says of a batch, before pooling.

B batch, T tokens or patches, D their width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from triptych.errors import InvalidInput


class TokenStates(NamedTuple):
    """States of tokens, and which of them are there."""

    tokens_BTD: Tensor
    mask_BT: Tensor  # True where there is a token, False on padding


def unpadded(tokens_BTD: Tensor) -> TokenStates:
    """Return states of which nothing is padding."""
    return TokenStates(tokens_BTD, tokens_BTD.new_ones(tokens_BTD.shape[:2], dtype=torch.bool))


def rows_of(states: TokenStates, rows: Tensor | slice) -> TokenStates:
    """Return the states of some rows of the batch."""
    return TokenStates(states.tokens_BTD[rows], states.mask_BT[rows])


def check_states(states: TokenStates, width: int, *, what: str) -> None:
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
