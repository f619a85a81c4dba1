"""Our server, with one worker and with two, beside Chroma's: the same vectors, in turns.

`make peers` installs chromadb; `wrk` asks over 16 connections, no question twice, so that no cache
can answer. Both are asked for ten ids and scores. The recall of each is against a full scan.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import numpy as np

from benchmarks.common import seconds
from benchmarks.peers.process import PEERS, installed
from benchmarks.processes import free_port, our_server, running
from benchmarks.wrk import load, require
from triptych.index.flat import FlatIndex
from triptych.keys import new_key, write_keys
from triptych.retrieval.collection import Collection
from triptych.settings import Settings

ITEMS, DIM, K = 20_000, 256, 10
QUESTIONS = 12_000  # in a turn
TURNS, SECONDS, CONNECTIONS = 5, 4, 16
_CHROMA = "/api/v2/tenants/default_tenant/databases/default_database/collections"


def made_up(num: int, seed: int) -> Any:
    """Return unit rows around 500 centres, as pictures lie."""
    chance = np.random.default_rng(seed)
    centres = np.random.default_rng(7).standard_normal((500, DIM))
    rows = centres[chance.integers(0, 500, num)] + 0.8 * chance.standard_normal((num, DIM))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


class Asked:
    """One server, and how it is asked."""

    def __init__(
        self, name: str, url: str, body: Callable[[Any], str], ids: Callable[[Any], list[str]],
        key: str = "",
    ) -> None:  # fmt: skip
        self.name, self.url, self.body, self.ids, self.key = name, url, body, ids, key
        self.rates: list[float] = []

    def headers(self) -> dict[str, str]:
        """Return what every request says."""
        said = {"Content-Type": "application/json"}
        return said | ({"Authorization": f"Bearer {self.key}"} if self.key else {})

    def recall(self, queries_QM: Any, truth_QK: Any) -> float:
        """Return the share of the true nearest that it finds."""
        found = 0
        with httpx2.Client(timeout=60) as client:
            for query_M, true_K in zip(queries_QM, truth_QK, strict=True):
                reply = client.post(self.url, content=self.body(query_M), headers=self.headers())
                reply.raise_for_status()
                found += len({int(id) for id in self.ids(reply.json())} & set(true_K.tolist()))
        return found / truth_QK.size

    def median_ms(self, queries_QM: Any) -> float:
        """Return the median of a single client's requests, one after another."""
        spent = []
        with httpx2.Client(timeout=60) as client:
            for query_M in queries_QM:
                body, start = self.body(query_M), time.perf_counter()
                client.post(self.url, content=body, headers=self.headers()).raise_for_status()
                spent.append(time.perf_counter() - start)
        return statistics.median(spent) * 1000

    def load(self, queries_QM: Any) -> float:
        """Return requests a second over questions that were not asked before."""
        bodies, headers = [*map(self.body, queries_QM)], self.headers()
        rate = load(
            self.url, bodies, connections=CONNECTIONS, seconds=SECONDS, headers=headers
        ).rate
        assert rate * SECONDS < len(bodies), "some were asked twice"
        return rate


@contextmanager
def ours(folder: Path, vectors_NM: Any, workers: int = 1) -> Iterator[Asked]:
    """Yield our server, with a key and its limits, as it is by default but for its workers."""
    settings = Settings(data=folder)
    embedder = settings.open_model(f"vectors:made-up:{DIM}")
    with Collection.open(folder / "default" / "same", embedder=embedder) as collection:
        collection.add({"id": str(n), "vector": row_M} for n, row_M in enumerate(vectors_NM))
        collection.optimize()
    secret, key = new_key("bench", role="read", rate=1e9)
    write_keys(folder / "keys.json", [key])
    options = ("--key-file", str(folder / "keys.json"), "--workers", str(workers))
    with our_server(folder, *options) as (url, _):
        yield Asked(
            "triptych" if workers == 1 else f"triptych, {workers} workers",
            f"{url}/v1/collections/same/search",
            lambda query_M: json.dumps({"vector": query_M.tolist(), "limit": K}),
            lambda said: [hit["id"] for hit in said["hits"]],
            secret,
        )


@contextmanager
def chroma(folder: Path, vectors_NM: Any) -> Iterator[Asked]:
    """Yield Chroma's server, without a key, as `chroma run` starts it."""
    port = free_port()
    program = str(PEERS.with_name("chroma"))
    # without a line for each request, which it would print by default
    quiet = ["env", "RUST_LOG=error", program]
    command = [*quiet, "run", "--path", str(folder), "--port", str(port)]
    with running(command, port, "/api/v2/heartbeat"), httpx2.Client(timeout=600) as client:
        base = f"http://127.0.0.1:{port}{_CHROMA}"
        made = client.post(
            base, json={"name": "same", "configuration": {"hnsw": {"space": "cosine"}}}
        )
        path = f"{base}/{made.raise_for_status().json()['id']}"
        for first in range(0, len(vectors_NM), 1_000):
            rows_NM = vectors_NM[first : first + 1_000]
            ids = [str(first + n) for n in range(len(rows_NM))]
            body = {"ids": ids, "embeddings": rows_NM.tolist()}
            client.post(f"{path}/add", json=body).raise_for_status()
        yield Asked(
            "Chroma",
            f"{path}/query",
            lambda query_M: json.dumps(
                {"query_embeddings": [query_M.tolist()], "n_results": K, "include": ["distances"]}
            ),
            lambda said: list(said["ids"][0]),
        )


def main() -> None:
    """Print the table."""
    require()
    if not installed():
        sys.exit("The peers are not installed. Run: make peers")
    vectors_NM, questions_QM = made_up(ITEMS, 1), made_up(600, 2)
    truth_QK = np.argsort(-(questions_QM[-300:] @ vectors_NM.T), axis=1)[:, :K]
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        makers = {"ours": ours, "workers": partial(ours, workers=2), "chroma": chroma}
        asked = [
            stack.enter_context(make(Path(folder) / name, vectors_NM))
            for name, make in makers.items()
        ]
        for turn in range(TURNS):
            unseen_QM = made_up(QUESTIONS, 3 + turn)
            for one in asked:
                one.rates.append(one.load(unseen_QM))
        print("| server | requests a second, 16 connections | p50, one client, ms | recall@10 |")
        print("|---|---|---|---|")
        for one in asked:
            middle = statistics.median(one.rates)
            spread = f"{min(one.rates):,.0f} to {max(one.rates):,.0f}"
            alone = one.median_ms(questions_QM[:300])
            recall = one.recall(questions_QM[-300:], truth_QK)
            print(f"| {one.name} | {middle:,.0f} ({spread}) | {alone:.2f} | {recall:.3f} |")
    exhaustive(vectors_NM, questions_QM[-300:])


def exhaustive(vectors_NM: Any, questions_QM: Any) -> None:
    """Print the median of a full scan in this process, with nothing around it."""
    index = FlatIndex(DIM)
    index.add(np.arange(len(vectors_NM)), vectors_NM)
    spent = [seconds(lambda q=query_M: index.search(q[None], K)) for query_M in questions_QM]
    print(f"a full scan of fp32 in one process: p50 {statistics.median(spent) * 1000:.2f} ms")


if __name__ == "__main__":
    main()
