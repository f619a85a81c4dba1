"""Attention from one sequence to another, with padding and a bias: the brick of every fusion.

B batch, Q tokens that ask, K tokens that answer, W inner width, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Shares over the last axis that sum to 1 where `mask` is True; all 0 where it is nowhere.

    The fill is finite: a row of -inf would be NaN, and so would its gradient.
    """
    lowest = torch.finfo(scores.dtype).min
    return scores.masked_fill(~mask, lowest).softmax(dim=-1).masked_fill(~mask, 0.0)


class CrossAttention(nn.Module):
    """Scaled dot-product attention of several heads (Vaswani et al. 2017)."""

    def __init__(self, width: int, *, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def shares(
        self, ask_BQW: Tensor, answer_BKW: Tensor, *, mask_BK: Tensor, bias_BQK: Tensor | None
    ) -> Tensor:
        """Return share_BHQK: how each token that asks divides itself over what is not padding."""
        query_BHQW, key_BHKW = self._heads(self.query(ask_BQW)), self._heads(self.key(answer_BKW))
        scores_BHQK = query_BHQW * query_BHQW.shape[-1] ** -0.5 @ key_BHKW.transpose(2, 3)
        if bias_BQK is not None:
            scores_BHQK = scores_BHQK + bias_BQK.unsqueeze(1)
        return masked_softmax(scores_BHQK, mask_BK[:, None, None, :])

    def forward(
        self,
        ask_BQW: Tensor,
        answer_BKW: Tensor,
        *,
        mask_BK: Tensor,
        bias_BQK: Tensor | None = None,
    ) -> Tensor:
        share_BHQK = self.shares(ask_BQW, answer_BKW, mask_BK=mask_BK, bias_BQK=bias_BQK)
        value_BHKW = self._heads(self.value(answer_BKW))
        mixed_BHQW = share_BHQK.to(value_BHKW.dtype) @ value_BHKW
        mixed_BQW: Tensor = self.out(mixed_BHQW.transpose(1, 2).flatten(2))
        return mixed_BQW

    def _heads(self, flat_BKW: Tensor) -> Tensor:
        batch, length, width = flat_BKW.shape
        by_head = flat_BKW.view(batch, length, self.num_heads, width // self.num_heads)
        return by_head.transpose(1, 2)


class FusionBlock(nn.Module):
    """One sequence takes from another (or from itself), then two linear layers; norms before."""

    def __init__(self, width: int, *, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.norm_ask, self.norm_answer = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = CrossAttention(width, num_heads=num_heads)
        self.norm_out = nn.LayerNorm(width)
        self.widen, self.narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(
        self,
        ask_BQW: Tensor,
        answer_BKW: Tensor,
        *,
        mask_BK: Tensor,
        bias_BQK: Tensor | None = None,
    ) -> Tensor:
        """Return ask_BQW with what it took."""
        mixed_BQW = ask_BQW + self.attention(
            self.norm_ask(ask_BQW),
            self.norm_answer(answer_BKW),
            mask_BK=mask_BK,
            bias_BQK=bias_BQK,
        )
        wide = functional.gelu(self.widen(self.norm_out(mixed_BQW)))
        out_BQW: Tensor = mixed_BQW + self.narrow(wide)
        return out_BQW
