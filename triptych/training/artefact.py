"""The folder that ships: two graphs, the tokenizer and the description."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import onnx
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional

from triptych.encoders.mobilenet import IMAGE_SIZE
from triptych.training.build import Ground
from triptych.training.export import measured_ranges, picture_model, text_model
from triptych.training.features import pixel_batches
from triptych.training.loop import Towers, token_batch
from triptych.training.tokenizer import MAX_TOKENS

NAME = "triptych-base-v1"
MAX_SEGMENTS = 32
LANGUAGES = (
    "en", "bn", "da", "de", "es", "et", "fi", "fr", "hi", "hu", "it", "ja", "ko", "lt", "ms", "nb",
    "nl", "pl", "pt", "ru", "sv", "th", "uk", "vi", "zh", "zh-Hant",
)  # fmt: skip


def write(ground: Ground, *, folder: Path, quantised: bool) -> None:
    """Write graphs, tokenizer and description of the towers as they are now."""
    folder.mkdir(parents=True, exist_ok=True)
    towers = ground.towers.eval()
    ranges = None
    if quantised:
        pictured = [source.rows for source in ground.sources.values() if source.cache is not None]
        some = [row for rows in pictured for row in rows[:: max(len(rows) // 32, 1)][:32]]
        ranges = measured_ranges(towers.picture.trunk, list(pixel_batches(some, view=0)))
    text = text_model(towers.text, quantised=quantised)
    onnx.save(text, folder / "text.onnx")
    onnx.save(picture_model(towers.picture, ranges=ranges), folder / "image.onnx")
    ground.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    description = describe(folder, dim=towers.text.project.out_features, quantised=quantised)
    (folder / "model.json").write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")


def describe(folder: Path, *, dim: int, quantised: bool) -> dict[str, object]:
    """What the reader needs to know, and the sums of all files."""
    files = {}
    for name in ("text.onnx", "image.onnx", "tokenizer.json"):
        data = (folder / name).read_bytes()
        files[name] = {"bytes": len(data), "sha256": sha256(data).hexdigest()}
    return {
        "name": NAME,
        "dim": dim,
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
            "text": "weights 8 bit, a scale per output, words by row; activations float",
            "image": "static 8 bit with ranges fixed at export; head: weights 8 bit, as for text",
        }
        if quantised
        else {"text": "none", "image": "none"},
        "files": files,
    }


def torch_texts(towers: Towers, *, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Unit rows in float32."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out = torch.empty(len(texts), towers.text.project.out_features)
    with torch.inference_mode():
        for start in range(0, len(order), 64):
            chosen = order[start : start + 64]
            ids_BT, mask_BT = token_batch(tokenizer, [texts[i] for i in chosen])
            out[chosen] = functional.normalize(towers.text(ids_BT, mask_BT), dim=-1)
    return out
