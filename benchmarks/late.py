"""Late interaction: what it would gain with the default model's tokens, and what it costs.

The first part cuts the default model's graphs open (with `onnx`, of the extra "train"): the states
of the words before their mean, and of the 49 places of a picture, each through the head that the
whole goes through. The second stores made-up states of the same shapes and times a search.

Letters: N texts, P pictures, T words, W width.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.common import DATA, alternate
from triptych.encoders.base import unit_rows
from triptych.encoders.hashing import HashingEncoder
from triptych.encoders.onnx import DEFAULT_FOLDER, OnnxModel
from triptych.encoders.pictures import load_picture
from triptych.retrieval.collection import Collection
from triptych.retrieval.evaluate import read_pictures
from triptych.retrieval.late import max_similarities
from triptych.types import Matrix

CANDIDATES = 50
WEIGHTS = (0.0, 0.1, 0.2, 0.3, 0.5, 1.0)
WIDTH, WORDS, PLACES = 384, 14, 49


def main() -> None:
    cost()
    gain()


def gain() -> None:
    model = OnnxModel.load(threads=2)
    pictures = read_pictures(DATA / "flickr8k.parquet", split="dev")
    texts = [(at, picture.texts[0]) for at, picture in enumerate(pictures)]
    places, seen_PM = _of_pictures([picture.image for picture in pictures])
    words = _of_texts(model, [text for _, text in texts])
    asked_NM = model.embed_texts([text for _, text in texts])
    hits = dict.fromkeys(WEIGHTS, 0)
    for (own, _), words_TW, cosines_P in zip(texts, words, asked_NM @ seen_PM.T, strict=True):
        first = np.argsort(-cosines_P)[:CANDIDATES]
        by_tokens = max_similarities(words_TW / len(words_TW), [places[at] for at in first])
        parts = [(x - x.mean()) / x.std() for x in (cosines_P[first], by_tokens)]
        for weight in WEIGHTS:
            best = np.argmax((1 - weight) * parts[0] + weight * parts[1])
            hits[weight] += int(first[best] == own)
    print(f"Flickr8k dev, {len(texts):,} captions, the first {CANDIDATES} reranked; recall@1:")
    for weight, count in hits.items():
        print(f"  MaxSim counts {weight:3.0%}   {100 * count / len(texts):5.1f}")


def cost() -> None:
    draw = np.random.default_rng(0)
    rows = [(f"{at} " + " ".join(map(str, draw.integers(0, 5000, 12)))) for at in range(2_000)]
    with tempfile.TemporaryDirectory() as folder:
        sizes = {}
        for kind, length in (("text", WORDS), ("picture", PLACES)):
            model = MadeUp(length)
            with Collection.open(Path(folder) / kind, embedder=model, tokens=True) as collection:
                collection.add({"id": str(at), "text": row} for at, row in enumerate(rows))
                sizes[kind] = collection.info()["token_bytes"] / len(rows)
                searches = {
                    f"rerank={n}": lambda n=n, c=collection: c.search("5 7 9", limit=10, rerank=n)
                    for n in (0, CANDIDATES, 4 * CANDIDATES)
                }
                times = alternate(searches, rounds=50)
            said = ", ".join(f"{k} {1e3 * statistics.median(v):.2f} ms" for k, v in times.items())
            print(
                f"{kind}: {length} tokens of {WIDTH}, {sizes[kind]:,.0f} bytes an item; {said}",
                flush=True,
            )


class MadeUp(HashingEncoder):
    """Random token states of a fixed number: what they cost does not depend on what they say."""

    def __init__(self, length: int) -> None:
        super().__init__(dim=WIDTH)
        self._pool_TW = unit_rows(np.random.default_rng(1).standard_normal((4096, WIDTH)))
        self._length = length

    def text_states(self, texts: Sequence[str]) -> list[Matrix]:
        starts = (hash(text) % (4096 - self._length) for text in texts)
        return [self._pool_TW[at : at + self._length] for at in starts]


def _of_texts(model: OnnxModel, texts: Sequence[str]) -> list[Matrix]:
    graph = onnx.load(DEFAULT_FOLDER / "text.onnx").graph
    states = next(n for n in graph.node[::-1] if n.op_type == "LayerNormalization").output[0]
    scaled = next(node for node in graph.node[::-1] if node.op_type == "Mul")
    shift = next(node for node in graph.node[::-1] if node.op_type == "Add")
    known = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    makers = {out: node for node in graph.node for out in node.output}
    weight_DW = known[makers[scaled.input[0]].input[0]].astype(np.float32) * known[scaled.input[1]]
    session = _session(graph, [states])
    found = []
    for text in texts:
        (ids,), _ = model._segments([text])
        (states_1TD,) = session.run([states], {"ids": np.asarray([ids], dtype=np.int64)})
        found.append(unit_rows((states_1TD[0] @ weight_DW + known[shift.input[1]])[1:-1]))
    return found


def _of_pictures(pictures: Sequence[bytes]) -> tuple[list[Matrix], Matrix]:
    graph = onnx.load(DEFAULT_FOLDER / "image.onnx").graph
    places = next(n for n in graph.node[::-1] if n.op_type == "ReduceMean").input[0]
    tower, head = _session(graph, [places]), _session(_after(graph, places), [])
    found, vectors = [], []
    for encoded in pictures:
        picture = load_picture(encoded, size_hint=224).resize((224, 224), 2)  # bilinear
        vector, places_1CP = tower.run(["vectors", places], {"pictures": np.asarray(picture)[None]})
        (states_PW,) = head.run(["vectors"], {places: places_1CP[0].T[:, :, None].copy()})
        found.append(unit_rows(states_PW))
        vectors.append(vector)
    return found, np.concatenate(vectors)


def _after(graph: onnx.GraphProto, name: str) -> onnx.GraphProto:
    """Return what follows the value `name`."""
    makers = {out: node for node in graph.node for out in node.output if out != name}
    needed, waiting = set(), ["vectors"]
    while waiting:
        value = waiting.pop()
        if value not in needed and value != name:
            needed.add(value)
            waiting += makers[value].input if value in makers else []
    return helper.make_graph(
        [node for node in graph.node if needed & set(node.output)],
        "after",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None)],
        list(graph.output),
        [one for one in graph.initializer if one.name in needed],
    )


def _session(graph: onnx.GraphProto, outputs: Sequence[str]) -> Any:
    for name in outputs:
        graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    return onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )


if __name__ == "__main__":
    main()
