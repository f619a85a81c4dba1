"""The folder that ships: graphs, the tokenizer and the description."""

from __future__ import annotations

import gzip
import json
import math
from hashlib import sha256
from pathlib import Path

from triptych.encoders.text_reader import PACKED
from triptych.encoders.towers.mobilenet import IMAGE_SIZE, MobileNet
from triptych.model import JointModel
from triptych.training.build import TrainingContext
from triptych.training.export import rounding, shared
from triptych.training.export.fusion import both_model, pair_model
from triptych.training.export.picture import picture_model, places_model
from triptych.training.export.text import text_model
from triptych.training.features import pixel_batches
from triptych.training.tokenizer import MAX_TOKENS

MAX_SEGMENTS = 32
PLACES = (7, 7)  # rows and columns of the last map
ASIDE = ("places.onnx",)  # what explains only: no vector and no score depends on it
LANGUAGES = (
    "en", "ar", "bn", "cs", "da", "de", "el", "es", "et", "fi", "fr", "hi", "hu", "it", "ja", "ko",
    "lt", "ms", "nb", "nl", "pl", "pt", "ru", "sv", "th", "tr", "uk", "vi", "zh", "zh-Hant",
)  # fmt: skip


def write(
    model: JointModel, context: TrainingContext, *, folder: Path, name: str, quantised: bool
) -> None:
    """Write graphs, tokenizer and description; a pair's score counts nothing until `weigh`."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    eight_bits = None
    if quantised:
        pictured = [source.rows for source in context.sources.values() if source.cache is not None]
        some = [row for rows in pictured for row in rows[:: max(len(rows) // 32, 1)][:32]]
        assert isinstance(model.picture, MobileNet)
        eight_bits = rounding.measured(model.picture, list(pixel_batches(some)))
    graphs = {
        "text": text_model(model, quantised=quantised),
        "image": picture_model(model, rounding=eight_bits),
        "places": places_model(model, quantised=quantised),
    }
    if model.fusion is not None:
        graphs["both"] = both_model(model, quantised=quantised)
    if model.scorer is not None:
        graphs["pair"] = pair_model(model)
    shared.save(graphs, folder)
    packed = gzip.compress(context.tokenizer.to_str(pretty=False).encode(), mtime=0)
    (folder / PACKED).write_bytes(packed)
    description = describe(folder, model=model, name=name, quantised=quantised)
    (folder / "model.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def weigh(folder: Path, pair_weight: float) -> None:
    """Tell how many cosines a unit of a pair's score counts."""
    path = folder / "model.json"
    description = json.loads(path.read_text("utf-8"))
    description["pair_weight"] = pair_weight
    path.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def describe(folder: Path, *, model: JointModel, name: str, quantised: bool) -> dict[str, object]:
    """Return what the reader needs to know, and the sums of all files."""
    files: dict[str, object] = {}
    aside: dict[str, object] = {}
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        listed = aside if path.name in ASIDE else files
        listed[path.name] = {"bytes": len(data), "sha256": sha256(data).hexdigest()}
    described: dict[str, object] = {
        "name": name,
        "dim": model.config.dim,
        "prefixes": list(model.config.prefixes),
        "languages": list(LANGUAGES),
        "image": {
            "size": IMAGE_SIZE,
            "resize": "squash, bilinear",
            "mean": 127.5,
            "std": 127.5,
            "colour": "RGB",
        },
        "text": {
            "max_tokens": MAX_TOKENS,
            "max_segments": MAX_SEGMENTS,
            "normaliser": "NFKC, lower case",
        },
        "quantisation": {
            "text": "weights 8 bit, a scale per output, words 4 bit, a scale per 32; "
            "activations float",
            "image": "static 8 bit, ranges and biases set at export; head: weights 8 bit",
            "experts": "weights 8 bit, a scale per output; activations float",
        }
        if quantised
        else {"text": "none", "image": "none", "experts": "none"},
        "files": files,
        "aside": aside,
        "places": list(PLACES),
        "place_states": "patches",
    }
    if model.config.moe is not None:
        described["experts"] = model.config.moe.num_experts
    if model.scorer is not None:
        described |= {
            "states": model.scorer.config.width,
            "patches": math.prod(PLACES),
            "pair_weight": 0.0,
        }
    return described
