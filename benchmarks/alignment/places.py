"""The pointing game: does a phrase point at what it names, with and without the spatial mask?"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.alignment.learning import Scaled, draw_rows, train
from benchmarks.alignment.made_up import Staged, of_emoji, of_shapes
from benchmarks.alignment.towers import (
    CHANNELS,
    GRID,
    PLACES,
    TEXT_WIDTH,
    pictures_of,
)
from triptych.encoders.cross_modal.spatial_mask import as_bias
from triptych.encoders.scorers.maxsim import unit_tokens
from triptych.encoders.scorers.pair_scorer import PairScorer, PairScorerConfig
from triptych.encoders.towers.states import TokenStates
from triptych.training.alignment import mask_loss, pieces_within, pixel_targets, pointing_hits

TRAIN, TEST, UNSEEN, BATCH, OTHERS, STEPS = 800, 200, 120, 24, 3, 150
Heat = Callable[[PairScorer, TokenStates, TokenStates], Tensor]


def main() -> None:
    stage = of_shapes(count=(TRAIN + TEST) // 2, seed=1)
    unseen = of_emoji(count=UNSEEN // 2, seed=2)
    tests = ((stage, range(TRAIN, TRAIN + TEST)), (unseen, range(UNSEEN)))
    print(f"places: {TRAIN} scenes to learn from, two phrases a scene; percent of hits")
    print(f"  {'':<44}shapes   emoji, never seen")
    _print("a uniform guess", [_guess(*test, torch.ones(PLACES)) for test in tests])
    centre = torch.zeros(PLACES)
    centre[PLACES // 2] = 1.0
    _print("the centre", [_guess(*test, centre) for test in tests])
    for name, masked, boxes in (
        ("without a mask", False, False),
        ("mask, no boxes", True, False),
        ("mask, boxes", True, True),
    ):
        model = _learned(stage, masked=masked, boxes=boxes)
        heats = {"attention": _attention, "token cosines": _cosines}
        if masked:
            heats["the mask itself"] = _mask
        for kind, heat in heats.items():
            _print(f"{name}: {kind}", [_hits(model, heat, *test) for test in tests])


def _print(name: str, hits: list[Tensor]) -> None:
    cells = (f"{100 * h.mean():5.1f} +- {100 * h.std() / len(h) ** 0.5:3.1f}" for h in hits)
    print(f"  {name:<40}" + "   ".join(cells), flush=True)


def _learned(stage: Staged, *, masked: bool, boxes: bool) -> PairScorer:
    torch.manual_seed(0)
    config = PairScorerConfig(
        text_width=TEXT_WIDTH,
        picture_width=CHANNELS,
        width=96,
        hidden=128,
        mask_width=64 if masked else None,
    )
    scaled = Scaled(PairScorer(config))

    def loss(draw: torch.Generator) -> Tensor:
        rows = draw_rows(BATCH, of=TRAIN, draw=draw)
        pictures = pictures_of(stage.places_NPC, rows)
        scores, spatial = [], None
        for step in range(1 + OTHERS):
            said = scaled.model(stage.texts.of(rows[step:] + rows[:step]), pictures)
            scores.append(said.scores_B)
            spatial = said.spatial_BTP if step == 0 else spatial
        # the first of each is its own caption
        total = torch.stack(scores, dim=1).log_softmax(dim=1)[:, 0].neg().mean()
        if not boxes:
            return total
        inside_BTP, spoken_BT = _targets(stage, rows, length=spatial.shape[1])
        return total + mask_loss(spatial, inside_BTP=inside_BTP, spoken_BT=spoken_BT)

    train(scaled, loss, steps=STEPS, seed=0)
    return scaled.model.eval()


def _targets(stage: Staged, rows: list[int], *, length: int) -> tuple[Tensor, Tensor]:
    scenes = [stage.scenes[row] for row in rows]
    offsets = [stage.texts.offsets[row] for row in rows]
    return pixel_targets(scenes, offsets, length=length, grid=GRID)


def _guess(stage: Staged, rows: range, heat_P: Tensor) -> Tensor:
    boxes = [mention.box for row in rows for mention in stage.scenes[row].mentions]
    return pointing_hits(heat_P.expand(len(boxes), -1), boxes, GRID)


@torch.inference_mode()
def _hits(model: PairScorer, heat: Heat, stage: Staged, rows: range) -> Tensor:
    heats, boxes = [], []
    for row in rows:
        heat_TP = heat(model, stage.texts.of([row]), pictures_of(stage.places_NPC, [row]))[0]
        for mention in stage.scenes[row].mentions:
            at = pieces_within(stage.texts.offsets[row], mention.start, mention.stop)
            heats.append(heat_TP[at].mean(dim=0))
            boxes.append(mention.box)
    return pointing_hits(torch.stack(heats), boxes, GRID)


def _mask(model: PairScorer, text: TokenStates, picture: TokenStates) -> Tensor:
    return model(text, picture).spatial_BTP


def _cosines(model: PairScorer, text: TokenStates, picture: TokenStates) -> Tensor:
    sides = ((model.enter_text, text), (model.enter_picture, picture))
    words, patches = (unit_tokens(TokenStates(way(side), side.mask_BT)) for way, side in sides)
    return words @ patches.transpose(1, 2)


def _attention(model: PairScorer, text: TokenStates, picture: TokenStates) -> Tensor:
    text_BTW, picture_BPW = model.enter_text(text), model.enter_picture(picture)
    block = model.layer.to_text
    bias = None if model.spatial is None else as_bias(model.spatial(text_BTW, picture_BPW))
    shares_BHTP = block.attention.shares(
        block.norm_ask(text_BTW),
        block.norm_answer(picture_BPW),
        mask_BK=picture.mask_BT,
        bias_BQK=bias,
    )
    return shares_BHTP.mean(dim=1)
