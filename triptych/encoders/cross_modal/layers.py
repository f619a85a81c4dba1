"""Three ways in which the sides exchange once: all with all, across, or through a bottleneck.

B batch, T text tokens, P patches, W inner width, L latents, A = T + P.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from triptych.encoders.cross_modal.block import FusionBlock
from triptych.encoders.cross_modal.spatial_mask import log_of_mean


class JointLayer(nn.Module):
    """Early fusion: one self-attention over the tokens of both (ViLT, Kim et al. 2021)."""

    def __init__(self, width: int, *, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.both = FusionBlock(width, num_heads=num_heads, hidden=hidden)

    def forward(
        self,
        text_BTW: Tensor,
        picture_BPW: Tensor,
        *,
        mask_BT: Tensor,
        mask_BP: Tensor,
        bias_BTP: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return text_BTW and picture_BPW."""
        all_BAW = torch.cat([text_BTW, picture_BPW], dim=1)
        mask_BA = torch.cat([mask_BT, mask_BP], dim=1)
        bias_BAA = None if bias_BTP is None else _between(bias_BTP)
        mixed_BAW = self.both(all_BAW, all_BAW, mask_BK=mask_BA, bias_BQK=bias_BAA)
        num_text = text_BTW.shape[1]
        return mixed_BAW[:, :num_text], mixed_BAW[:, num_text:]


class CrossLayer(nn.Module):
    """Mid fusion: each side attends to the other (ALBEF, Li et al. 2021, both ways)."""

    def __init__(self, width: int, *, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.to_text = FusionBlock(width, num_heads=num_heads, hidden=hidden)
        self.to_picture = FusionBlock(width, num_heads=num_heads, hidden=hidden)

    def forward(
        self,
        text_BTW: Tensor,
        picture_BPW: Tensor,
        *,
        mask_BT: Tensor,
        mask_BP: Tensor,
        bias_BTP: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return text_BTW and picture_BPW."""
        bias_BPT = None if bias_BTP is None else bias_BTP.transpose(1, 2)
        return (
            self.to_text(text_BTW, picture_BPW, mask_BK=mask_BP, bias_BQK=bias_BTP),
            self.to_picture(picture_BPW, text_BTW, mask_BK=mask_BT, bias_BQK=bias_BPT),
        )


class BottleneckLayer(nn.Module):
    """Mid fusion through a few latents (MBT, Nagrani et al. 2021): L (T + P) shares, not T P.

    Here words and patches do not meet, so the mask weighs a token by how much of the other side
    speaks of it.
    """

    def __init__(self, width: int, *, num_heads: int, hidden: int, num_latents: int) -> None:
        super().__init__()
        self.latents_LW = nn.Parameter(torch.randn(num_latents, width))
        self.gather, self.to_text, self.to_picture = (
            FusionBlock(width, num_heads=num_heads, hidden=hidden) for _ in range(3)
        )

    def forward(
        self,
        text_BTW: Tensor,
        picture_BPW: Tensor,
        *,
        mask_BT: Tensor,
        mask_BP: Tensor,
        bias_BTP: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Return text_BTW and picture_BPW."""
        all_BAW = torch.cat([text_BTW, picture_BPW], dim=1)
        mask_BA = torch.cat([mask_BT, mask_BP], dim=1)
        bias_B1A = None if bias_BTP is None else _marginal(bias_BTP, mask_BT, mask_BP)
        latents_BLW = self.latents_LW.to(all_BAW.dtype).expand(len(all_BAW), -1, -1)
        latents_BLW = self.gather(latents_BLW, all_BAW, mask_BK=mask_BA, bias_BQK=bias_B1A)
        mask_BL = mask_BA.new_ones(latents_BLW.shape[:2])
        return (
            self.to_text(text_BTW, latents_BLW, mask_BK=mask_BL),
            self.to_picture(picture_BPW, latents_BLW, mask_BK=mask_BL),
        )


def _between(bias_BTP: Tensor) -> Tensor:
    """Return bias_BAA: the mask between the sides, nothing within a side."""
    batch, tokens, patches = bias_BTP.shape
    bias_BAA = bias_BTP.new_zeros(batch, tokens + patches, tokens + patches)
    bias_BAA[:, :tokens, tokens:] = bias_BTP
    bias_BAA[:, tokens:, :tokens] = bias_BTP.transpose(1, 2)
    return bias_BAA


def _marginal(bias_BTP: Tensor, mask_BT: Tensor, mask_BP: Tensor) -> Tensor:
    """Return bias_B1A: the mask of a token, averaged over the tokens of the other side."""
    of_text_BT = log_of_mean(bias_BTP.transpose(1, 2), mask_BP)
    of_patch_BP = log_of_mean(bias_BTP, mask_BT)
    return torch.cat([of_text_BT, of_patch_BP], dim=1).unsqueeze(1)
