"""Requests that share model calls, beside one by one; and how much of a batch is padding.

Every figure on one core. Rounds take turns; throughput is also given per second of processor
time, which other work on the machine does not change.
"""

from __future__ import annotations

import os
import statistics
import threading
import time
from collections.abc import Callable, Sequence

import numpy as np
import pyarrow.parquet as pq
import torch

from benchmarks.common import DATA, alternate, median_ratio, seconds
from triptych.encoders.base import EmbeddingModel
from triptych.encoders.towers.transformer import Transformer, TransformerConfig
from triptych.lengths import padded, plan
from triptych.retrieval.batching import BatchingModel, batched
from triptych.settings import Settings
from triptych.types import Item, Matrix

CLIENTS = 32
SECONDS = 4.0
ROUNDS = 3
TEXTS = 128
BUDGET = 1024  # the seeds' own
OVERHEAD = 8  # tokens that a call costs besides, measured on the tower below

Embed = Callable[[Sequence[Item]], Matrix]


def main() -> None:
    os.sched_setaffinity(0, {sorted(os.sched_getaffinity(0))[-1]})
    model = Settings.from_env().open_model("default", threads=1)
    _clients(model, "names", _texts("grocery", "caltech101", "clothing", "emoji"))
    _clients(model, "captions", _texts("flickr8k"))
    _lone()
    _padding()


def _clients(model: EmbeddingModel, kind: str, texts: list[str]) -> None:
    """Print what 32 clients get, each asking again as soon as it is answered."""
    lock = threading.Lock()

    def in_turn(items: Sequence[Item]) -> Matrix:
        with lock:
            return model.embed(items)

    shared = batched(model)
    ways: dict[str, Embed] = {
        "one by one": in_turn,
        "all at once": model.embed,
        "batched": shared.embed,
    }
    figures: dict[str, list[np.ndarray]] = {name: [] for name in ways}
    for _ in range(ROUNDS):
        for name, embed in ways.items():
            figures[name].append(_drive(embed, texts))
    print(f"{CLIENTS} clients, {kind} such as {texts[0]!r}")
    best = {name: np.median(rounds, axis=0) for name, rounds in figures.items()}
    for name, (rate, per_cpu, p50, p95) in best.items():
        print(
            f"  {name:12} {rate:5.0f}/s  {per_cpu:5.0f} per CPU s  "
            f"p50 {p50:4.0f} ms  p95 {p95:4.0f} ms"
        )
    for other in ("one by one", "all at once"):
        ratios = [a[:2] / b[:2] for a, b in zip(figures["batched"], figures[other], strict=True)]
        wall, cpu = np.median(ratios, axis=0)
        print(f"  batched / {other}: {wall:.2f} by the clock, {cpu:.2f} by processor time")
    print(f"  items a call {shared.load.items / shared.load.calls:.1f}")
    shared.close()


def _drive(embed: Embed, texts: list[str]) -> np.ndarray:
    """Return requests a second, a second of processor time, and p50 and p95 in ms."""
    took: list[float] = []
    until = time.perf_counter() + SECONDS

    def client(first: int) -> None:
        at = first
        while (start := time.perf_counter()) < until:
            embed([Item(id="q", text=texts[at % len(texts)])])
            took.append(time.perf_counter() - start)
            at += CLIENTS

    processor = time.process_time()
    threads = [threading.Thread(target=client, args=(at,)) for at in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    processor = time.process_time() - processor
    p50, p95 = 1000 * np.percentile(took, [50, 95])
    return np.array([len(took) / SECONDS, len(took) / processor, p50, p95])


def _lone() -> None:
    """Print what the queue adds to a request that has no company."""

    class Instant:
        name = fingerprint = "instant"
        dim = 4
        languages = ()

        def embed(self, items: Sequence[Item]) -> Matrix:
            return rows

    rows = np.eye(1, 4, dtype=np.float32)
    model = BatchingModel(Instant())
    items = [Item(id="q", text="a dog on a beach")]
    took = [1000 * seconds(lambda: model.embed(items)) for _ in range(5000)]
    model.close()
    p50, p95 = np.percentile(took, [50, 95])
    print(f"a lone request waits p50 {p50:.3f} ms, p95 {p95:.3f} ms longer than without a queue")


def _padding() -> None:
    """Print what three ways to batch a skewed mix pay for, through a tower that pads."""
    lengths = _skewed(TEXTS)
    torch.set_num_threads(1)
    tower = Transformer(TransformerConfig(vocabulary=1000)).eval()
    ways = {
        "FIFO, 32 a batch": [list(range(at, at + 32)) for at in range(0, TEXTS, 32)],
        "seeds' greedy": _seeds(lengths),
        "planned": plan(lengths, budget=BUDGET, overhead=OVERHEAD),
    }
    print(f"{TEXTS} texts of {min(lengths)} to {max(lengths)} tokens, {sum(lengths):,} in all")
    runs = {
        name: lambda batches=batches: _run(tower, lengths, batches)
        for name, batches in ways.items()
    }
    times = alternate(runs, rounds=3)
    for name, batches in ways.items():
        most = max(len(batch) * max(lengths[at] for at in batch) for batch in batches)
        rate = sum(lengths) / statistics.median(times[name])
        print(
            f"  {name:17} padding {100 * padded(lengths, batches):4.1f} %  {len(batches):3} calls, "
            f"the largest {most:6,} tokens  {rate:6,.0f} real tokens/s  "
            f"{median_ratio(times['FIFO, 32 a batch'], times[name]):.2f} x FIFO"
        )
    few = [
        plan(lengths[at : at + 32], budget=BUDGET, overhead=OVERHEAD) for at in range(0, TEXTS, 32)
    ]
    shares = [
        padded(lengths[at : at + 32], batches)
        for at, batches in zip(range(0, TEXTS, 32), few, strict=True)
    ]
    print(f"  planned 32 at a time, as they wait: padding {100 * statistics.mean(shares):.1f} %")


def _skewed(count: int) -> list[int]:
    """Return lengths as queries, notes and a few documents have them, in the order they come."""
    rng = np.random.default_rng(0)
    kinds = rng.choice(3, size=count, p=[0.8, 0.15, 0.05])
    low, high = np.array([4, 30, 200])[kinds], np.array([16, 90, 256])[kinds]
    return rng.integers(low, high + 1).tolist()


def _seeds(lengths: Sequence[int]) -> list[list[int]]:
    """The seeds' rule: sorted, and a group may hold 1,024 real tokens, padding not counted."""
    batches: list[list[int]] = [[]]
    held = 0
    for at in np.argsort(lengths, kind="stable").tolist():
        if batches[-1] and held + lengths[at] > BUDGET:
            batches.append([])
            held = 0
        batches[-1].append(at)
        held += lengths[at]
    return batches


def _run(tower: Transformer, lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> None:
    with torch.inference_mode():
        for batch in batches:
            of_N = torch.tensor([lengths[at] for at in batch])
            mask_NT = torch.arange(int(of_N.max())) < of_N[:, None]
            tower(mask_NT.long(), mask_NT)


def _texts(*sets: str) -> list[str]:
    """Return the first text of each picture of these sets, each once, shuffled."""
    found = {
        texts[0]
        for name in sets
        for texts in pq.read_table(DATA / f"{name}.parquet", columns=["texts"])["texts"].to_pylist()
        if texts and texts[0]
    }
    return np.random.default_rng(0).permutation(sorted(found)).tolist()


if __name__ == "__main__":
    main()
