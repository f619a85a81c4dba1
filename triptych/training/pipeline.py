"""The stages of a run: prepare, train the heads, train the towers, export, measure, tell."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from triptych.encoders.onnx import OnnxModel
from triptych.training import artefact, check
from triptych.training.build import Ground, dev_pictures, prepare
from triptych.training.card import model_card
from triptych.training.evaluate import figures_of
from triptych.training.loop import Trainer
from triptych.training.recipes import Recipe, heads_of
from triptych.types import Matrix

LOG = logging.getLogger(__name__)


def run(recipe: Recipe, *, data: Path, out: Path) -> dict[str, object]:
    """Run all stages; what is returned is also written to `report.json`."""
    out.mkdir(parents=True, exist_ok=True)
    ground = prepare(recipe, data=data, work=out)
    if recipe.head_steps:
        heads = heads_of(recipe)
        ground.towers.load_state_dict(train(heads, ground, folder=out / "heads"))
    ground.towers.load_state_dict(train(recipe, ground, folder=out / "towers"))
    report = {"recipe": asdict(recipe), **finish(ground, out=out)}
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    folder = out / "artefact"
    (folder / "MODEL_CARD.md").write_text(model_card(report), encoding="utf-8")
    draw_losses(out / "towers" / "log.jsonl", out / "loss.png")
    LOG.info("the artefact is in %s", folder)
    return report


def train(recipe: Recipe, ground: Ground, *, folder: Path) -> dict[str, object]:
    """Train to the end, measuring on dev now and then; return the averaged state."""
    folder.mkdir(parents=True, exist_ok=True)
    sources = {name: source for name, source in ground.sources.items() if name in recipe.mixture}
    trainer = Trainer(
        recipe, towers=ground.towers, tokenizer=ground.tokenizer, sources=sources, folder=folder
    )
    while trainer.step < recipe.steps:
        trainer.run(until=min(trainer.step + recipe.eval_every, recipe.steps))
        figures = _figures(ground, trainer)
        with (folder / "figures.jsonl").open("a") as file:
            file.write(json.dumps({"step": trainer.step, **figures}) + "\n")
        LOG.info("step %d on dev: %s", trainer.step, figures)
    return dict(trainer.averaged())


def _figures(ground: Ground, trainer: Trainer) -> dict[str, float]:
    current = {name: value.clone() for name, value in ground.towers.state_dict().items()}
    ground.towers.load_state_dict(trainer.averaged())
    ground.towers.eval()

    def embed(texts: Sequence[str]) -> Matrix:
        return artefact.torch_texts(ground.towers, tokenizer=ground.tokenizer, texts=texts).numpy()

    pictures = dev_pictures(ground.towers, ground.dev_caches)
    figures = figures_of(pictures, rows=ground.dev_rows, embed=embed)
    ground.towers.load_state_dict(current)
    return figures


def finish(ground: Ground, *, out: Path) -> dict[str, object]:
    """Export in float32 and in eight bits, and measure both."""
    artefact.write(ground, folder=out / "float32", quantised=False)
    artefact.write(ground, folder=out / "artefact", quantised=True)
    exact, shipped = OnnxModel.load(out / "float32"), OnnxModel.load(out / "artefact")
    rows = ground.dev_rows
    some = [row for each in rows.values() for row in each[:100]]
    texts = [text for row in some for text in row.texts]
    size = sum(file.stat().st_size for file in (out / "artefact").iterdir())
    return {
        "parity_float32": check.parity(ground, model=exact),
        "parity_eight_bits": check.parity(ground, model=shipped),
        "alone_float32": check.alone_against_batched(exact, texts=texts[:200], rows=some[:64]),
        "alone_eight_bits": check.alone_against_batched(shipped, texts=texts, rows=some),
        "dev_float32": check.dev_figures(exact, rows),
        "dev_eight_bits": check.dev_figures(shipped, rows),
        "milliseconds": check.speed(out / "artefact", rows=some),
        "megabytes": round(size / 1e6, 2),
    }


def draw_losses(log: Path, picture: Path) -> None:
    """The loss of every set over the steps."""
    by_set: dict[str, tuple[list[int], list[float]]] = {}
    for line in log.read_text().splitlines():
        record: Mapping[str, object] = json.loads(line)
        steps, losses = by_set.setdefault(str(record["set"]), ([], []))
        steps.append(int(str(record["step"])))
        losses.append(float(str(record["loss"])))
    figure, axes = pyplot.subplots(figsize=(9, 5))
    for name, (steps, losses) in sorted(by_set.items()):
        axes.plot(steps, losses, ".-", label=name, linewidth=0.8)
    axes.set_xlabel("step")
    axes.set_ylabel("loss of one batch")
    axes.legend(fontsize=7, ncols=2)
    figure.savefig(picture, dpi=110)
    pyplot.close(figure)
