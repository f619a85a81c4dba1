"""Structure: patches and words as graphs, and how well the one fits onto the other.

Q texts, N pictures, B either, T pieces, P patches, W width, E links, F features or waves.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch_geometric.nn import GATv2Conv

from triptych.encoders.cross_modal.entrance import Entrance
from triptych.encoders.scorers.maxsim import unit_tokens
from triptych.encoders.structure.graphs import (
    PATCH_FEATURES,
    WORD_FEATURES,
    Grid,
    Links,
    patch_links,
    places,
    text_links,
)
from triptych.encoders.structure.transport import transport
from triptych.encoders.structure.word_graph import Link
from triptych.encoders.towers.states import TokenStates, check_states
from triptych.errors import InvalidInput

# half waves across the picture, right and down: the slow ones tell left from right
_WAVES = ((1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (0, 2))


@dataclass(frozen=True, slots=True, kw_only=True)
class StructureConfig:
    """Which graphs are built, and what runs along their links."""

    text_width: int
    picture_width: int
    rows: int = 7  # of patches
    columns: int = 7
    width: int = 128
    num_heads: int = 4
    num_layers: int = 2  # of message passing; 0: every node for itself
    relations: bool = True  # whether the links of a text are held against the places of its words
    reach: int = 6  # steps along rows, columns and diagonals; 1: the eight around a patch
    nearest: int = 4  # patches in feature space
    transport_steps: int = 5

    def __post_init__(self) -> None:
        if self.width % self.num_heads:
            raise InvalidInput(
                f"A width of {self.width} does not divide into {self.num_heads} heads.",
                hint="Make it a multiple of num_heads.",
            )


class TextGraphs(NamedTuple):
    """Texts after message passing."""

    nodes: TokenStates
    edges_2E: Tensor
    wanted_EF: Tensor | None  # what each link asks of the offset between the places of its ends


class Structure(nn.Module):
    """Two graph networks and a matching of their nodes and links.

    Messages by GATv2 (Brody et al. 2022), whose links know their direction; words onto patches by
    optimal transport (as GOT, Chen et al. 2020); relations by the offset to be expected between two
    words.
    """

    cos_PF: Tensor
    sin_PF: Tensor

    def __init__(self, config: StructureConfig) -> None:
        super().__init__()
        self.config = config
        self.grid = Grid(config.rows, config.columns)
        width = config.width
        self.enter_text = Entrance(config.text_width, inner=width)
        self.enter_picture = Entrance(
            config.picture_width, inner=width, num_places=config.rows * config.columns
        )
        self.of_words = nn.ModuleList(
            _Messages(config, features=WORD_FEATURES + width) for _ in range(config.num_layers)
        )
        self.of_patches = nn.ModuleList(
            _Messages(config, features=PATCH_FEATURES) for _ in range(config.num_layers)
        )
        self.want = _Wanted(width) if config.relations else None
        self.aside = nn.Parameter(torch.zeros(()))  # a word's gain where no patch takes it
        self.log_sharpness = nn.Parameter(torch.tensor(10.0).log())  # of the transport
        angles_PF = math.pi * places(self.grid) @ torch.tensor(_WAVES, dtype=torch.float32).T
        self.register_buffer("cos_PF", angles_PF.cos(), persistent=False)
        self.register_buffer("sin_PF", angles_PF.sin(), persistent=False)

    def texts(self, text: TokenStates, links: Sequence[Sequence[Link]]) -> TextGraphs:
        """Return the graphs of texts, given the links of each (`word_graph.word_links`).

        Raises InvalidInput on shapes that do not fit, and on a token that is not finite.
        """
        check_states(text, self.config.text_width, what="text")
        graph = text_links(links, mask_BT=text.mask_BT)
        nodes_BTW = self.enter_text(text)
        between_EW = _between(nodes_BTW, graph)
        features_EF = torch.cat([graph.features_EF, between_EW], dim=1)
        for layer in self.of_words:
            nodes_BTW = layer(nodes_BTW, graph.edges_2E, features_EF)
        wanted_EF = None
        if self.want is not None:
            wanted_EF = self.want(nodes_BTW.flatten(0, 1)[graph.edges_2E], features_EF)
        return TextGraphs(TokenStates(nodes_BTW, text.mask_BT), graph.edges_2E, wanted_EF)

    def pictures(self, picture: TokenStates) -> TokenStates:
        """Return the patches after message passing; raises InvalidInput as `texts` does."""
        check_states(picture, self.config.picture_width, what="picture")
        graph = patch_links(
            picture, self.grid, reach=self.config.reach, nearest=self.config.nearest
        )
        nodes_BPW = self.enter_picture(picture)
        for layer in self.of_patches:
            nodes_BPW = layer(nodes_BPW, graph.edges_2E, graph.features_EF)
        return TokenStates(nodes_BPW, picture.mask_BT)

    def plan(self, texts: TextGraphs, pictures: TokenStates) -> tuple[Tensor, Tensor]:
        """Return plan_QNTP, where each piece lies in each picture, and cosines_QNTP."""
        cosines_QNTP = torch.einsum(
            "qtw,npw->qntp", unit_tokens(texts.nodes), unit_tokens(pictures)
        )
        sharpness = self.log_sharpness.exp()
        plan_QNTP = transport(
            cosines_QNTP * sharpness,
            mask_T=texts.nodes.mask_BT.unsqueeze(1),
            mask_P=pictures.mask_BT,
            aside=self.aside * sharpness,
            steps=self.config.transport_steps,
        )
        return plan_QNTP, cosines_QNTP

    def scores(self, texts: TextGraphs, pictures: TokenStates) -> Tensor:
        """Return scores_QN of all pairs: how well nodes, and links, of each text fit a picture.

        A text or picture without a token scores 0.
        """
        plan_QNTP, cosines_QNTP = self.plan(texts, pictures)
        count_Q1 = texts.nodes.mask_BT.sum(dim=1, keepdim=True).clamp(min=1)
        scores_QN = (plan_QNTP * cosines_QNTP).sum(dim=(2, 3)) / count_Q1
        if texts.wanted_EF is None:
            return scores_QN
        return scores_QN + self._relations(texts.edges_2E, texts.wanted_EF, plan_QNTP)

    def _relations(self, edges_2E: Tensor, wanted_EF: Tensor, plan_QNTP: Tensor) -> Tensor:
        """Return scores_QN: what links want, held against the offsets that the plan expects.

        E cos(w (p - q)) and E sin(w (p - q)) over independent places p and q of two words are
        products of the words' own means: so no pair of patches is ever looked at.
        """
        texts, pictures, pieces, _ = plan_QNTP.shape
        mass_QNT1 = plan_QNTP.sum(dim=-1, keepdim=True).clamp(min=1e-6)
        share_QTNP = (plan_QNTP / mass_QNT1).transpose(1, 2).flatten(0, 1)
        cos_ENF, sin_ENF = share_QTNP @ self.cos_PF, share_QTNP @ self.sin_PF
        source_E, target_E = edges_2E
        cos_s, sin_s, cos_t, sin_t = (
            wave[end] for end in (source_E, target_E) for wave in (cos_ENF, sin_ENF)
        )
        offset_ENF = torch.cat(
            [cos_s * cos_t + sin_s * sin_t, sin_t * cos_s - cos_t * sin_s], dim=-1
        )
        fit_EN = (offset_ENF @ wanted_EF.unsqueeze(-1)).squeeze(-1)
        owner_E = source_E // max(pieces, 1)
        total_QN = fit_EN.new_zeros(texts, pictures).index_add(0, owner_E, fit_EN)
        count_Q = torch.bincount(owner_E, minlength=texts).clamp(min=1)
        return total_QN / count_Q.unsqueeze(1)


class _Messages(nn.Module):
    """One round: every node takes from its neighbours, weighed by itself, them and the link."""

    def __init__(self, config: StructureConfig, *, features: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.width)
        # no loop onto itself: the sum below holds the node already
        self.attend = GATv2Conv(
            config.width,
            config.width // config.num_heads,
            heads=config.num_heads,
            edge_dim=features,
            add_self_loops=False,
        )

    def forward(self, nodes_BTW: Tensor, edges_2E: Tensor, features_EF: Tensor) -> Tensor:
        flat_NW = self.norm(nodes_BTW).flatten(0, 1)
        taken_NW = functional.gelu(self.attend(flat_NW, edges_2E, features_EF))
        mixed_BTW: Tensor = nodes_BTW + taken_NW.view_as(nodes_BTW)
        return mixed_BTW


class _Wanted(nn.Module):
    """From the ends and the features of a link to the weights of the waves of its offset."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.widen = nn.Linear(3 * width + WORD_FEATURES, width)
        self.waves = nn.Linear(width, 2 * len(_WAVES))

    def forward(self, ends_2EW: Tensor, features_EF: Tensor) -> Tensor:
        known = torch.cat([ends_2EW[0], ends_2EW[1], features_EF], dim=1)
        wanted_EF: Tensor = self.waves(functional.gelu(self.widen(known)))
        return wanted_EF


def _between(nodes_BTW: Tensor, graph: Links) -> Tensor:
    """Return between_EW: the mean state of the pieces between the ends of a link, 0 of none."""
    assert graph.spans_2E is not None
    # summed within a text: along the batch a neighbour would leave its rounding behind
    sums_NW = functional.pad(nodes_BTW.cumsum(dim=1), (0, 0, 1, 0)).flatten(0, 1)
    owner_E = graph.edges_2E[0] // max(nodes_BTW.shape[1], 1)
    start_E, stop_E = graph.spans_2E + owner_E
    count_E1 = (stop_E - start_E).clamp(min=1).unsqueeze(1)
    between_EW: Tensor = (sums_NW[stop_E] - sums_NW[start_E]) / count_E1
    return between_EW
