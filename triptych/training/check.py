"""What is measured on a finished artefact: agreement with torch, law 2, dev figures, speed.

N pictures or texts, M embedding width.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from triptych.encoders.onnx import OnnxModel
from triptych.training.artefact import torch_texts
from triptych.training.build import Ground
from triptych.training.data import Row, open_picture
from triptych.training.evaluate import figures_of
from triptych.training.features import pixel_batches
from triptych.types import Matrix

MOST_PICTURES = 1000  # of one set: recall is told among so many


def worst_cosine(first_NM: Matrix, second_NM: Matrix) -> float:
    return float((first_NM * second_NM).sum(axis=1).min())


def parity(ground: Ground, *, model: OnnxModel, count: int = 64) -> dict[str, float]:
    """The lowest cosine between torch and an export, over dev texts and pictures."""
    rows = [row for rows in ground.dev_rows.values() for row in rows[:count]][:count]
    texts = [row.texts[0] for row in rows]
    with torch.inference_mode():
        text = torch_texts(ground.towers, tokenizer=ground.tokenizer, texts=texts)
        pixels = list(pixel_batches(rows, view=0))
        picture = torch.cat([ground.towers.picture(batch) for batch in pixels])
    picture = functional.normalize(picture, dim=-1)
    return {
        "text": worst_cosine(text.numpy(), model.embed_texts(texts)),
        "image": worst_cosine(picture.numpy(), embed_rows(model, rows)),
    }


def alone_against_batched(
    model: OnnxModel, *, texts: Sequence[str], rows: Sequence[Row]
) -> dict[str, float]:
    """Law 2: the lowest cosine and the largest difference between alone and in a batch."""
    text = model.embed_texts(texts), np.concatenate([model.embed_texts([t]) for t in texts])
    picture = embed_rows(model, rows), np.concatenate([embed_rows(model, [row]) for row in rows])
    return {
        "text": worst_cosine(*text),
        "text_difference": float(np.abs(text[0] - text[1]).max()),
        "image": worst_cosine(*picture),
        "image_difference": float(np.abs(picture[0] - picture[1]).max()),
    }


def embed_rows(model: OnnxModel, rows: Sequence[Row]) -> Matrix:
    """Vectors of the rows' pictures, decoded a batch at a time."""
    out = []
    for start in range(0, len(rows), 32):
        encoded = [row.image for row in rows[start : start + 32]]
        out.append(model.embed_pictures([open_picture(image) for image in encoded if image]))
    return np.concatenate(out)


def dev_figures(model: OnnxModel, rows: Mapping[str, Sequence[Row]]) -> dict[str, float]:
    """Recall and the rest, from raw pictures and texts through the artefact."""
    first = {name: some[:MOST_PICTURES] for name, some in rows.items()}
    pictures = {name: embed_rows(model, some) for name, some in first.items()}
    return figures_of(pictures, rows=first, embed=model.embed_texts)


def speed(folder: Path, *, rows: Sequence[Row]) -> dict[str, float]:
    """Milliseconds on one thread: first text with the graph's loading, a text, a picture."""
    model = OnnxModel.load(folder, threads=1)
    started = time.perf_counter()
    model.embed_texts(["a dog on a beach"])
    first = time.perf_counter() - started
    each = []
    for row in rows[:50]:
        started = time.perf_counter()
        model.embed_texts([row.texts[0]])
        each.append(time.perf_counter() - started)
    embed_rows(model, rows[:32])
    started = time.perf_counter()
    embed_rows(model, rows[:96])
    picture = (time.perf_counter() - started) / len(rows[:96])
    figures = {"first_text": first, "text": float(np.median(each)), "picture": picture}
    return {name: round(1000 * seconds, 2) for name, seconds in figures.items()}
