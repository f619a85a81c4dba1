"""A run: prepare, train stage by stage, export, measure, tell."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from triptych.encoders.onnx import DEFAULT_FOLDER, OnnxModel
from triptych.model import JointModel
from triptych.training import artefact, check, experts, hubness, shipped
from triptych.training.build import TrainingContext, adopt, dev_pictures, prepare
from triptych.training.card import model_card
from triptych.training.embed import embed_texts
from triptych.training.evaluate import figures_of
from triptych.training.log import draw_curves
from triptych.training.loop import Trainer
from triptych.training.recipes import Recipe, Stages
from triptych.training.rerank import reranked
from triptych.training.sources import first_captioned, is_own
from triptych.types import Matrix

LOG = logging.getLogger(__name__)


def run(stages: Stages, *, data: Path, out: Path, name: str) -> dict[str, object]:
    """Run all stages, each in a folder of its name; export the last one's model, measure it.

    `name` is the model's. What is returned is also written to `report.json`.
    """
    out.mkdir(parents=True, exist_ok=True)
    context = prepare(stages[0], data=data, work=out)
    model = train(stages, context, out=out)
    report = {
        "name": name,
        "began": shipped.name_of(DEFAULT_FOLDER) if stages[0].shipped else None,
        "sets": {each: len(source.rows) for each, source in context.sources.items()},
        "pieces": context.tokenizer.get_vocab_size(),
        "dim": model.config.dim,
        "prefixes": model.config.prefixes,
        "recipe": [asdict(stage) for stage in stages],
        **finish(stages[-1], model, context, out=out, name=name),
    }
    (out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (out / "artefact" / "MODEL_CARD.md").write_text(model_card(report), encoding="utf-8")
    LOG.info("the artefact is in %s", out / "artefact")
    return report


def train(stages: Stages, context: TrainingContext, *, out: Path) -> JointModel:
    """Train stage by stage, each from where the one before ended; return the model on the CPU.

    There each begins, upon the towers of the one before; and what follows, calibration to export,
    is for the CPU that it is served on.
    """
    state = None
    for stage in stages:
        if state is None:
            model = context.first(stage)
        else:
            model = context.model(stage.model, seed=stage.seed)
            adopt(model, state, context=context)
        trainer = Trainer(
            stage,
            model=model,
            tokenizer=context.tokenizer,
            sources=context.sources,
            folder=out / stage.name,
            lexicon=context.lexicon,
        )
        measured = measure_pairs if stage.scorer_only else measure
        trainer.train(measure=partial(measured, model, context))
        state = {key: value.cpu() for key, value in trainer.result().items()}
        model.cpu().load_state_dict(state)
        draw_curves(out / stage.name, out / f"{stage.name}.png")
    return model.eval()


def measure(model: JointModel, context: TrainingContext) -> dict[str, float]:
    """Return the figures on dev; the first is what an early stop watches."""

    def embed(texts: Sequence[str]) -> Matrix:
        return embed_texts(model, context.tokenizer, texts).numpy()

    pictures = dev_pictures(model, context.dev_caches)
    return figures_of(pictures, rows=context.dev_rows, embed=embed)


def measure_pairs(model: JointModel, context: TrainingContext) -> dict[str, float]:
    """Return recall@1 on dev captions after reranking, by the weight of the score."""
    judged = first_captioned(context.dev_rows)
    if judged is None:
        return {}
    found = reranked(
        model,
        context.tokenizer,
        rows=context.dev_rows[judged],
        maps_NHWC=context.dev_caches[judged].maps(0),
    )
    return {f"rerank.{weight}": value for weight, value in found.items()}


def freeze_budget(model: JointModel, context: TrainingContext, *, out: Path) -> dict[str, object]:
    """Set the threshold on training items; return what the experts do on those of dev."""
    if model.moe is None:
        return {}
    rows = {name: source.rows for name, source in context.sources.items()}
    caches = {n: source.cache for n, source in context.sources.items() if source.cache is not None}
    experts.calibrate(model.moe, experts.routed_tokens(model, context, rows=rows, caches=caches))
    dev = experts.routed_tokens(model, context, rows=context.dev_rows, caches=context.dev_caches)
    return experts.report(model.moe, dev, picture=out / "experts.png")


def finish(
    last: Recipe, model: JointModel, context: TrainingContext, *, out: Path, name: str
) -> dict[str, object]:
    """Freeze the experts' budget, measure hubs, export, and measure what was exported."""
    used = freeze_budget(model, context, out=out)
    sets = [each for each in context.sources if each in last.hub_sets or is_own(each)]
    if last.hubness is not None and sets:
        hubness.fit(model, context, config=last.hubness, sets=sets)
    write = partial(artefact.write, model, context, name=name)
    write(folder=out / "float32", quantised=False)
    write(folder=out / "artefact", quantised=True)
    rows = context.dev_rows
    pairs = check.weights_of_pairs(OnnxModel.load(out / "artefact"), rows)
    for folder in ("float32", "artefact"):
        artefact.weigh(out / folder, max(pairs, key=lambda weight: pairs[weight], default=0.0))
    exact, small = OnnxModel.load(out / "float32"), OnnxModel.load(out / "artefact")
    some = [row for each in rows.values() for row in each[:100]]
    texts = [text for row in some for text in row.texts]
    size = sum(file.stat().st_size for file in (out / "artefact").iterdir())
    return {
        "parity_float32": check.parity(model, context, model=exact),
        "parity_eight_bits": check.parity(model, context, model=small),
        "alone_float32": check.alone_against_batched(exact, texts=texts[:200], rows=some[:64]),
        "alone_eight_bits": check.alone_against_batched(small, texts=texts, rows=some),
        "dev_float32": check.dev_figures(exact, rows),
        "dev_eight_bits": check.dev_figures(small, rows),
        "rerank": pairs,
        "experts": used,
        "milliseconds": check.speed(out / "artefact", rows=some),
        "megabytes": round(size / 1e6, 2),
    }
