"""A soft mask over text tokens and patches: which places a word speaks of.

B batch, T text tokens, P patches, W inner width, S width in which the two are compared.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class SpatialMask(nn.Module):
    """The product of two small projections; learned from boxes, or from what attention needs.

    As a bias of attention its logarithm is added to the scores, so a share is multiplied by it.
    """

    def __init__(self, width: int, *, mask_width: int) -> None:
        super().__init__()
        self.of_text, self.of_patch = nn.Linear(width, mask_width), nn.Linear(width, mask_width)
        # half open: an untrained mask neither hides a place nor is deaf to its gradient
        self.threshold = nn.Parameter(torch.zeros(()))

    def forward(self, text_BTW: Tensor, picture_BPW: Tensor) -> Tensor:
        """Return logits_BTP; the mask is their sigmoid."""
        text_BTS, patch_BPS = self.of_text(text_BTW), self.of_patch(picture_BPW)
        logits_BTP: Tensor = text_BTS * text_BTS.shape[-1] ** -0.5 @ patch_BPS.transpose(1, 2)
        return logits_BTP.float() - self.threshold


def log_of_mean(bias_BTP: Tensor, mask_BT: Tensor) -> Tensor:
    """Return bias_BP: the logarithm of the mean mask over the tokens that are there."""
    count_B1 = mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
    lowest = torch.finfo(bias_BTP.dtype).min
    filled_BTP = bias_BTP.masked_fill(~mask_BT.unsqueeze(-1), lowest)
    return filled_BTP.logsumexp(dim=1).clamp(min=-30.0) - count_B1.log()


def as_bias(logits_BTP: Tensor) -> Tensor:
    """Return the logarithm of the mask, without its overflow."""
    return functional.logsigmoid(logits_BTP)


def as_mask(logits_BTP: Tensor, *, mask_BT: Tensor, mask_BP: Tensor) -> Tensor:
    """Return spatial_BTP, in 0..1, and 0 on padding."""
    both_BTP = mask_BT.unsqueeze(-1) & mask_BP.unsqueeze(-2)
    return logits_BTP.sigmoid().masked_fill(~both_BTP, 0.0)
