"""MaxSim against pooled vectors, and the gap between the modalities, on Flickr8k."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.alignment.learning import Scaled, draw_rows, train
from benchmarks.alignment.towers import (
    CHANNELS,
    TEXT_WIDTH,
    PictureTower,
    Texts,
    TextTower,
    pictures_of,
)
from benchmarks.common import DATA
from triptych.encoders.pictures.picture import load_picture
from triptych.encoders.scorers.maxsim import maxsim
from triptych.encoders.towers.states import TokenStates
from triptych.encoders.towers.transformer import mean_of_tokens
from triptych.metrics import first_ranks, modality_gap, recall_at
from triptych.training.alignment import semantic_loss, token_loss
from triptych.training.data import read_rows
from triptych.training.losses import joint

TRAIN, TEST, BATCH, STEPS, WIDTH = 1000, 400, 48, 150, 128


class Heads(nn.Module):
    """One projection a side, into the space in which tokens and their means are compared."""

    def __init__(self) -> None:
        super().__init__()
        self.text = nn.Sequential(nn.LayerNorm(TEXT_WIDTH), nn.Linear(TEXT_WIDTH, WIDTH))
        self.picture = nn.Sequential(nn.LayerNorm(CHANNELS), nn.Linear(CHANNELS, WIDTH))

    def forward(self, text: TokenStates, picture: TokenStates) -> tuple[TokenStates, TokenStates]:
        return (
            TokenStates(self.text(text.tokens_BTD), text.mask_BT),
            TokenStates(self.picture(picture.tokens_BTD), picture.mask_BT),
        )


def main() -> None:
    texts, places_NPC = _flickr()
    print(f"tokens: Flickr8k, {TRAIN} pictures to learn from, {TEST} asked; words to picture")
    for name in ("untrained", "pooled", "pooled + joint", "tokens", "pooled + tokens"):
        heads = _learned(name, texts, places_NPC)
        _print(name, heads, texts, places_NPC)


def _learned(name: str, texts: Texts, places_NPC: Tensor) -> Heads:
    torch.manual_seed(0)
    scaled = Scaled(Heads())
    own = torch.eye(BATCH, dtype=torch.bool)

    def loss(draw: torch.Generator) -> Tensor:
        rows = draw_rows(BATCH, of=TRAIN, draw=draw)
        # one of two captions of each
        said = [2 * row + int(torch.randint(2, (), generator=draw)) for row in rows]
        text, picture = scaled.model(texts.of(said), pictures_of(places_NPC, rows))
        asked, seen = _pooled(text), _pooled(picture)
        total = torch.zeros(())
        if "pooled" in name:
            total = total + semantic_loss(asked, seen, positive_QN=own, scale=scaled.scale())
        if "joint" in name:
            group_N = torch.arange(BATCH).repeat(2)
            total = total + joint(torch.cat([seen, asked]), group_N=group_N, scale=scaled.scale())
        if "tokens" in name:
            total = total + token_loss(text, picture, positive_QN=own, scale=scaled.scale())
        return total

    if name != "untrained":
        train(scaled, loss, steps=STEPS, seed=0)
    return scaled.model.eval()


@torch.inference_mode()
def _print(name: str, heads: Heads, texts: Texts, places_NPC: Tensor) -> None:
    rows = list(range(TRAIN, TRAIN + TEST))
    asked = texts.of([2 * row for row in rows])
    text, picture = heads(asked, pictures_of(places_NPC, rows))
    words_QM, seen_NM = _pooled(text), _pooled(picture)
    by_tokens = (maxsim(text, picture) + maxsim(picture, text).T) / 2
    scores = {
        "pooled": words_QM @ seen_NM.T,
        "MaxSim": by_tokens,
        "both": words_QM @ seen_NM.T + by_tokens,
    }
    own = torch.eye(TEST, dtype=torch.bool).numpy()
    cells = []
    for kind, scores_QN in scores.items():
        ranks = first_ranks(scores_QN.numpy(), own)
        cells.append(f"{kind} {100 * recall_at(ranks, 1):4.1f} / {100 * recall_at(ranks, 10):4.1f}")
    gap = modality_gap(seen_NM.numpy(), words_QM.numpy())
    print(
        f"  {name:<16}R@1 / R@10 by {', '.join(cells)}; gap {gap.distance:.2f}, separable "
        f"{100 * gap.separability:.0f} %",
        flush=True,
    )


def _flickr() -> tuple[Texts, Tensor]:
    rows = read_rows(DATA / "flickr8k.parquet", splits=["train"])[:TRAIN]
    rows += read_rows(DATA / "flickr8k.parquet", splits=["dev"])[:TEST]
    places_NPC = PictureTower()(
        "flickr8k", len(rows), lambda at: load_picture(rows[at].image or b"")
    )
    return TextTower()([text for row in rows for text in row.texts[:2]]), places_NPC


def _pooled(states: TokenStates) -> Tensor:
    return functional.normalize(mean_of_tokens(*states), dim=-1)
