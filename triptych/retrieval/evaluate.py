"""Measure a model on a Parquet file of pictures with texts: recall both ways, mAP, nDCG.

The file's columns are those of `triptych.pairs`; an attribute whose key is a language tag is the
list of a picture's texts in that language.

P pictures, T distinct texts, L labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from triptych.encoders.base import EmbeddingModel
from triptych.errors import InvalidInput
from triptych.metrics import (
    Mask,
    first_ranks,
    mean_average_precision,
    ndcg_at,
    recall_at,
    retrieval_table,
)
from triptych.pairs import Row, read_file
from triptych.types import Item, Matrix

_SPLITS = ("test", "dev")  # what is measured when no split is named, the first that is there
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Picture:
    """One row of the file that has a picture."""

    id: str
    image: bytes
    texts: tuple[str, ...]
    label: str


def read_pictures(
    path: Path,
    *,
    split: str | None = None,
    limit: int | None = None,
    language: str | None = None,
    first_text: bool = False,
) -> list[Picture]:
    """Return the rows of a split that have a picture, at most `limit`, in the file's order.

    Without `split`: `test` where the file has one, else `dev`, else all. `language` takes the
    texts from the attribute of that name. `first_text` keeps one text a picture, its name.
    """
    rows = list(read_file(path))
    splits = {row.split for row in rows}
    if split is not None and split not in splits:
        raise InvalidInput(f"{path} has no split {split!r}, it has {', '.join(sorted(splits))}.")
    chosen = split or next((name for name in _SPLITS if name in splits), None)
    pictures = [
        Picture(row.id, row.image, _texts(row, language, first_text), row.label)
        for row in rows
        if row.image is not None and chosen in (None, row.split)
    ]
    if not pictures:
        raise InvalidInput(f"{path} holds no picture in split {chosen!r}.")
    return pictures[:limit]


def evaluate(
    model: EmbeddingModel,
    pictures: Sequence[Picture],
    *,
    progress: Callable[[int], object] = lambda done: None,
) -> dict[str, Any]:
    """Return the tables `text_to_image`, `image_to_text` and `labels` (None without labels).

    Equal texts are one query with several right pictures. `progress` is called with the
    number of items embedded since the last call.
    """
    texts = sorted({text for picture in pictures for text in picture.texts})
    picture_PM = _embed(model, [Item(id=p.id, image=p.image) for p in pictures], progress)
    text_TM = _embed(model, [Item(id=text, text=text) for text in texts], progress)
    right_TP = _right_texts(texts, pictures)
    scores_TP = text_TM @ picture_PM.T
    return {
        "model": model.name,
        "fingerprint": model.fingerprint,
        "num_pictures": len(pictures),
        "num_texts": len(texts),
        "text_to_image": retrieval_table(scores_TP, right_TP)
        | {"ndcg@10": ndcg_at(scores_TP, right_TP, 10)},
        "image_to_text": retrieval_table(scores_TP.T, right_TP.T)
        | {"ndcg@10": ndcg_at(scores_TP.T, right_TP.T, 10)},
        "labels": _label_table(model, pictures, picture_PM, progress),
    }


def format_table(report: Mapping[str, Any]) -> str:
    """Return the report as text for people: percent, one line a direction."""
    lines = [
        f"{report['model']}: {report['num_pictures']:,} pictures, {report['num_texts']:,} texts",
        "",
        f"{'':18}{'R@1':>8}{'R@5':>8}{'R@10':>8}{'nDCG@10':>9}{'median rank':>13}",
    ]
    for key, title in (("text_to_image", "text → picture"), ("image_to_text", "picture → text")):
        row = report[key]
        cells = "".join(f"{100 * row[f'recall@{k}']:8.1f}" for k in (1, 5, 10))
        lines.append(f"{title:18}{cells}{100 * row['ndcg@10']:9.1f}{row['median_rank']:13.0f}")
    if report["labels"] is not None:
        lines += ["", *_format_labels(report["labels"])]
    return "\n".join(lines)


def _format_labels(labels: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"{labels['num_labels']} labels by name: mAP {100 * labels['map']:.1f}, "
        f"precision@1 {100 * labels['precision@1']:.1f}, nDCG@10 {100 * labels['ndcg@10']:.1f}"
    )
    if labels["picture_map"] is not None:
        yield f"a picture finds others of its label: mAP {100 * labels['picture_map']:.1f}"


def _label_table(
    model: EmbeddingModel,
    pictures: Sequence[Picture],
    picture_PM: Matrix,
    progress: Callable[[int], object],
) -> dict[str, Any] | None:
    """Return how well a label's name ranks its pictures, and a picture the others of its label."""
    labels = sorted({picture.label for picture in pictures} - {""})
    if not labels:
        return None
    label_LM = _embed(model, [Item(id=label, text=label) for label in labels], progress)
    of_P = np.array([picture.label for picture in pictures])
    right_LP = np.array(labels)[:, None] == of_P
    scores_LP = label_LM @ picture_PM.T
    return {
        "num_labels": len(labels),
        "map": mean_average_precision(scores_LP, right_LP),
        "precision@1": recall_at(first_ranks(scores_LP, right_LP), 1),
        "ndcg@10": ndcg_at(scores_LP, right_LP, 10),
        "picture_map": _picture_map(picture_PM, of_P),
    }


def _picture_map(picture_PM: Matrix, of_P: np.ndarray[Any, Any]) -> float | None:
    """Return the mAP of pictures finding others of their label; None where all labels differ."""
    labelled_P = of_P != ""
    right_PP = (of_P[:, None] == of_P) & labelled_P
    np.fill_diagonal(right_PP, False)
    if not right_PP.any():
        return None
    scores_PP = picture_PM @ picture_PM.T
    np.fill_diagonal(scores_PP, -np.inf)
    return mean_average_precision(scores_PP, right_PP)


def _right_texts(texts: Sequence[str], pictures: Sequence[Picture]) -> Mask:
    at = {text: row for row, text in enumerate(texts)}
    right_TP = np.zeros((len(texts), len(pictures)), dtype=bool)
    for column, picture in enumerate(pictures):
        right_TP[[at[text] for text in picture.texts], column] = True
    return right_TP


def _embed(
    model: EmbeddingModel, items: Sequence[Item], progress: Callable[[int], object]
) -> Matrix:
    blocks = [np.empty((0, model.dim), dtype=np.float32)]
    for start in range(0, len(items), _BATCH):
        block = items[start : start + _BATCH]
        blocks.append(model.embed(block))
        progress(len(block))
    return np.concatenate(blocks)


def _texts(row: Row, language: str | None, first_text: bool) -> tuple[str, ...]:
    said = row.texts if language is None else row.attributes.get(language)
    texts = map(str, said) if isinstance(said, list | tuple) else ()
    unique = tuple(dict.fromkeys(text for text in texts if text.strip()))
    return unique[:1] if first_text else unique
