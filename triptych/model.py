"""The joint model: two towers, what joins them, experts, and one space for texts and pictures.

B items, T text tokens, P patches, C channels of the picture tower, D width of the token states,
M embedding width, E experts, H W rows and columns of a map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.encoders.cross_modal.fusion import CrossModal, CrossModalConfig
from triptych.encoders.hubness import Hubness
from triptych.encoders.scorers.token_matcher import TokenMatcher, TokenMatcherConfig
from triptych.encoders.towers.mobilenet import PictureHead
from triptych.encoders.towers.states import TokenStates, check_states, unpadded
from triptych.encoders.towers.transformer import mean_of_tokens
from triptych.errors import InvalidInput
from triptych.moe.layer import MoE, MoEConfig, MoEOutput

_MOST_SCALE = 60.0  # sharper, and a few pairs would decide every step


@dataclass(frozen=True, slots=True, kw_only=True)
class JointConfig:
    """Which parts there are; without the optional ones it is a dual tower."""

    dim: int = 512
    prefixes: tuple[int, ...] = (256, 128, 64)  # shorter embeddings that stay usable (Matryoshka)
    width: int = 384  # of the token states, of both sides
    channels: int = 1280  # of the picture tower's last map
    attend: bool = True  # attention pooling of the picture beside its mean
    fusion: CrossModalConfig | None = None
    moe: MoEConfig | None = None
    scorer: TokenMatcherConfig | None = None


class JointOutput(NamedTuple):
    """What the model says of a batch."""

    emb_BM: Tensor  # unit rows
    text: TokenStates | None  # states of the text tokens, after fusion and experts
    picture: TokenStates | None  # states of the patches, likewise
    spatial_BTP: Tensor | None  # the soft mask of the fusion
    moe: MoEOutput | None  # its losses and its load, over both sides


def inverse_temperature(log_scale: Tensor) -> Tensor:
    """Return e to the power of it, 60 at most.

    What lies above gets only the gradients whose descent leads back: with none it would stay there.
    """
    scale = log_scale.exp()
    bounded = scale - (scale - _MOST_SCALE).clamp(min=0).detach()
    if bounded.requires_grad:
        above = scale.detach() > _MOST_SCALE
        bounded.register_hook(  # type: ignore[no-untyped-call]
            lambda grad: torch.where(above, grad.clamp(min=0), grad)
        )
    return bounded


class JointModel(nn.Module):
    """Texts, pictures, or both at once, to unit vectors of one space.

    `text` maps ids_BT and mask_BT to tokens_BTD, `picture` maps pixels (or the cached output of the
    layer named by `after`) to map_BCHW; either may be left out where states are given instead.
    """

    def __init__(
        self,
        config: JointConfig,
        *,
        text: nn.Module | None = None,
        picture: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.text, self.picture = text, picture
        self.head = PictureHead(channels=config.channels, dim=config.width, attend=config.attend)
        self.fusion = None if config.fusion is None else CrossModal(config.fusion)
        self.moe = None if config.moe is None else MoE(config.moe)
        if self.moe is not None:
            self.norm_text, self.norm_picture = (nn.LayerNorm(config.width) for _ in range(2))
        self.scorer = None if config.scorer is None else TokenMatcher(config.scorer)
        self.leave_text, self.leave_picture = (
            _identity(config.width, config.dim) for _ in range(2)
        )
        self.hubness: Hubness | None = None  # fitted to what was learnt
        self.log_scale = nn.Parameter(torch.tensor(math.log(20.0)))

    def scale(self) -> Tensor:
        """Return the inverse temperature of the contrastive loss."""
        return inverse_temperature(self.log_scale)

    def read(self, ids_BT: Tensor, mask_BT: Tensor) -> TokenStates:
        """Return the text tower's states; `mask_BT` is True where there is a token."""
        assert self.text is not None, "built without a text tower"
        return TokenStates(self.text(ids_BT, mask_BT), mask_BT)

    def look(self, map_BCHW: Tensor, *, after: int = -1) -> TokenStates:
        """Return the picture tower's states of pixels in -1..1, or of the output of a layer."""
        assert self.picture is not None, "built without a picture tower"
        return unpadded(self.head.places(self.picture(map_BCHW, after=after)))

    def forward(self, text: TokenStates | None, picture: TokenStates | None) -> JointOutput:
        """Return the embedding of each row: of its text, its picture, or both where both are.

        `text` comes from `read` (B x T x D), `picture` from `look` (B x P x C). A row whose text
        or picture is wholly masked is the other alone. Raises InvalidInput for a row that has
        neither, for shapes that do not fit, and for a token that is not finite, naming the row.
        """
        self._check(text, picture)
        states = None
        if picture is not None:
            states = picture.tokens_BTD.masked_fill(~picture.mask_BT.unsqueeze(-1), 0.0)
            picture = TokenStates(self.head.patches(states), picture.mask_BT)
        spatial_BTP = None
        if self.fusion is not None:
            text, picture, spatial_BTP = self.fusion(text, picture)
        text, picture, mixture = self._through_experts(text, picture)
        sides = []
        if text is not None:
            text_BM = _unit(self.leave_text(mean_of_tokens(*text)))
            if self.hubness is not None:
                text_BM = self.hubness.text(text_BM)
            sides.append(_where(text_BM, text.mask_BT.any(dim=1)))
        if picture is not None:
            assert states is not None
            picture_BM = _unit(self.leave_picture(self.head(states, picture.tokens_BTD)))
            if self.hubness is not None:
                picture_BM = self.hubness.picture(picture_BM)
            sides.append(_where(picture_BM, picture.mask_BT.any(dim=1)))
        # the sum of two unit vectors, which without fusion is late fusion
        emb_BM = functional.normalize(torch.stack(sides).sum(dim=0), dim=-1)
        return JointOutput(emb_BM, text, picture, spatial_BTP, mixture)

    def score(self, text: TokenStates, picture: TokenStates) -> Tensor:
        """Return scores_TN, how well each text fits each picture; higher is better, no cosine.

        The texts come from `read`, the pictures from `look`.
        """
        assert self.scorer is not None, "built without a scorer"
        scores_TN: Tensor = self.scorer(self.scorer.text(text), self.scorer.picture(picture))
        return scores_TN

    def _through_experts(
        self, text: TokenStates | None, picture: TokenStates | None
    ) -> tuple[TokenStates | None, TokenStates | None, MoEOutput | None]:
        """Add what the experts make of both sides' tokens; they share the experts."""
        if self.moe is None:
            return text, picture, None
        sides = [
            (side, norm)
            for side, norm in ((text, self.norm_text), (picture, self.norm_picture))
            if side is not None
        ]
        mask_BT = torch.cat([side.mask_BT for side, _ in sides], dim=1)
        tokens_BTD = torch.cat([norm(side.tokens_BTD) for side, norm in sides], dim=1)
        made: MoEOutput = self.moe(tokens_BTD, mask_BT)
        lengths = [side.mask_BT.shape[1] for side, _ in sides]
        parts = torch.split(made.tokens_BTD, lengths, dim=1)
        changed = iter(
            TokenStates(side.tokens_BTD + part, side.mask_BT)
            for (side, _), part in zip(sides, parts, strict=True)
        )
        return (
            None if text is None else next(changed),
            None if picture is None else next(changed),
            made,
        )

    def _check(self, text: TokenStates | None, picture: TokenStates | None) -> None:
        if text is None and picture is None:
            raise InvalidInput("The batch has neither texts nor pictures, expected one of them.")
        if text is not None:
            check_states(text, self.config.width, what="text")
        if picture is not None:
            check_states(picture, self.config.channels, what="picture")
        masks = [side.mask_BT for side in (text, picture) if side is not None]
        if len({len(mask) for mask in masks}) > 1:
            raise InvalidInput(
                f"Got {len(masks[0])} texts and {len(masks[1])} pictures, expected as many.",
                hint="Give a row without one of them a mask that is False throughout.",
            )
        empty_B = ~torch.stack([mask.any(dim=1) for mask in masks]).any(dim=0)
        if empty_B.any():
            rows = empty_B.nonzero().flatten().tolist()
            raise InvalidInput(
                f"Row {rows[0]} of the batch has neither a text token nor a patch "
                f"({len(rows)} of {len(empty_B)} rows are empty).",
                hint="Leave such rows out.",
            )


def _identity(width: int, dim: int) -> nn.Linear:
    """A projection that starts by passing everything through; what is beyond starts small."""
    layer = nn.Linear(width, dim)
    nn.init.normal_(layer.weight, std=0.1 * width**-0.5)
    with torch.no_grad():
        layer.weight[: min(width, dim), : min(width, dim)].copy_(torch.eye(min(width, dim)))
    nn.init.zeros_(layer.bias)
    return layer


def _unit(emb_BM: Tensor) -> Tensor:
    """Unit rows in float32."""
    return functional.normalize(emb_BM.float(), dim=-1)


def _where(emb_BM: Tensor, there_B: Tensor) -> Tensor:
    """The rows, zero where there is nothing."""
    return emb_BM * there_B.unsqueeze(-1)
