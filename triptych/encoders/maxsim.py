"""Late interaction in torch: every text token looks for its best patch.

Q texts, N pictures, C texts of a chunk, T text tokens, P patches, W width of both.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from triptych.encoders.entrance import States


def maxsim(text: States, picture: States, *, chunk: int = 32) -> Tensor:
    """Return scores_QN of all pairs, in -1..1: the mean of every text token's best cosine.

    FILIP (Yao et al. 2021), eq. 4; with the sides exchanged it is the patches' mean of their best
    word. `chunk` texts at a time bound the memory; a text or picture without a token scores 0.
    """
    text_QTW, picture_NPW = unit_tokens(text), unit_tokens(picture)
    rows = []
    for start in range(0, len(text_QTW), chunk):
        cosines_CNTP = torch.einsum("ctw,npw->cntp", text_QTW[start : start + chunk], picture_NPW)
        best_CNT = best_cosines(cosines_CNTP, picture.mask_BT)
        share_CT = _even_shares(text.mask_BT[start : start + chunk], best_CNT.dtype)
        rows.append(torch.einsum("cnt,ct->cn", best_CNT, share_CT))
    return torch.cat(rows) if rows else text_QTW.new_zeros(0, len(picture_NPW))


def unit_tokens(states: States) -> Tensor:
    """Return tokens_BTW of unit length, 0 on padding whatever it held."""
    tokens_BTW = states.tokens_BTD.masked_fill(~states.mask_BT.unsqueeze(-1), 0.0)
    return functional.normalize(tokens_BTW, dim=-1)


def best_cosines(cosines_BTP: Tensor, mask_BP: Tensor) -> Tensor:
    """Return best_BT over the patches that are there, 0 where none is; leading axes broadcast."""
    if not mask_BP.shape[-1]:
        return cosines_BTP.sum(dim=-1)
    lowest = torch.finfo(cosines_BTP.dtype).min
    # max remembers for the way back which patch was best, not all the products
    best_BT = cosines_BTP.masked_fill(~mask_BP.unsqueeze(-2), lowest).max(dim=-1).values
    return best_BT.masked_fill(~mask_BP.any(dim=-1, keepdim=True), 0.0)


def _even_shares(mask_CT: Tensor, dtype: torch.dtype) -> Tensor:
    return mask_CT.to(dtype) / mask_CT.sum(dim=1, keepdim=True).clamp(min=1)
