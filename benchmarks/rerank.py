"""Reranking by token states: what the scorer of pairs and MaxSim gain, and what they cost.

Everything goes through the shipped files and a collection's own code. Letters: T texts, N
pictures, K candidates, W width of the states.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.common import DATA, alternate
from triptych.encoders.pictures.picture import load_picture
from triptych.index.sqlite.tokens import from_bytes, in_bytes
from triptych.retrieval.collection import Collection
from triptych.retrieval.evaluate import read_pictures
from triptych.retrieval.late import max_similarities
from triptych.settings import Settings

CANDIDATES = 50


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--captions", type=int, default=1, help="of each photo, asked as queries")
    args = parser.parse_args()
    gain(args.captions)
    cost()


def gain(captions: int) -> None:
    model = Settings.from_env().open_model(threads=1)
    photos = read_pictures(DATA / "flickr8k.parquet", split="dev")
    opened = [load_picture(photo.image, size_hint=model.picture_size) for photo in photos]
    seen_NM = model.embed_pictures(opened)
    # as a collection keeps them
    patches = [from_bytes(in_bytes(states)) for states in model.picture_states(opened)]
    weight = model.pair_weight
    hits = dict.fromkeys(("cosine alone", "MaxSim alone", "with the scorer of pairs"), 0)
    asked = [(at, text) for at, photo in enumerate(photos) for text in photo.texts[:captions]]
    for own, text in asked:
        cosines_N = (model.embed_texts([text]) @ seen_NM.T)[0]
        top_K = np.argsort(-cosines_N, kind="stable")[:CANDIDATES]
        words_TW, some = model.text_states([text])[0], [patches[at] for at in top_K]
        scores_K = weight * model.score_pairs(words_TW, some)
        orders = {
            "cosine alone": cosines_N[top_K],
            "MaxSim alone": max_similarities(words_TW, some),
            "with the scorer of pairs": cosines_N[top_K] + scores_K,
        }
        for name, order_K in orders.items():
            hits[name] += int(top_K[np.argmax(order_K)] == own)
    print(f"Flickr8k dev, {len(asked):,} captions, the first {CANDIDATES} reranked; recall@1:")
    for name, count in hits.items():
        print(f"  {name:26}{100 * count / len(asked):5.1f}", flush=True)


def cost() -> None:
    photos = read_pictures(DATA / "flickr8k.parquet", split="dev", limit=300)
    with tempfile.TemporaryDirectory() as folder:
        path, model = Path(folder) / "photos", Settings.from_env().open_model(threads=1)
        with Collection.open(path, embedder=model, tokens=True) as collection:
            collection.add({"id": str(at), "image": one.image} for at, one in enumerate(photos))
            info = collection.info()
            text = photos[0].texts[0]
            times = alternate(
                {n: lambda n=n: collection.search(text, rerank=n) for n in (0, CANDIDATES)},
                rounds=30,
            )
    said = ", ".join(f"rerank={n} {1e3 * statistics.median(v):.1f} ms" for n, v in times.items())
    each = info["token_bytes"] / info["count"]
    print(f"{each:,.0f} bytes of states a picture, its vector {4 * info['dim']:,}; {said}")


if __name__ == "__main__":
    main()
