"""Does structure earn its place? "A left of B" against "B left of A"."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks.alignment.learning import Scaled, draw_rows, train
from benchmarks.alignment.made_up import Staged, of_shapes
from benchmarks.alignment.towers import CHANNELS, TEXT_WIDTH, pictures_of
from triptych.encoders.structure.alignment import Structure, StructureConfig
from triptych.encoders.structure.word_graph import word_links
from triptych.training.alignment import contrast, recall, relation_accuracy, structure_loss

TRAIN, TEST, TWINS, STEPS = 400, 100, 12, 150
SEEDS = (0, 1, 2)
FORMS = {
    "neither": {"num_layers": 0, "relations": False},
    "messages (GATv2) alone": {"num_layers": 2, "relations": False},
    "matched relations alone": {"num_layers": 0, "relations": True},
    "both": {"num_layers": 2, "relations": True},
}


def main() -> None:
    stage = of_shapes(count=TRAIN + TEST, seed=1)
    print(f"relations: {TRAIN} twins to learn from, {2 * TEST} scenes asked; percent right,")
    print("  chance 50; recall@1 of a caption among 50 scenes, 25 of them twins of the others")
    for name, form in FORMS.items():
        found = [_run(stage, form, seed=seed) for seed in SEEDS]
        parts = []
        for values in zip(*found, strict=True):
            mean, spread = statistics.mean(values), statistics.stdev(values)
            parts.append(f"{100 * mean:5.1f} +- {100 * spread:4.1f}")
        print(f"  {name:<26}{parts[0]}   recall@1 {parts[1]}", flush=True)


def _run(stage: Staged, form: dict[str, object], *, seed: int) -> tuple[float, float]:
    torch.manual_seed(seed)
    config = StructureConfig(
        text_width=TEXT_WIDTH, picture_width=CHANNELS, width=64, reach=2, **form
    )
    scaled = Scaled(Structure(config))
    links = [word_links(pieces) for pieces in stage.texts.pieces]

    def scores(rows: list[int]) -> Tensor:
        texts = scaled.model.texts(stage.texts.of(rows), [links[row] for row in rows])
        return scaled.model.scores(
            texts, scaled.model.pictures(pictures_of(stage.places_NPC, rows))
        )

    def loss(draw: torch.Generator) -> Tensor:
        scores_QN = scores(_both(draw_rows(TWINS, of=TRAIN, draw=draw)))
        own = torch.eye(len(scores_QN), dtype=torch.bool)
        return contrast(scores_QN, positive_QN=own, scale=scaled.scale()) + structure_loss(
            *_right_and_swapped(scores_QN), scale=scaled.scale()
        )

    train(scaled, loss, steps=STEPS, seed=seed)
    return _judged(scores)


@torch.inference_mode()
def _judged(scores: Callable[[list[int]], Tensor]) -> tuple[float, float]:
    right, found = [], []
    for start in range(TRAIN, TRAIN + TEST, 25):
        scores_QN = scores(_both(list(range(start, start + 25))))
        right.append(relation_accuracy(*_right_and_swapped(scores_QN)))
        found.append(recall(scores_QN, positive_QN=torch.eye(50, dtype=torch.bool)))
    return statistics.mean(right), statistics.mean(found)


def _both(pairs: list[int]) -> list[int]:
    return [row for pair in pairs for row in (2 * pair, 2 * pair + 1)]


def _right_and_swapped(scores_QN: Tensor) -> tuple[Tensor, Tensor]:
    """Return for every picture the score of its own caption and of its twin's."""
    rows = torch.arange(len(scores_QN))
    return scores_QN[rows, rows], scores_QN[rows ^ 1, rows]
