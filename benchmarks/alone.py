"""Law 2 on the shipped model: 10,000 texts and 10,000 pictures, each alone and in a batch.

The worst one is what counts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow.parquet as pq

from benchmarks.common import DATA
from triptych.encoders.base import EmbeddingModel
from triptych.settings import Settings
from triptych.types import Item, Matrix

COUNT = 10_000
SETS = ("flickr8k", "emoji", "vietnamese", "caltech101")


def main() -> None:
    model = Settings.from_env().open_model("default")
    for kind, items in (("texts", _texts()), ("pictures", _pictures())):
        alone = np.concatenate([model.embed([item]) for item in items])
        batched = _batched(model, items)
        cosines = (alone * batched).sum(axis=1)
        print(
            f"{len(items):,} {kind} alone against batched: worst cosine {cosines.min():.7f}, "
            f"largest difference {np.abs(alone - batched).max():.1e}",
            flush=True,
        )


def _batched(model: EmbeddingModel, items: Sequence[Item]) -> Matrix:
    """Embed in batches of mixed company: a fixed shuffle, 64 at a time."""
    order = np.random.default_rng(0).permutation(len(items))
    out = np.empty((len(items), model.dim), dtype=np.float32)
    for start in range(0, len(items), 64):
        chosen = order[start : start + 64]
        out[chosen] = model.embed([items[at] for at in chosen])
    return out


def _texts() -> list[Item]:
    found = {text for name in SETS for texts in _column(name, "texts") for text in texts if text}
    return [Item(id=text, text=text) for text in sorted(found)[:: max(1, len(found) // COUNT)]][
        :COUNT
    ]


def _pictures() -> list[Item]:
    images = [image for name in SETS for image in _column(name, "image") if image is not None]
    return [Item(id=str(at), image=image) for at, image in enumerate(images[:COUNT])]


def _column(name: str, column: str) -> list:
    return pq.read_table(DATA / f"{name}.parquet", columns=[column])[column].to_pylist()


if __name__ == "__main__":
    main()
