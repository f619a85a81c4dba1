"""Do words of other languages find photos? Translations by hand.

`caltech101.tsv`: what Caltech's photos of dev show, in six languages beside English; a name asks
among all 867 photos, the photos of its name are right. `flickr8k.tsv`: captions of 60 photos of
dev in three languages; a caption asks among all 1,000 photos, its own is right. Names may stand in
the dictionaries and among the emoji that were learnt from, beside no photo; the captions nowhere.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.common import DATA
from triptych.encoders.base import EmbeddingModel
from triptych.metrics import retrieval_table
from triptych.retrieval.evaluate import Picture, read_pictures
from triptych.settings import Settings
from triptych.types import Item, Matrix

HERE = Path(__file__).parent


def main() -> None:
    settings = Settings.from_env()
    model = settings.open_model(threads=settings.num_threads)
    print("words of a language find photos, percent")
    print(f"{'':12}{'language':>9}{'texts':>7}{'R@1':>7}{'R@5':>7}{'R@10':>7}{'median rank':>13}")
    for name in ("caltech101", "flickr8k"):
        pictures = read_pictures(DATA / f"{name}.parquet", split="dev")
        picture_PM = model.embed([Item(id=p.id, image=p.image) for p in pictures])
        with (HERE / f"{name}.tsv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        right_TP = np.array([[_belongs(row, p) for p in pictures] for row in rows])
        for language in (column for column in rows[0] if column != "id"):
            text_TM = _embedded(model, [row[language] for row in rows])
            found = retrieval_table(text_TM @ picture_PM.T, right_TP)
            cells = "".join(f"{100 * found[f'recall@{k}']:7.1f}" for k in (1, 5, 10))
            print(f"{name:12}{language:>9}{len(rows):7}{cells}{found['median_rank']:13.0f}")


def _belongs(row: dict[str, str], picture: Picture) -> bool:
    return picture.id == row["id"] if "id" in row else picture.texts[0] == row["en"]


def _embedded(model: EmbeddingModel, texts: Sequence[str]) -> Matrix:
    return model.embed([Item(id=str(at), text=text) for at, text in enumerate(texts)])


if __name__ == "__main__":
    main()
