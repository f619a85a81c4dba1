"""One score for a text and a picture that look at each other: the reranker's model.

B pairs, T text tokens, P patches, W inner width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.encoders.cross_modal.block import masked_softmax
from triptych.encoders.cross_modal.entrance import Entrance
from triptych.encoders.cross_modal.layers import CrossLayer
from triptych.encoders.cross_modal.spatial_mask import SpatialMask, as_bias, as_mask
from triptych.encoders.scorers.maxsim import best_cosines, unit_tokens
from triptych.encoders.towers.states import TokenStates, check_states
from triptych.encoders.towers.transformer import mean_of_tokens
from triptych.errors import InvalidInput


@dataclass(frozen=True, slots=True, kw_only=True)
class PairScorerConfig:
    """The shape of the scorer; 0.9 million parameters by default."""

    text_width: int = 384
    picture_width: int = 384
    width: int = 192  # inner width, of attention and of token alignment
    num_heads: int = 4
    hidden: int = 384
    mask_width: int | None = 64  # None: no spatial mask


class PairScores(NamedTuple):
    """What the scorer says of each pair."""

    scores_B: Tensor
    spatial_BTP: Tensor | None  # the soft mask, 0 on padding


class PairScorer(nn.Module):
    """Token alignment, plus what cross-attention both ways finds beyond it.

    Products, softmax, norms, gelu and reductions only, so that its graph can be written by hand.
    """

    def __init__(self, config: PairScorerConfig) -> None:
        super().__init__()
        self.config = config
        inner = config.width
        self.enter_text = Entrance(config.text_width, inner=inner)
        self.enter_picture = Entrance(config.picture_width, inner=inner)
        self.spatial = (
            None if config.mask_width is None else SpatialMask(inner, mask_width=config.mask_width)
        )
        self.layer = CrossLayer(inner, num_heads=config.num_heads, hidden=config.hidden)
        self.norm_text, self.norm_picture = nn.LayerNorm(inner), nn.LayerNorm(inner)
        self.widen, self.judge = nn.Linear(3 * inner, inner), nn.Linear(inner, 1)
        self.weigh = nn.Linear(inner, 1)  # how much a text token counts in the alignment
        self.log_scale = nn.Parameter(torch.tensor(10.0).log())
        # an untrained scorer is late interaction alone
        for layer in (self.judge, self.weigh):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, text: TokenStates, picture: TokenStates) -> PairScores:
        """Return a score per pair, higher is better; one text may stand beside many pictures.

        A pair of which a side has no token scores 0. Raises InvalidInput on shapes that do not
        fit, and on a token that is not finite.
        """
        check_states(text, self.config.text_width, what="text")
        check_states(picture, self.config.picture_width, what="picture")
        if len(text.mask_BT) not in (1, len(picture.mask_BT)):
            raise InvalidInput(
                f"Got {len(text.mask_BT)} texts and {len(picture.mask_BT)} pictures, expected as "
                "many of each, or one text."
            )
        mask_BT, mask_BP = text.mask_BT, picture.mask_BT
        text_BTW, picture_BPW = self.enter_text(text), self.enter_picture(picture)
        logits_BTP = None if self.spatial is None else self.spatial(text_BTW, picture_BPW)
        scores_B = self._alignment(text_BTW, picture_BPW, mask_BT=mask_BT, mask_BP=mask_BP)
        text_BTW, picture_BPW = self.layer(
            text_BTW,
            picture_BPW,
            mask_BT=mask_BT,
            mask_BP=mask_BP,
            bias_BTP=None if logits_BTP is None else as_bias(logits_BTP),
        )
        scores_B = scores_B + self._judgement(
            mean_of_tokens(self.norm_text(text_BTW), mask_BT),
            mean_of_tokens(self.norm_picture(picture_BPW), mask_BP),
        )
        return PairScores(
            scores_B.masked_fill(~(mask_BT.any(dim=1) & mask_BP.any(dim=1)), 0.0),
            None if logits_BTP is None else as_mask(logits_BTP, mask_BT=mask_BT, mask_BP=mask_BP),
        )

    def _alignment(
        self, text_BTW: Tensor, picture_BPW: Tensor, *, mask_BT: Tensor, mask_BP: Tensor
    ) -> Tensor:
        text = unit_tokens(TokenStates(text_BTW, mask_BT))
        picture = unit_tokens(TokenStates(picture_BPW, mask_BP))
        best_BT = best_cosines(text @ picture.transpose(1, 2), mask_BP.unsqueeze(1))
        weight_BT = masked_softmax(self.weigh(text_BTW).squeeze(-1), mask_BT)
        return self.log_scale.exp() * (best_BT * weight_BT).sum(dim=1)

    def _judgement(self, text_BW: Tensor, picture_BW: Tensor) -> Tensor:
        text_BW = text_BW.expand_as(picture_BW)
        seen = torch.cat([text_BW, picture_BW, text_BW * picture_BW], dim=1)
        said_B: Tensor = self.judge(functional.gelu(self.widen(seen))).squeeze(-1)
        return said_B
