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
from triptych.training.export import Floats, measured_ranges, numbers, picture_model, text_model
from triptych.training.features import CUT, pixel_batches
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
    centres = modality_centres(ground)
    ranges = None
    if quantised:
        source = next(s for s in ground.sources.values() if s.cache is not None)
        batches = list(pixel_batches(source.rows[:192], view=0))
        ranges = measured_ranges(towers.picture.trunk, batches)
    text = text_model(towers.text, centre_M=centres["text"], quantised=quantised)
    onnx.save(text, folder / "text.onnx")
    onnx.save(
        picture_model(towers.picture, centre_M=centres["image"], ranges=ranges),
        folder / "image.onnx",
    )
    ground.tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    description = describe(folder, dim=len(centres["text"]), quantised=quantised)
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
            "text": "weights 8 bit: blocks of 64, words by row; activations by row and block",
            "image": "static 8 bit with ranges fixed at export; head: weights 8 bit, blocks of 64",
        }
        if quantised
        else {"text": "none", "image": "none"},
        "centred": True,
        "files": files,
    }


def modality_centres(ground: Ground) -> dict[str, Floats]:
    """The mean unit vector of each modality over training data."""
    source = next(s for s in ground.sources.values() if s.cache is not None)
    texts = [row.texts[0] for row in source.rows[:1000]]
    assert source.cache is not None
    with torch.inference_mode():
        maps = source.cache.maps(0)[:1000].permute(0, 3, 1, 2).float()
        pictures = torch.cat(
            [ground.towers.picture(part, after=CUT) for part in torch.split(maps, 64)]
        )
        text = torch_texts(ground.towers, tokenizer=ground.tokenizer, texts=texts)
    picture = functional.normalize(pictures, dim=-1)
    return {"text": numbers(text.mean(dim=0)), "image": numbers(picture.mean(dim=0))}


def torch_texts(towers: Towers, *, tokenizer: Tokenizer, texts: Sequence[str]) -> Tensor:
    """Unit rows, not centred, in float32."""
    order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
    out = torch.empty(len(texts), towers.text.project.out_features)
    with torch.inference_mode():
        for start in range(0, len(order), 64):
            chosen = order[start : start + 64]
            ids_BT, mask_BT = token_batch(tokenizer, [texts[i] for i in chosen])
            out[chosen] = functional.normalize(towers.text(ids_BT, mask_BT), dim=-1)
    return out
