"""Cross-modal attention: text tokens and patches of any two towers see each other.

B batch, T text tokens, P patches, D width of a tower, W inner width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from triptych.encoders.cross_modal.entrance import Entrance
from triptych.encoders.cross_modal.layers import BottleneckLayer, CrossLayer, JointLayer
from triptych.encoders.cross_modal.spatial_mask import SpatialMask, as_bias, as_mask
from triptych.encoders.towers.states import TokenStates, check_states
from triptych.errors import InvalidInput

Fusion = Literal["early", "mid", "late"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CrossModalConfig:
    """What joins the towers."""

    text_width: int
    picture_width: int
    width: int = 256  # inner width, of attention
    num_heads: int = 4
    hidden: int = 512
    num_layers: int = 1
    fusion: Fusion = "mid"  # early: one joint self-attention; late: none, sum the pooled vectors
    num_latents: int = 0  # of a bottleneck that all must pass (mid only); 0: none
    mask_width: int | None = 64  # in which words and patches are compared; None: no spatial mask

    def __post_init__(self) -> None:
        if self.fusion not in ("early", "mid", "late"):
            raise InvalidInput(f"Fusion {self.fusion!r} is not known, expected early, mid or late.")
        if self.width % self.num_heads:
            raise InvalidInput(
                f"A width of {self.width} does not divide into {self.num_heads} heads.",
                hint="Make it a multiple of num_heads.",
            )
        if self.num_latents and self.fusion != "mid":
            raise InvalidInput(
                f"Fusion {self.fusion!r} has no bottleneck, got {self.num_latents} latents.",
                hint="Use fusion='mid', or num_latents=0.",
            )


class CrossModalOutput(NamedTuple):
    """States of both sides as wide as they came; None where a side was absent."""

    text: TokenStates | None
    picture: TokenStates | None
    spatial_BTP: Tensor | None  # the soft mask, 0 on padding; None without a mask or a side


class CrossModal(nn.Module):
    """Fusion of token states by attention, starting as the identity.

    With one side absent, or wholly padded in a row, the other passes bit for bit. What a row gives
    depends neither on its neighbours nor on the length of its padding.
    """

    def __init__(self, config: CrossModalConfig) -> None:
        super().__init__()
        self.config = config
        if config.fusion == "late":
            return
        inner = config.width
        self.enter_text = Entrance(config.text_width, inner=inner)
        self.enter_picture = Entrance(config.picture_width, inner=inner)
        self.spatial = (
            None if config.mask_width is None else SpatialMask(inner, mask_width=config.mask_width)
        )
        self.layers = nn.ModuleList(_layer(config) for _ in range(config.num_layers))
        self.leave_text = _Exit(config.text_width, inner=inner)
        self.leave_picture = _Exit(config.picture_width, inner=inner)

    def forward(self, text: TokenStates | None, picture: TokenStates | None) -> CrossModalOutput:
        """Return both sides, each having seen the other.

        Raises InvalidInput on shapes that do not fit, and on a token that is not finite.
        """
        if text is not None:
            check_states(text, self.config.text_width, what="text")
        if picture is not None:
            check_states(picture, self.config.picture_width, what="picture")
        if text is None or picture is None or self.config.fusion == "late":
            return CrossModalOutput(text, picture, None)
        if len(text.mask_BT) != len(picture.mask_BT):
            raise InvalidInput(
                f"Got {len(text.mask_BT)} texts and {len(picture.mask_BT)} pictures, expected as "
                "many of each.",
                hint="Give a row without one of them a mask that is False throughout.",
            )
        return self._joined(text, picture)

    def _joined(self, text: TokenStates, picture: TokenStates) -> CrossModalOutput:
        mask_BT, mask_BP = text.mask_BT, picture.mask_BT
        text_BTW, picture_BPW = self.enter_text(text), self.enter_picture(picture)
        logits_BTP = None if self.spatial is None else self.spatial(text_BTW, picture_BPW)
        bias_BTP = None if logits_BTP is None else as_bias(logits_BTP)
        for layer in self.layers:
            text_BTW, picture_BPW = layer(
                text_BTW, picture_BPW, mask_BT=mask_BT, mask_BP=mask_BP, bias_BTP=bias_BTP
            )
        return CrossModalOutput(
            self.leave_text(text, text_BTW, other_BP=mask_BP),
            self.leave_picture(picture, picture_BPW, other_BP=mask_BT),
            None if logits_BTP is None else as_mask(logits_BTP, mask_BT=mask_BT, mask_BP=mask_BP),
        )


class _Exit(nn.Module):
    """The way back: what was gained is added to the tower's states."""

    def __init__(self, width: int, *, inner: int) -> None:
        super().__init__()
        self.norm, self.leave = nn.LayerNorm(inner), nn.Linear(inner, width)
        # nothing comes back at first: a pretrained model starts unchanged
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    def forward(self, states: TokenStates, inner_BTW: Tensor, *, other_BP: Tensor) -> TokenStates:
        """Leave padding, and rows whose other side is empty, untouched."""
        tokens_BTD, mask_BT = states
        gains_BT1 = (mask_BT & other_BP.any(dim=1, keepdim=True)).unsqueeze(-1)
        gained_BTD = self.leave(self.norm(inner_BTW)).to(tokens_BTD.dtype)
        return TokenStates(torch.where(gains_BT1, tokens_BTD + gained_BTD, tokens_BTD), mask_BT)


def _layer(config: CrossModalConfig) -> nn.Module:
    width, num_heads, hidden = config.width, config.num_heads, config.hidden
    if config.fusion == "early":
        return JointLayer(width, num_heads=num_heads, hidden=hidden)
    if config.num_latents:
        return BottleneckLayer(
            width, num_heads=num_heads, hidden=hidden, num_latents=config.num_latents
        )
    return CrossLayer(width, num_heads=num_heads, hidden=hidden)
