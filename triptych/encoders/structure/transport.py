"""Which word lies where: optimal transport of words onto patches, with room for neither.

T words, P patches, after any leading axes (...).
"""

from __future__ import annotations

import torch
from torch import Tensor

_NOWHERE = -1e9  # finite: -inf - -inf would be NaN


def transport(
    scores_TP: Tensor, *, mask_T: Tensor, mask_P: Tensor, aside: Tensor, steps: int
) -> Tensor:
    """Return plan_TP >= 0: at most 1 of every word, at most 1 onto every patch; 0 on padding.

    Sinkhorn's scaling in logarithms, with a bin on each side that takes at the score `aside` what
    has no match (Cuturi 2013; the bins: SuperGlue, Sarlin et al. 2020). Leading axes of the masks
    broadcast.
    """
    both_TP = mask_T.unsqueeze(-1) & mask_P.unsqueeze(-2)
    scores_TP = scores_TP.masked_fill(~both_TP, _NOWHERE)
    lead = scores_TP.shape[:-2]
    words_T1 = _bin(mask_T, aside).unsqueeze(-1).expand(*lead, -1, 1)
    bins_1P = torch.cat([_bin(mask_P, aside), aside.view(1).expand(*mask_P.shape[:-1], 1)], dim=-1)
    with_bins = torch.cat(
        [torch.cat([scores_TP, words_T1], dim=-1), bins_1P.unsqueeze(-2).expand(*lead, 1, -1)],
        dim=-2,
    )
    rows = _masses(mask_T, others=mask_P).expand(with_bins.shape[:-1])
    columns = _masses(mask_P, others=mask_T).expand(*lead, with_bins.shape[-1])
    log_v = torch.zeros_like(columns)
    for _ in range(steps):
        log_u = rows - (with_bins + log_v.unsqueeze(-2)).logsumexp(dim=-1)
        log_v = columns - (with_bins + log_u.unsqueeze(-1)).logsumexp(dim=-2)
    plan = (with_bins + log_u.unsqueeze(-1) + log_v.unsqueeze(-2)).exp()
    return plan[..., :-1, :-1].masked_fill(~both_TP, 0.0)


def _bin(mask: Tensor, aside: Tensor) -> Tensor:
    return torch.where(mask, aside, aside.new_tensor(_NOWHERE))


def _masses(mask: Tensor, *, others: Tensor) -> Tensor:
    """Logarithms: 1 of everything that is there, and in the bin room for all of the other side."""
    own = torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, _NOWHERE)
    room = others.sum(dim=-1, keepdim=True).clamp(min=1).log()
    # each sum brings its first term to the leading axes of both
    return torch.cat([own + 0 * room, room + 0 * own[..., :1]], dim=-1)
