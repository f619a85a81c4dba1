"""Our `/v1/embeddings` beside Infinity's: 32 connections that send sentences, in turns.

No model hub is needed: Infinity serves a BERT of six layers of 384 numbers with random weights, the
shape of our text tower without its experts, made here. It is installed apart:

    python -m venv .work/infinity
    .work/infinity/bin/pip install "infinity-emb[server]==0.0.78" "sentence-transformers==3.4.1" \
        "transformers<5" torch pillow
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np

from benchmarks.common import WORK
from benchmarks.processes import free_port, our_server, running
from benchmarks.wrk import Load, load

INFINITY = WORK.parent / "infinity" / "bin"
TURNS, SECONDS, CONNECTIONS = 3, 5, 32
_TEXT = (
    "a black and white dog is catching red green object in his mouth on the beach with two small "
    "children near water under blue sky"
)
_MAKE = """
import json, os, string, sys
from transformers import BertConfig, BertModel, BertTokenizerFast
folder, words = sys.argv[1], sys.argv[2:]
letters = list(string.ascii_lowercase)
known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *("##" + one for one in letters)]
known += [word for word in words if word not in known]
known += [f"[unused{at}]" for at in range(30_000 - len(known))]
os.makedirs(f"{folder}/1_Pooling")
open(f"{folder}/vocab.txt", "w").write("\\n".join(known))
BertTokenizerFast(f"{folder}/vocab.txt").save_pretrained(folder)
BertModel(BertConfig(vocab_size=30_000, hidden_size=384, num_hidden_layers=6,
                     num_attention_heads=6, intermediate_size=1536)).save_pretrained(folder)
kind = "sentence_transformers.models."
json.dump([{"idx": 0, "name": "0", "path": "", "type": kind + "Transformer"},
           {"idx": 1, "name": "1", "path": "1_Pooling", "type": kind + "Pooling"}],
          open(f"{folder}/modules.json", "w"))
json.dump({"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True},
          open(f"{folder}/1_Pooling/config.json", "w"))
"""


@contextmanager
def ours(folder: Path, workers: int) -> Iterator[str]:
    """Yield the address of our server with its default model; a worker computes on one thread."""
    data, options = folder / f"ours-{workers}", ("--log", "off", "--workers", str(workers))
    with our_server(data, *options, ready="/readyz") as (url, _):
        yield f"{url}/v1/embeddings"


@contextmanager
def infinity(folder: Path, threads: str) -> Iterator[str]:
    """Yield the address of Infinity, whose torch has so many threads; empty: as it chooses."""
    port, model = free_port(), folder / f"bert-{threads}"
    python = str(INFINITY / "python")
    subprocess.run([python, "-c", _MAKE, str(model), *dict.fromkeys(_TEXT.split())], check=True)
    limit = [f"OMP_NUM_THREADS={threads}"] if threads else []
    command = [
        "env", "HF_HUB_OFFLINE=1", *limit, str(INFINITY / "infinity_emb"), "v2",
        "--model-id", str(model), "--engine", "torch", "--device", "cpu", "--port", str(port),
        "--no-bettertransformer", "--no-model-warmup", "--log-level", "error",
    ]  # fmt: skip
    with running(command, port, "/health"):
        yield f"http://127.0.0.1:{port}/embeddings"


def main() -> None:
    """Print the table."""
    if not (INFINITY / "infinity_emb").exists():
        sys.exit(__doc__)
    os.environ["INFINITY_ANONYMOUS_USAGE_STATS"] = "0"
    chance = np.random.default_rng()
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        sentences = (" ".join(chance.choice(_TEXT.split(), 13)) for _ in range(30_000))
        bodies = [json.dumps({"input": one}) for one in sentences]
        asked = {
            "triptych": stack.enter_context(ours(folder, 1)),
            "triptych, 2 workers": stack.enter_context(ours(folder, 2)),
            "Infinity, as it starts": stack.enter_context(infinity(folder, "")),
            "Infinity, one thread": stack.enter_context(infinity(folder, "1")),
        }
        found: dict[str, list[Load]] = {who: [] for who in asked}
        for turn in range(TURNS):
            unsent = bodies[turn * 10_000 :] + bodies[: turn * 10_000]
            for who, url in asked.items():
                found[who].append(load(url, unsent, connections=CONNECTIONS, seconds=SECONDS))
    print(f"| server | requests a second, {CONNECTIONS} connections | p50, ms |")
    print("|---|---|---|")
    for who, turns in found.items():
        rate, p50 = (statistics.median(column) for column in zip(*turns, strict=True))
        low, high = min(turns)[0], max(turns)[0]
        print(f"| {who} | {rate:,.0f} ({low:,.0f} to {high:,.0f}) | {p50:,.0f} |")


if __name__ == "__main__":
    main()
