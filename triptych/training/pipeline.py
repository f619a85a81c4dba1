"""A run: prepare, train stage by stage, export, measure, tell."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from triptych.model import JointModel
from triptych.training.build import Ground, adopt, dev_pictures, embed_texts, prepare
from triptych.training.evaluate import figures_of
from triptych.training.log import draw_curves
from triptych.training.loop import Trainer
from triptych.training.recipes import Stages
from triptych.types import Matrix

LOG = logging.getLogger(__name__)


def run(stages: Stages, *, data: Path, out: Path) -> JointModel:
    """Run all stages, each in a folder of its name; return the model of the last."""
    out.mkdir(parents=True, exist_ok=True)
    ground = prepare(stages[0], data=data, work=out)
    state = None
    for stage in stages:
        model = ground.model(stage.model, seed=stage.seed)
        if state is not None:
            adopt(model, state, ground=ground)
        trainer = Trainer(
            stage,
            model=model,
            tokenizer=ground.tokenizer,
            sources=ground.sources,
            folder=out / stage.name,
        )
        trainer.train(measure=lambda model=model: measure(model, ground))
        state = trainer.averaged()
        model.load_state_dict(state)
        draw_curves(out / stage.name, out / f"{stage.name}.png")
    return model.eval()


def measure(model: JointModel, ground: Ground) -> dict[str, float]:
    """Return the figures on dev; the first is what an early stop watches."""

    def embed(texts: Sequence[str]) -> Matrix:
        return embed_texts(model, ground.tokenizer, texts).numpy()

    pictures = dev_pictures(model, ground.dev_caches)
    return figures_of(pictures, rows=ground.dev_rows, embed=embed)
