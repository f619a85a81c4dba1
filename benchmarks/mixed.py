"""Half notes, half photos: do the first 10 hits hold both where both answer?

Flickr8k dev: 1,000 photos, their first captions as 1,000 notes; the queries are their second
captions. A gap between the modalities would fill the first 10 hits with one kind.
"""

from __future__ import annotations

import numpy as np

from benchmarks.common import DATA
from triptych.retrieval.evaluate import read_pictures
from triptych.settings import Settings
from triptych.types import Item


def main() -> None:
    settings = Settings.from_env()
    model = settings.open_model(threads=settings.num_threads)
    pictures = read_pictures(DATA / "flickr8k.parquet", split="dev")
    photos = model.embed([Item(id=p.id, image=p.image) for p in pictures])
    notes = model.embed([Item(id=p.id, text=p.texts[0]) for p in pictures])
    queries = model.embed([Item(id=p.id, text=p.texts[1]) for p in pictures])
    scores = queries @ np.concatenate([photos, notes]).T
    top = np.argsort(-scores, axis=1)[:, :10]
    share = (top < len(photos)).mean(axis=1)
    print(f"half notes, half photos ({len(photos):,} each), first 10 hits:")
    both = (share > 0) & (share < 1)
    print(f"  both kinds present for {100 * both.mean():.1f} % of the queries")
    print(f"  photos among the hits  {100 * share.mean():.1f} %")
    of_photos, of_notes = scores[:, : len(photos)].mean(), scores[:, len(photos) :].mean()
    print(f"  mean score: photos {of_photos:+.3f}, notes {of_notes:+.3f}")


if __name__ == "__main__":
    main()
