"""Random token states for the tests of what joins the towers."""

import torch

from triptych.encoders.towers.states import TokenStates

TEXT, PICTURE = 12, 20  # widths


def states(lengths: list[int], width: int, *, seed: int, padded: int | None = None) -> TokenStates:
    """Rows of the given lengths, padded with noise."""
    draw = torch.Generator().manual_seed(seed)
    longest = max(lengths) if padded is None else padded
    tokens_BTD = 50 * torch.randn(len(lengths), longest, width, generator=draw)
    for row, length in enumerate(lengths):
        own = torch.Generator().manual_seed(1000 * seed + row)
        tokens_BTD[row, :length] = torch.randn(length, width, generator=own)
    return TokenStates(tokens_BTD, torch.arange(longest) < torch.tensor(lengths)[:, None])


def texts(lengths: list[int], *, seed: int = 1, padded: int | None = None) -> TokenStates:
    return states(lengths, TEXT, seed=seed, padded=padded)


def pictures(lengths: list[int], *, seed: int = 2, padded: int | None = None) -> TokenStates:
    return states(lengths, PICTURE, seed=seed, padded=padded)


def row(of: TokenStates, at: int) -> TokenStates:
    """One row alone, without its padding."""
    length = int(of.mask_BT[at].sum())
    return TokenStates(of.tokens_BTD[at : at + 1, :length], of.mask_BT[at : at + 1, :length])
