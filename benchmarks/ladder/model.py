"""The rungs as one model with switches, on top of the states of the two frozen towers.

Each side is encoded alone: what lets them see each other works in training only, and in the
reranker. B batch, T text tokens, P places, W inner width, M embedding width, S states of a token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.ladder.features import CHANNELS, GRID, PLACES, WIDTH
from triptych.encoders.cross_modal.entrance import Entrance
from triptych.encoders.scorers.pair_scorer import PairScorer, PairScorerConfig
from triptych.encoders.scorers.token_matcher import TokenMatcher, TokenMatcherConfig
from triptych.encoders.structure.alignment import Structure, StructureConfig
from triptych.encoders.towers.states import TokenStates, unpadded
from triptych.model import inverse_temperature
from triptych.moe.layer import MoE, MoEConfig, MoEOutput

INNER, HIDDEN, DIM, HEADS = 256, 512, 512, 8
EXPERTS, EXPERT_HIDDEN = 128, 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """Which mechanisms are on."""

    name: str
    cross: bool = False  # a pair scorer beside, distilled into the embeddings
    aligned: bool = False  # words to places, and their graphs
    experts: bool = False  # 128 of them, 3.2 active, in place of the two dense layers
    sparse: bool = False  # 30 % of the weights: what is small stays whole
    alike: bool = False  # 30 % of every matrix
    hubs: bool = False  # vectors tell how much of a hub they are
    matched: bool = False  # the reranker that ships: late interaction on what the towers read


RUNGS = (
    Rung(name="dual tower"),
    Rung(name="+ cross-modal attention", cross=True),
    Rung(name="+ alignments", cross=True, aligned=True),
    Rung(name="+ 128 experts", cross=True, aligned=True, experts=True),
    Rung(name="+ dynamic sparsity", cross=True, aligned=True, experts=True, sparse=True),
)
ASIDE = (  # not of the story
    Rung(name="sparse, all alike", cross=True, aligned=True, experts=True, sparse=True, alike=True),
    Rung(name="dual tower, hubs told", hubs=True),
    Rung(name="128 experts, hubs told", cross=True, aligned=True, experts=True, hubs=True),
    Rung(name="experts, hubs, word match", experts=True, hubs=True, matched=True),
)


class Side(NamedTuple):
    """One side of a batch."""

    emb_BM: Tensor  # unit rows
    states: TokenStates


class Both(NamedTuple):
    """Texts and pictures, and what the router says of all their tokens."""

    texts: Side
    pictures: Side
    routed: MoEOutput | None


class Pool(nn.Module):
    """What several heads attend to, beside the mean, to one vector."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.look = nn.LayerNorm(INNER), nn.Linear(INNER, HEADS)
        self.project = nn.Linear(2 * INNER, DIM)

    def forward(self, states: TokenStates) -> Tensor:
        tokens_BTW, mask_BT = self.norm(states.tokens_BTD), states.mask_BT
        scores_BTH = self.look(tokens_BTW).masked_fill(~mask_BT.unsqueeze(-1), -torch.inf)
        share_BHT = scores_BTH.softmax(dim=1).transpose(1, 2).to(tokens_BTW.dtype)
        heads_BHTS = tokens_BTW.unflatten(-1, (HEADS, -1)).transpose(1, 2)
        seen_BW = (share_BHT.unsqueeze(2) @ heads_BHTS).flatten(1)
        weight_BT1 = mask_BT.unsqueeze(-1).to(tokens_BTW.dtype)
        mean_BW = (tokens_BTW * weight_BT1).sum(dim=1) / weight_BT1.sum(dim=1)
        pooled_BM: Tensor = self.project(torch.cat([mean_BW, seen_BW], dim=1))
        return functional.normalize(pooled_BM.float(), dim=-1)


class Dense(nn.Module):
    """The layer that the experts replace."""

    def __init__(self) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(INNER, HIDDEN), nn.Linear(HIDDEN, INNER)
        nn.init.zeros_(self.narrow.weight)

    def forward(self, tokens_BTW: Tensor) -> Tensor:
        made_BTW: Tensor = self.narrow(functional.gelu(self.widen(tokens_BTW), approximate="tanh"))
        return made_BTW


