"""Whole stores beside each other at 100,000 items with metadata, in turns: ours and the peers.

Adding, searching, filtering, opening again, deleting, and what is left on disk. Every search
fetches the metadata of its hits; every peer has the first knob that reaches recall@10 >= 0.95.

python -m benchmarks.stores [--adds] [CONTESTANT ...]    with --adds nothing but adding
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import WORK
from benchmarks.peers.corpus import QUERIES, Corpus, recall
from benchmarks.peers.process import Contestant, installed

COUNT = 100_000
ROUNDS = 10
BATCH = 1000
SINGLES = 20  # a round
TARGET = 0.95
PATIENCE_S = 2.0  # a round of one contestant's searches
NAMES = ("triptych", "chromadb", "lancedb", "lancedb-hnsw", "milvus-lite", "qdrant-client")

Figures = dict[str, dict[str, float]]  # by what was measured, by contestant


class Comparison:
    """Contestants with the same items in folders of their own."""

    def __init__(self, contestants: Sequence[Contestant], *, count: int, rounds: int) -> None:
        self.contestants, self.count, self.rounds = contestants, count, rounds
        self.corpus = Corpus(count)
        self.figures: Figures = {}

    def load(self) -> None:
        """Add all items in batches of 1,000, then let each store do what follows a load."""
        for one in self.contestants:
            one.ask("open", folder=str(fresh_folder(one.name)))
        each = self.count // self.rounds
        self._add(BATCH, lambda at: (at * each, each))
        for one in self.contestants:
            self._note("settle s", one, one.ask("settle"))
            self._note("disk MB", one, megabytes(folder(one.name)))

    def search(self) -> None:
        """Ask with and without a filter that keeps 1 %."""
        for one in self.contestants:
            tuned = one.ask("tune", target=TARGET, queries=QUERIES // self.rounds)
            print(f"{one.name}: knob {tuned['knob']}, recall {tuned['recall']:.3f}", flush=True)
        self._searches("search", self.corpus.truth_QK, field=None)
        self._searches("filter", self.corpus.truth_within("cat"), field="cat")

    def add_singles(self) -> None:
        """Add items one by one to the full store, and look whether each is found at once."""
        self._add(1, lambda at: (self.count + at * SINGLES, SINGLES))
        after = self.count + self.rounds * SINGLES
        for one in self.contestants:
            self._note("found at once, of 20", one, one.ask("fresh", start=after, count=SINGLES))

    def reopen(self) -> None:
        """Close, and open in a new process, until the first answer; imports are not counted."""
        for one in self.contestants:
            one.ask("close")
            one.stop()
            with Contestant(one.name, self.count) as again:
                took = again.ask("open", folder=str(folder(one.name)))
                first = again.ask("search", start=0, count=1)["took"][0]
                self._note("reopen s", one, took + first)
                self._shrink(again)

    def _shrink(self, one: Contestant) -> None:
        took = one.ask("delete", start=0, stop=self.count, step=2)
        self._note("delete half s", one, took)
        found = one.ask("search", start=0, count=10)["found"]
        stale = sum(id < self.count and id % 2 == 0 for ids in found for id in ids)
        self._note("deleted among hits", one, stale)
        self._note("compact s", one, one.ask("compact"))
        one.ask("close")
        self._note("disk MB, half deleted", one, megabytes(folder(one.name)))

    def _add(self, batch: int, part: Callable[[int], tuple[int, int]]) -> None:
        took: dict[Contestant, list[float]] = {one: [] for one in self.contestants}
        for at in range(self.rounds):
            start, count = part(at)
            for one in self.contestants:
                took[one] += one.ask("add", start=start, count=count, batch=batch)
        for one, times in took.items():
            self._note(f"adds/s, batches of {batch:,}", one, batch * len(times) / sum(times))

    def _searches(self, what: str, truth_QK: Any, *, field: str | None) -> None:
        took: dict[Contestant, list[list[float]]] = {one: [] for one in self.contestants}
        found: dict[Contestant, dict[int, list[int]]] = {one: {} for one in self.contestants}
        most = QUERIES // self.rounds
        counts = {one: self._affordable(one, most, field) for one in self.contestants}
        for at in range(self.rounds):
            for one in self.contestants:
                asked = {"start": at * most, "count": counts[one], "field": field}
                got = one.ask("search", **asked)
                took[one].append(got["took"])
                found[one] |= dict(enumerate(got["found"], start=at * most))
        for one in self.contestants:
            self._note(f"{what} recall", one, recall(found[one].values(), truth_QK[[*found[one]]]))
            medians = [statistics.median(times) for times in took[one]]
            self._note(f"{what} p50 ms", one, statistics.median(medians) * 1e3)
            self._note(f"{what} p99 ms", one, float(np.percentile(np.hstack(took[one]), 99)) * 1e3)

    def _affordable(self, one: Contestant, most: int, field: str | None) -> int:
        took = one.ask("search", start=0, count=3, field=field)["took"]
        return max(3, min(most, int(PATIENCE_S / statistics.median(took))))

    def _note(self, what: str, one: Contestant, value: float) -> None:
        self.figures.setdefault(what, {})[one.name] = value


def main(
    names: Sequence[str] = NAMES, count: int = COUNT, rounds: int = ROUNDS, *, adds: bool = False
) -> None:
    """Measure all, or with `adds` only what comes in."""
    if not installed():
        sys.exit("The peers are not installed. Run: make peers")
    with ExitStack() as stack:
        contestants = [stack.enter_context(Contestant(name, count)) for name in names]
        run = Comparison(contestants, count=count, rounds=rounds)
        rest = (run.search, run.add_singles, run.reopen)
        for step in (run.load, *((run.add_singles,) if adds else rest)):
            step()
            (WORK / "stores.json").write_text(json.dumps(run.figures, indent=1))
    show(run.figures, names)


def show(figures: Figures, names: Sequence[str]) -> None:
    """Print one line for each thing measured."""
    print(f"\n{'':24}" + "".join(f"{name:>15}" for name in names))
    for what, by_name in figures.items():
        cells = (f"{by_name[name]:15,.4g}" if name in by_name else f"{'':15}" for name in names)
        print(f"{what:24}" + "".join(cells))


def folder(name: str) -> Path:
    """Return where a contestant keeps its items."""
    return WORK / "stores" / name


def fresh_folder(name: str) -> Path:
    """Return the folder, emptied."""
    shutil.rmtree(folder(name), ignore_errors=True)
    folder(name).mkdir(parents=True)
    return folder(name)


def megabytes(path: Path) -> float:
    """Return what the files below take on disk, 10^6 bytes."""
    return sum(file.stat().st_blocks * 512 for file in path.rglob("*") if file.is_file()) / 1e6


if __name__ == "__main__":
    asked = [name for name in sys.argv[1:] if name != "--adds"]
    main(asked or NAMES, adds="--adds" in sys.argv)
