"""Figures on the dev splits, for the log and for choosing; nothing here is ever trained on.

N pictures, T texts, M embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from triptych.encoders.base import unit_rows
from triptych.pairs import Row
from triptych.training.sources import captions, draw_of
from triptych.types import Matrix

Embed: TypeAlias = Callable[[Sequence[str]], Matrix]
"""Texts to unit rows."""


def ranks(scores_QN: Matrix, *, right_QN: NDArray[np.bool_]) -> NDArray[np.int64]:
    """For every query the number of wrong candidates before its first right one.

    Of equal scores the earlier row comes first, as in a search; to count them all as right would
    praise a model that cannot tell its candidates apart.
    """
    right_scores_QN = np.where(right_QN, scores_QN, -np.inf)
    best_Q1 = right_scores_QN.max(axis=1, keepdims=True)
    earlier_QN = np.arange(scores_QN.shape[1])[None, :] < right_scores_QN.argmax(axis=1)[:, None]
    before_QN = (scores_QN > best_Q1) | ((scores_QN == best_Q1) & earlier_QN)
    return np.asarray((before_QN & ~right_QN).sum(axis=1))


def recall(ranks_Q: NDArray[np.int64], *, at: int) -> float:
    """Percent of queries whose right answer is among the first `at`."""
    return round(100.0 * float((ranks_Q < at).mean()), 2)


def recall_both_ways(scores_TN: Matrix, *, right_TN: NDArray[np.bool_]) -> dict[str, float]:
    """Texts to pictures, and pictures to texts."""
    there, back = ranks(scores_TN, right_QN=right_TN), ranks(scores_TN.T, right_QN=right_TN.T)
    figures = {f"t2i@{k}": recall(there, at=k) for k in (1, 5, 10)}
    return figures | {f"i2t@{k}": recall(back, at=k) for k in (1, 5, 10)}


def captioned(pictures_NM: Matrix, *, rows: Sequence[Row], embed: Embed) -> dict[str, float]:
    """Captions to pictures and back, and how mixed a collection of both answers."""
    owners_T = np.asarray([i for i, row in enumerate(rows) for _ in row.texts])
    texts_TM = embed([text for row in rows for text in row.texts])
    right_TN = owners_T[:, None] == np.arange(len(rows))[None, :]
    figures = recall_both_ways(texts_TM @ pictures_NM.T, right_TN=right_TN)
    figures |= mixed(pictures_NM, texts_TM=texts_TM, owners_T=owners_T)
    return figures | prefixes(pictures_NM, texts_TM=texts_TM, right_TN=right_TN)


def prefixes(
    pictures_NM: Matrix, *, texts_TM: Matrix, right_TN: NDArray[np.bool_]
) -> dict[str, float]:
    """Texts to pictures by the first numbers of each embedding alone, made unit again."""
    figures: dict[str, float] = {}
    for length in (256, 128, 64):
        if pictures_NM.shape[1] > length:
            short_TN = unit_rows(texts_TM[:, :length]) @ unit_rows(pictures_NM[:, :length]).T
            found = ranks(short_TN, right_QN=right_TN)
            figures |= {f"{length}@{k}": recall(found, at=k) for k in (1, 10)}
    return figures


def product_search(
    sides: Mapping[str, Matrix], *, titles: Sequence[str], embed: Embed
) -> dict[str, float]:
    """A title finds its product, whose vector is made of its photo, of part of its text, of both.

    `sides` gives the products' vectors by what they are made of.
    """
    return {
        f"fashion.{side}{key}": value
        for side, emb_NM in sides.items()
        for key, value in named(emb_NM, names=titles, embed=embed).items()
    }


def mixed(
    pictures_NM: Matrix, *, texts_TM: Matrix, owners_T: NDArray[np.int64]
) -> dict[str, float]:
    """Half notes (the first caption), half photos, asked with the second caption.

    Photos with a single caption are left out; empty where ten hits would be all that is left.
    """
    photo_N, first_N, count_N = np.unique(owners_T, return_index=True, return_counts=True)
    asked = count_N > 1
    pictures_NM, first_N = pictures_NM[photo_N[asked]], first_N[asked]
    if 2 * len(first_N) <= 10:
        return {}
    notes_NM, asked_NM = texts_TM[first_N], texts_TM[first_N + 1]
    scores = np.concatenate([asked_NM @ pictures_NM.T, asked_NM @ notes_NM.T], axis=1)
    top = np.argpartition(-scores, 10, axis=1)[:, :10]
    photos = (top < len(pictures_NM)).sum(axis=1)
    both = 100.0 * float(((photos > 0) & (photos < 10)).mean())
    return {"mixed_both": round(both, 2), "mixed_photos": round(10.0 * float(photos.mean()), 2)}


def named(pictures_NM: Matrix, *, names: Sequence[str], embed: Embed) -> dict[str, float]:
    """One name per picture; pictures of one name are all right answers."""
    asked = list(dict.fromkeys(names))
    right = np.asarray(asked)[:, None] == np.asarray(names)[None, :]
    found = ranks(embed(asked) @ pictures_NM.T, right_QN=right)
    return {f"@{k}": recall(found, at=k) for k in (1, 10)}


def language_names(rows: Sequence[Row], language: str) -> list[str]:
    """The emoji's names in one language, the English one where there is none."""
    return [_name(row.attributes, language) or row.texts[0] for row in rows]


def _name(attributes: Mapping[str, object], language: str) -> str | None:
    names = attributes.get(language)
    return str(names[0]) if isinstance(names, list) and names else None


def figures_of(
    pictures: Mapping[str, Matrix], *, rows: Mapping[str, Sequence[Row]], embed: Embed
) -> dict[str, float]:
    """All figures of the sets that are there, in percent."""
    out: dict[str, float] = {}
    for name in rows:
        if draw_of(name) is captions:
            found = captioned(pictures[name], rows=rows[name], embed=embed)
            out |= _prefixed(f"{name}.", found)
    if "fashion" in rows:
        names = [row.texts[0] for row in rows["fashion"]][:1000]
        out |= _prefixed("fashion", named(pictures["fashion"][:1000], names=names, embed=embed))
    for name in ("grocery", "caltech101", "clothing", "medpix", "clipart"):
        if name in rows:
            names = [row.texts[0] for row in rows[name]]
            out |= _prefixed(name, named(pictures[name], names=names, embed=embed))
    for language in ("en", "zh", "de", "hi") if "emoji" in rows else ():
        names = language_names(rows["emoji"], language)
        out |= _prefixed(f"emoji.{language}", named(pictures["emoji"], names=names, embed=embed))
    return out


def _prefixed(prefix: str, figures: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}{key}": value for key, value in figures.items()}
