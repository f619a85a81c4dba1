"""Late interaction in torch: every text token looks for its best patch.

Q texts, N pictures, C texts of a chunk, T text tokens, P patches, W width of both.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from triptych.encoders.towers.states import TokenStates


def maxsim(
    text: TokenStates, picture: TokenStates, *, share_QT: Tensor | None = None, chunk: int = 32
) -> Tensor:
    """Return scores_QN of all pairs, in -1..1: the mean of every text token's best cosine.

    FILIP (Yao et al. 2021), eq. 4; with the sides exchanged it is the patches' mean of their best
    word. With `share_QT` a token counts by its share. `chunk` texts at a time bound the memory; a
    text or picture without a token scores 0.
    """
    text_QTW, picture_NPW = unit_tokens(text), unit_tokens(picture)
    if share_QT is None:
        there_QT = text.mask_BT.to(text_QTW.dtype)
        share_QT = there_QT / text.mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
    rows = []
    for start in range(0, len(text_QTW), chunk):
        # one product, whose order of axes spares a copy
        flat = text_QTW[start : start + chunk] @ picture_NPW.flatten(0, 1).T
        best_CTN = best_cosines(flat.view(*flat.shape[:2], *picture.mask_BT.shape), picture.mask_BT)
        rows.append((best_CTN * share_QT[start : start + chunk].unsqueeze(-1)).sum(dim=1))
    return torch.cat(rows) if rows else text_QTW.new_zeros(0, len(picture_NPW))


def unit_tokens(states: TokenStates) -> Tensor:
    """Return tokens_BTW of unit length, 0 on padding whatever it held."""
    tokens_BTW = states.tokens_BTD.masked_fill(~states.mask_BT.unsqueeze(-1), 0.0)
    return functional.normalize(tokens_BTW, dim=-1)


def best_cosines(cosines: Tensor, mask: Tensor) -> Tensor:
    """Return the best over the last axis, the patches, of those that are there; 0 where none is.

    The mask broadcasts to the cosines.
    """
    if not mask.shape[-1]:
        return cosines.sum(dim=-1)
    lowest = torch.finfo(cosines.dtype).min
    # max remembers for the way back which patch was best, not all the products
    best = cosines.masked_fill(~mask, lowest).max(dim=-1).values
    return best.masked_fill(~mask.any(dim=-1), 0.0)
