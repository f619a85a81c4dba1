"""What is measured on a finished artefact: agreement with torch, law 2, dev figures, speed.

N pictures or texts, M embedding width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch

from triptych.encoders.onnx import OnnxModel
from triptych.encoders.pictures.picture import load_picture
from triptych.encoders.segments import Segment
from triptych.encoders.towers.states import TokenStates, unpadded
from triptych.model import JointModel
from triptych.pairs import Row
from triptych.training.batches import TRAIN_TOKENS, read_texts, text_ids
from triptych.training.build import TrainingContext
from triptych.training.embed import embed_texts
from triptych.training.evaluate import figures_of, product_search
from triptych.training.features import pixel_batches
from triptych.training.rerank import WEIGHTS
from triptych.training.sources import first_captioned
from triptych.types import Matrix

MOST_PICTURES = 1000  # of one set: recall is told among so many


def worst_cosine(first_NM: Matrix, second_NM: Matrix) -> float:
    return float((first_NM * second_NM).sum(axis=1).min())


def parity(
    joint: JointModel, context: TrainingContext, *, model: OnnxModel, count: int = 64
) -> dict[str, float]:
    """Return the lowest cosine between torch and an export, over dev texts, pictures, and both.

    `pair` is the largest difference of a score, relative to how far scores lie apart.
    """
    rows = [row for rows in context.dev_rows.values() for row in rows[:count]][:count]
    texts = [row.texts[0] for row in rows]
    with torch.inference_mode():
        text = embed_texts(joint, context.tokenizer, texts)
        looked = [joint.look(batch) for batch in pixel_batches(rows)]
        read = TokenStates(*(torch.cat(parts) for parts in zip(*looked, strict=True)))
        picture = joint(None, read).emb_BM
        both = joint(read_texts(joint, text_ids(context.tokenizer, texts)), read)
    said = _as_read(context, texts)
    found = {
        "text": worst_cosine(text.numpy(), model.embed_texts(said)),
        "image": worst_cosine(picture.numpy(), embed_rows(model, rows)),
    }
    if joint.fusion is not None:
        opened = [load_picture(row.image) for row in rows if row.image]
        found["both"] = worst_cosine(both.emb_BM.numpy(), model.embed_both(said, opened))
    if joint.scorer is not None:
        found["pair"] = _scores_apart(joint, rows=rows, model=model)
    return found


def _as_read(context: TrainingContext, texts: Sequence[str]) -> list[str]:
    """The texts; of one that training cuts the tokens that it keeps, as the export reads more."""
    read = zip(texts, text_ids(context.tokenizer, texts), strict=True)
    return [text if len(ids) < TRAIN_TOKENS else Segment.of(ids) for text, ids in read]


def _scores_apart(joint: JointModel, *, rows: Sequence[Row], model: OnnxModel) -> float:
    """Torch and the export on the same states, so that the scorer alone is compared."""
    assert joint.scorer is not None
    opened = [load_picture(row.image) for row in rows if row.image]
    patches = model.picture_states(opened)
    words = model.text_states([rows[0].texts[0]])[0]
    with torch.inference_mode():
        theirs = joint.scorer(_states([words]), _states(patches))[0].numpy()
    ours = model.score_pairs(words, patches)
    return float(np.abs(theirs - ours).max() / max(theirs.std(), 1e-6))


def _states(rows: Sequence[Matrix]) -> TokenStates:
    return unpadded(torch.from_numpy(np.stack(rows)))


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
        out.append(model.embed_pictures([load_picture(image) for image in encoded if image]))
    return np.concatenate(out)


def dev_figures(model: OnnxModel, rows: Mapping[str, Sequence[Row]]) -> dict[str, float]:
    """Recall and the rest, from raw pictures and texts through the artefact."""
    first = {name: some[:MOST_PICTURES] for name, some in rows.items()}
    pictures = {name: embed_rows(model, some) for name, some in first.items()}
    figures = figures_of(pictures, rows=first, embed=model.embed_texts)
    if "fashion" in first:
        figures |= products(model, first["fashion"], photo_NM=pictures["fashion"])
    judged = first_captioned(first)
    if judged is not None and model.has_scorer:
        found = reranked(model, first[judged], pictures[judged], weights=(model.pair_weight,))
        figures |= {"rerank@1": found[model.pair_weight]}
    return figures


def products(model: OnnxModel, rows: Sequence[Row], *, photo_NM: Matrix) -> dict[str, float]:
    """Products as a photo, as part of their text (colour and kind), and as both at once."""
    parts = [f"{row.attributes['baseColour']} {row.label}" for row in rows]
    both = []
    for start in range(0, len(rows), 32):
        some = [load_picture(row.image) for row in rows[start : start + 32] if row.image]
        both.append(model.embed_both(parts[start : start + 32], some))
    sides = {"photo": photo_NM, "part": model.embed_texts(parts), "both": np.concatenate(both)}
    return product_search(sides, titles=[row.texts[0] for row in rows], embed=model.embed_texts)


def weights_of_pairs(model: OnnxModel, rows: Mapping[str, Sequence[Row]]) -> dict[float, float]:
    """Recall@1 of all dev captions by the weight of a pair's score; empty where nothing tells."""
    judged = first_captioned(rows)
    if judged is None or not model.has_scorer:
        return {}
    some = rows[judged][:MOST_PICTURES]
    return reranked(model, some, embed_rows(model, some), captions=5, weights=WEIGHTS)


def reranked(
    model: OnnxModel,
    rows: Sequence[Row],
    pictures_NM: Matrix,
    *,
    weights: Sequence[float],
    captions: int = 1,
    candidates: int = 50,
) -> dict[float, float]:
    """Recall@1 in percent of each photo's first captions, their candidates ordered by pairs."""
    patches = [model.picture_states([load_picture(row.image)])[0] for row in rows if row.image]
    asked = [(at, text) for at, row in enumerate(rows) for text in row.texts[:captions]]
    hits = dict.fromkeys(weights, 0)
    for at, text in asked:
        cosines_N = (model.embed_texts([text]) @ pictures_NM.T)[0]
        top_K = np.argsort(-cosines_N, kind="stable")[:candidates]
        words = model.text_states([text])[0]
        scores_K = model.score_pairs(words, [patches[one] for one in top_K])
        for weight in weights:
            hits[weight] += int(top_K[np.argmax(cosines_N[top_K] + weight * scores_K)] == at)
    return {weight: round(100 * count / len(asked), 2) for weight, count in hits.items()}


def speed(folder: Path, *, rows: Sequence[Row]) -> dict[str, float]:
    """Milliseconds on one thread: first text with the graph's loading, a text, a picture."""
    model = OnnxModel.load(folder, threads=1)
    first = _seconds(partial(model.embed_texts, ["a dog on a beach"]))
    each = [_seconds(partial(model.embed_texts, [row.texts[0]])) for row in rows[:50]]
    embed_rows(model, rows[:32])
    picture = _seconds(partial(embed_rows, model, rows[:96])) / len(rows[:96])
    figures = {"first_text": first, "text": float(np.median(each)), "picture": picture}
    return {name: round(1000 * seconds, 2) for name, seconds in figures.items()}


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
