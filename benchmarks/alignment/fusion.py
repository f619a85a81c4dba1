"""Composed retrieval: a product and a colour give the products like it in that colour."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from random import Random

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
from triptych.encoders.cross_modal.fusion import CrossModal, CrossModalConfig
from triptych.encoders.pictures.picture import load_picture
from triptych.encoders.towers.states import TokenStates
from triptych.encoders.towers.transformer import mean_of_tokens
from triptych.pairs import Row
from triptych.training.alignment import contrast
from triptych.training.data import read_rows

TRAIN, GALLERY, QUERIES, BATCH, STEPS, WIDTH = 800, 600, 400, 32, 120, 128
FORMS: dict[str, dict[str, object]] = {
    "late: pooled vectors summed": {"fusion": "late"},
    "mid: attention both ways": {"fusion": "mid"},
    "mid, without the spatial mask": {"fusion": "mid", "mask_width": None},
    "mid, through 8 latents": {"fusion": "mid", "num_latents": 8},
    "early: one self-attention": {"fusion": "early"},
}
SEEDS = (0, 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shop:
    """Products, their pictures' states, and which ask for which others."""

    rows: list[Row]
    places_NPC: Tensor
    texts: Texts  # of the colours
    kinds_N: Tensor
    colours_N: Tensor

    def queries(self, count: int, random: Random) -> list[tuple[int, int, int]]:
        """Return products, colours asked for, and for each a product that answers."""
        alike = defaultdict(list)
        for row, kind in enumerate(self.kinds_N.tolist()):
            alike[kind].append(row)
        found = []
        while len(found) < count:
            source = random.randrange(len(self.rows))
            own = self.colours_N[source]
            others = [r for r in alike[int(self.kinds_N[source])] if self.colours_N[r] != own]
            if others:
                target = random.choice(others)
                found.append((source, int(self.colours_N[target]), target))
        return found

    def right(self, sources: list[int], colours: list[int], among: list[int]) -> Tensor:
        """Return right_QN: of the source's kind, in the colour."""
        kinds = self.kinds_N[sources][:, None] == self.kinds_N[among]
        return kinds & (torch.tensor(colours)[:, None] == self.colours_N[among])


class Composer(nn.Module):
    """Fused states of a picture, a text or both, as one unit vector."""

    def __init__(self, form: dict[str, object]) -> None:
        super().__init__()
        self.text, self.picture = nn.Linear(TEXT_WIDTH, WIDTH), nn.Linear(CHANNELS, WIDTH)
        self.fuse = CrossModal(
            CrossModalConfig(
                text_width=WIDTH, picture_width=WIDTH, width=WIDTH, hidden=2 * WIDTH, **form
            )
        )
        self.norm_text, self.norm_picture = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, WIDTH)

    def forward(self, text: TokenStates | None, picture: TokenStates | None) -> Tensor:
        fused = self.fuse(_through(self.text, text), _through(self.picture, picture))
        sides = ((self.norm_text, fused.text), (self.norm_picture, fused.picture))
        pooled = [norm(mean_of_tokens(*side)) for norm, side in sides if side is not None]
        return functional.normalize(self.head(torch.stack(pooled).sum(dim=0)), dim=-1)


def main() -> None:
    learn, ask = _shop("train", TRAIN), _shop("dev", GALLERY)
    print(
        f"fusion: {QUERIES} queries among {GALLERY} products, recall@10, mean of {len(SEEDS)} seeds"
    )
    print(f"  {'':<34}both           picture alone   text alone")
    for name, form in FORMS.items():
        found = torch.tensor([_run(learn, ask, form, seed=seed) for seed in SEEDS])
        both, picture, text = found.mean(dim=0).tolist()
        spread = float(found[:, 0].std())
        print(f"  {name:<32}{both:5.1f} +- {spread:3.1f}{picture:12.1f}{text:16.1f}", flush=True)


def _run(learn: Shop, ask: Shop, form: dict[str, object], *, seed: int) -> list[float]:
    torch.manual_seed(seed)
    scaled = Scaled(Composer(form))

    def loss(draw: torch.Generator) -> Tensor:
        random = Random(int(torch.randint(2**31, (), generator=draw)))
        sources, colours, targets = map(list, zip(*learn.queries(BATCH, random), strict=True))
        asked = scaled.model(learn.texts.of(colours), pictures_of(learn.places_NPC, sources))
        answers = scaled.model(None, pictures_of(learn.places_NPC, targets))
        positive_QN = learn.right(sources, colours, targets)
        return contrast(asked @ answers.T, positive_QN=positive_QN, scale=scaled.scale())

    train(scaled, loss, steps=STEPS, seed=seed)
    return _judged(scaled.model.eval(), ask)


@torch.inference_mode()
def _judged(model: Composer, shop: Shop) -> list[float]:
    sources, colours, _ = map(list, zip(*shop.queries(QUERIES, Random(5)), strict=True))
    everything = list(range(len(shop.rows)))
    parts = [everything[at : at + 100] for at in range(0, len(everything), 100)]
    answers = torch.cat([model(None, pictures_of(shop.places_NPC, part)) for part in parts])
    right_QN = shop.right(sources, colours, everything)
    text, picture = shop.texts.of(colours), pictures_of(shop.places_NPC, sources)
    found = []
    for asked in ((text, picture), (None, picture), (text, None)):
        scores_QN = model(*asked) @ answers.T
        scores_QN[torch.arange(QUERIES), torch.tensor(sources)] = -1.0  # the query itself
        first_QK = scores_QN.topk(10, dim=1).indices
        found.append(100 * float(right_QN.gather(1, first_QK).any(dim=1).float().mean()))
    return found


def _shop(split: str, count: int) -> Shop:
    rows = [
        row
        for row in read_rows(DATA / "fashion.parquet", splits=[split])
        if row.attributes.get("baseColour") and row.attributes.get("gender")
    ]
    rows = [
        rows[at] for at in draw_rows(count, of=len(rows), draw=torch.Generator().manual_seed(3))
    ]
    kinds = [f"{row.label} {row.attributes['gender']}" for row in rows]
    colours = [str(row.attributes["baseColour"]).lower() for row in rows]
    names, all_kinds = sorted(set(colours)), sorted(set(kinds))
    return Shop(
        rows=rows,
        places_NPC=PictureTower()(
            f"fashion-{split}", len(rows), lambda at: load_picture(rows[at].image or b"")
        ),
        texts=TextTower()([f"the same in {name}" for name in names]),
        kinds_N=torch.tensor([all_kinds.index(kind) for kind in kinds]),
        colours_N=torch.tensor([names.index(colour) for colour in colours]),
    )


def _through(linear: nn.Linear, states: TokenStates | None) -> TokenStates | None:
    return None if states is None else TokenStates(linear(states.tokens_BTD), states.mask_BT)
