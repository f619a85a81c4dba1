"""Half notes, half photos: do the first 10 hits hold both where both answer?

Flickr8k dev: 1,000 photos, their first captions as 1,000 notes; the queries are their second
captions. A gap between the modalities would fill the first 10 hits with one kind, and so would
words (BM25) that put the notes they stand in before all photos, which have none.
"""

from __future__ import annotations

import numpy as np

from benchmarks.common import DATA
from triptych.retrieval.collection import Collection
from triptych.retrieval.evaluate import Picture, read_pictures
from triptych.settings import Settings
from triptych.types import Item

KINDS = ("photo", "note")


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
    with Collection.open(":memory:", embedder=model) as collection:
        collection.add({"id": f"photo{p.id}", "image": p.image} for p in pictures)
        collection.add({"id": f"note{p.id}", "text": p.texts[0]} for p in pictures)
        for hybrid in (0.0, 0.5):
            found = [_kinds_found(collection, p, hybrid) for p in pictures]
            own = [100 * sum(kind in kinds for kinds in found) / len(found) for kind in KINDS]
            print(f"  share of words {hybrid}: own photo {own[0]:.1f} %, own note {own[1]:.1f} %")


def _kinds_found(collection: Collection, picture: Picture, hybrid: float) -> set[str]:
    ids = {hit.id for hit in collection.search(picture.texts[1], hybrid=hybrid, limit=10)}
    return {kind for kind in KINDS if f"{kind}{picture.id}" in ids}


if __name__ == "__main__":
    main()
