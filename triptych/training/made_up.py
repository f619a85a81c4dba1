"""Data of the true form and no worth: coloured squares and random weights, for the smoke recipe."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as arrow
import pyarrow.parquet as parquet
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

COLOURS = {
    "red": (200, 30, 30),
    "green": (30, 160, 60),
    "blue": (40, 60, 200),
    "grey": (128, 128, 128),
}
IN_GERMAN = {"red": "rot", "green": "grün", "blue": "blau", "grey": "grau"}


def write_data(folder: Path) -> None:
    """Write two small sets, a trunk and a text model, all with the true files' names and shapes."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(1)
    for name in ("flickr8k", "emoji"):
        rows = [_row(index, colour) for index, colour in enumerate(list(COLOURS) * 6)]
        parquet.write_table(arrow.Table.from_pylist(rows), folder / f"{name}.parquet")
    nodes = list(_nodes())
    weights = {key: value for node in nodes for key, value in _weights(node)}
    graph = json.dumps([node["layer"] for node in nodes])
    save_file(weights, folder / "mobilenet_edgetpu.safetensors", metadata={"layers": graph})
    _write_text_model(folder / "minilm")


def _row(index: int, colour: str) -> dict[str, object]:
    shades = np.random.default_rng(index).integers(-25, 25, (16, 16, 3))
    pixels = (np.asarray(COLOURS[colour]) + shades).clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).resize((48, 40)).save(file, "WEBP")
    texts = [f"a {colour} square", f"number {index} is {colour}"]
    names = {"de": [f"{IN_GERMAN[colour]}es Quadrat", IN_GERMAN[colour]]}
    return {
        "id": str(index),
        "split": "dev" if index % 3 == 2 else "train",
        "image": file.getvalue(),
        "texts": texts,
        "label": texts[0],
        "attributes": json.dumps(names),
    }


def _nodes() -> Iterator[dict[str, object]]:
    """73 layers of which number 26 gives 14x14x96 and the last 7x7x1280, as in the true graph."""
    channels = {-1: 3, 25: 8, 26: 96, 41: 96, 71: 32, 72: 1280}
    halved = (0, 1, 2, 26, 55)
    width = 3
    for index in range(73):
        if index in (6, 30, 60):
            yield {"layer": {"op": "add", "input": [index - 1, index - 2]}, "shape": None}
            continue
        out = channels.get(index, 8 if index < 26 else 96 if index < 71 else 32)
        layer = {
            "op": "conv", "name": f"c{index}.x", "input": index - 1, "groups": 1, "padding": "same",
            "stride": 2 if index in halved else 1,
            "activation": "relu" if index % 3 == 0 else None, "range": [0.0, 6.0],
        }  # fmt: skip
        yield {"layer": layer, "shape": (out, width, 3 if index in halved else 1)}
        width = out


def _weights(node: dict[str, object]) -> Iterator[tuple[str, Tensor]]:
    layer, shape = node["layer"], node["shape"]
    assert isinstance(layer, dict)
    if isinstance(shape, tuple):
        out, width, kernel = shape
        weight = torch.randn(out, width, kernel, kernel) * (1.4 / (width * kernel**2)) ** 0.5
        yield f"{layer['name']}.weight", weight
        yield f"{layer['name']}.bias", torch.randn(out) * 0.05


def _write_text_model(folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "is", "number", "square", *COLOURS]
    words += [chr(code) for code in range(ord("a") + 1, ord("z") + 1)]
    words += [f"##{chr(code)}" for code in range(ord("a"), ord("z") + 1)] + list("0123456789")
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    weights = {f"embeddings.{name}": value for name, value in _embeddings(len(words))}
    for index in range(6):
        for part, out, width in _LINEARS:
            weights[f"encoder.layer.{index}.{part}.weight"] = torch.randn(out, width) * 0.05
            weights[f"encoder.layer.{index}.{part}.bias"] = torch.zeros(out)
        for part in ("attention.output.LayerNorm", "output.LayerNorm"):
            weights[f"encoder.layer.{index}.{part}.weight"] = torch.ones(384)
            weights[f"encoder.layer.{index}.{part}.bias"] = torch.zeros(384)
    save_file(weights, folder / "model.safetensors")


def _embeddings(num_words: int) -> Iterator[tuple[str, Tensor]]:
    yield "word_embeddings.weight", torch.randn(num_words, 384) * 0.05
    yield "position_embeddings.weight", torch.randn(512, 384) * 0.02
    yield "token_type_embeddings.weight", torch.randn(2, 384) * 0.02
    yield "LayerNorm.weight", torch.ones(384)
    yield "LayerNorm.bias", torch.zeros(384)


_LINEARS = (
    ("attention.self.query", 384, 384),
    ("attention.self.key", 384, 384),
    ("attention.self.value", 384, 384),
    ("attention.output.dense", 384, 384),
    ("intermediate.dense", 1536, 384),
    ("output.dense", 384, 1536),
)