class Ladder(nn.Module):
    """Two heads over frozen states, and what a rung adds."""

    def __init__(self, rung: Rung) -> None:
        super().__init__()
        self.rung = rung
        self.enter_text = Entrance(WIDTH, inner=INNER)
        self.enter_picture = Entrance(CHANNELS, inner=INNER, num_places=PLACES)
        self.norm_text, self.norm_picture = nn.LayerNorm(INNER), nn.LayerNorm(INNER)
        self.pool_text, self.pool_picture = Pool(), Pool()
        self.dropout = nn.Dropout(0.1)
        self.log_scale = nn.Parameter(torch.tensor(math.log(20.0)))
        if rung.experts:
            config = MoEConfig(
                width=INNER, hidden=EXPERT_HIDDEN, num_experts=EXPERTS, zero_output=True
            )
            self.moe = MoE(config)
        else:
            self.dense_text, self.dense_picture = Dense(), Dense()
        if rung.cross:
            self.scorer = PairScorer(
                PairScorerConfig(text_width=INNER, picture_width=INNER, width=128, hidden=256)
            )
        if rung.matched:
            self.matcher = TokenMatcher(
                TokenMatcherConfig(text_width=WIDTH, picture_width=CHANNELS)
            )
        if rung.aligned:
            self.word, self.place = nn.Linear(INNER, 128), nn.Linear(INNER, 128)
            self.structure = Structure(
                StructureConfig(
                    text_width=INNER,
                    picture_width=INNER,
                    rows=GRID,
                    columns=GRID,
                    width=64,
                    num_layers=1,
                )
            )

    def scale(self) -> Tensor:
        return inverse_temperature(self.log_scale)

    def both(self, tokens_BTD: Tensor, mask_BT: Tensor, places_BPC: Tensor) -> Both:
        """Texts and pictures at once: each sees itself alone, the experts' products are shared."""
        if not self.rung.experts:
            return Both(self.text(tokens_BTD, mask_BT), self.picture(places_BPC), None)
        texts, pictures = self._entered_text(tokens_BTD, mask_BT), self._entered(places_BPC)
        normed = [*self.norm_text(texts.tokens_BTD), *self.norm_picture(pictures.tokens_BTD)]
        masks = [*texts.mask_BT, *pictures.mask_BT]
        pad = nn.utils.rnn.pad_sequence
        routed = self.moe(pad(normed, batch_first=True), pad(masks, batch_first=True))
        made = routed.tokens_BTD.split([len(texts.mask_BT), len(pictures.mask_BT)])
        return Both(
            self._pooled(texts, made[0][:, : mask_BT.shape[1]], self.pool_text),
            self._pooled(pictures, made[1][:, : places_BPC.shape[1]], self.pool_picture),
            routed,
        )

    def text(self, tokens_BTD: Tensor, mask_BT: Tensor) -> Side:
        """What is made of the states of MiniLM."""
        states = self._entered_text(tokens_BTD, mask_BT)
        normed_BTW = self.norm_text(states.tokens_BTD)
        if self.rung.experts:
            made_BTW = self.moe(normed_BTW, mask_BT).tokens_BTD
        else:
            made_BTW = self.dense_text(normed_BTW)
        return self._pooled(states, made_BTW, self.pool_text)

    def picture(self, places_BPC: Tensor) -> Side:
        """What is made of the last map of MobileNet."""
        states = self._entered(places_BPC)
        normed_BPW = self.norm_picture(states.tokens_BTD)
        if self.rung.experts:
            made_BPW = self.moe(normed_BPW, states.mask_BT).tokens_BTD
        else:
            made_BPW = self.dense_picture(normed_BPW)
        return self._pooled(states, made_BPW, self.pool_picture)

    def _entered_text(self, tokens_BTD: Tensor, mask_BT: Tensor) -> TokenStates:
        return TokenStates(self.enter_text(TokenStates(tokens_BTD, mask_BT)), mask_BT)

    def _entered(self, places_BPC: Tensor) -> TokenStates:
        return unpadded(self.enter_picture(unpadded(places_BPC)))

    def _pooled(self, entered: TokenStates, made_BTW: Tensor, pool: Pool) -> Side:
        states = TokenStates(self.dropout(entered.tokens_BTD + made_BTW), entered.mask_BT)
        # all that is learnt from states is worked out in float32
        return Side(pool(states), TokenStates(states.tokens_BTD.float(), states.mask_BT))

    def layers(self) -> dict[str, dict[str, nn.Parameter]]:
        """Return the weights of the way to an embedding, by layer, lowest first."""
        rooms = {"enter": ("enter",), "middle": ("dense", "moe"), "pool": ("pool",)}
        return {
            layer: {
                name: parameter
                for name, parameter in self.named_parameters()
                if name.startswith(starts) and parameter.ndim >= 2 and "places_TW" not in name
            }
            for layer, starts in rooms.items()
        }

    def embedding_parameters(self) -> dict[str, nn.Parameter]:
        """Return everything that an embedding needs: the rest is training's and the reranker's."""
        apart = ("scorer", "matcher", "word.", "place.", "structure", "log_scale")
        return {name: p for name, p in self.named_parameters() if not name.startswith(apart)}
