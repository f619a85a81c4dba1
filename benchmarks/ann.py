"""One query at a time at recall@10 >= 0.95: our index beside bare search libraries, in turns.

100,000 vectors of low intrinsic dimension; the libraries come from the peers' environment.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np

from benchmarks.common import median_ratio
from benchmarks.peers.corpus import QUERIES, Corpus
from benchmarks.peers.process import Contestant, installed

COUNT = 100_000
ROUNDS = 10
TARGET = 0.95
NAMES = ("triptych-index", "hnswlib", "usearch", "faiss")


def main(names: Sequence[str] = NAMES, count: int = COUNT, rounds: int = ROUNDS) -> None:
    if not installed():
        sys.exit("The peers are not installed. Run: make peers")
    corpus = Corpus(count)
    corpus.truth_QK  # noqa: B018  found once, not by every process
    with ExitStack() as stack:
        contestants = [stack.enter_context(Contestant(name, count)) for name in names]
        builds = {one.name: one.ask("build") for one in contestants}
        knobs = {one.name: one.ask("tune", target=TARGET, queries=QUERIES) for one in contestants}
        times = in_turns(contestants, rounds)
    first = names[0]
    print(f"{count:,} x 512, limit 10, one thread, one query at a time, {rounds} rounds in turns")
    print(f"{'':16}{'knob':>12}{'recall':>8}{'p50 ms':>9}{'p99 ms':>9}{'ratio':>8}{'build s':>9}")
    for name in names:
        p50s = medians(times[name])
        ratio = median_ratio(medians(times[first]), p50s)
        print(
            f"{name:16}{knobs[name]['knob']:>12}{knobs[name]['recall']:8.3f}"
            f"{statistics.median(p50s) * 1e3:9.3f}{worst(times[name]) * 1e3:9.3f}"
            f"{ratio:8.2f}{builds[name]:9.1f}",
        )
    print(f"ratio: {first}'s p50 to this one's, median over rounds")


def in_turns(contestants: Sequence[Contestant], rounds: int) -> dict[str, list[list[float]]]:
    """Return each contestant's seconds a query, by round; every round asks other queries."""
    times: dict[str, list[list[float]]] = {one.name: [] for one in contestants}
    each = QUERIES // rounds
    for at in range(rounds):
        for one in contestants:
            got = one.ask("search", start=at * each, count=each)
            times[one.name].append(got["took"])
    return times


def medians(rounds: Sequence[Sequence[float]]) -> list[float]:
    """Return each round's median."""
    return [statistics.median(times) for times in rounds]


def worst(rounds: Sequence[Sequence[float]]) -> float:
    """Return the 99th percentile over all rounds."""
    return float(np.percentile(np.concatenate(list(map(np.asarray, rounds))), 99))


if __name__ == "__main__":
    main(sys.argv[1:] or NAMES)
