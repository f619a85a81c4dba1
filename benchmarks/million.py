"""A million vectors under a bound on memory, page cache included; only on demand.

It takes about ten minutes the first time and keeps 5 GB in .work/bench.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cgroup import MemoryGroup, available, forget
from benchmarks.common import WORK
from benchmarks.peers.corpus import QUERIES, Corpus, recall
from benchmarks.peers.process import Contestant
from benchmarks.stores import megabytes

NAME = "triptych-million"
COUNT = 1_000_000
BATCH = 10_000
BOUND = 600_000_000
LEAST = 200_000_000
REOPENINGS = 3


@dataclass(frozen=True)
class Answers:
    """What one process answered: seconds until the first, all found, and times of the later."""

    opened_s: float
    found: list[list[int]]
    found_within: list[list[int]]
    took: list[float]
    took_within: list[float]
    peak: int

    @property
    def p50_ms(self) -> float:
        """Return the median of the searches without a filter."""
        return statistics.median(self.took) * 1e3


def main(
    count: int = COUNT, *, queries: int = QUERIES, bound: int = BOUND, work: Path = WORK
) -> None:
    folder = work / "million" / str(count)
    done = folder.with_suffix(".json")
    if not done.exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        done.write_text(json.dumps(fill(folder, count)))
    filled = json.loads(done.read_text())
    index_bytes = int(megabytes(folder / "index") * 1e6)
    print(f"{count:,} x 512, {filled['kind']}, recall asked for 0.97, measured {filled['recall']}")
    print(f"  adds/s {filled['adds_per_s']:,.0f}, index built in {filled['settle_s']:.0f} s")
    print(f"  on disk {megabytes(folder):,.0f} MB, of it the index {index_bytes / 1e6:,.0f} MB")
    free = ask(folder, count, queries)
    times = [free.opened_s, *(ask(folder, count, 1).opened_s for _ in range(REOPENINGS - 1))]
    print(f"  reopened to the first answer {statistics.median(times):.2f} s")
    corpus = Corpus(count, folder=work)
    report("no bound", free, free, corpus)
    bounds = {f"{bound / 1e6:.0f} MB": bound, "a third of the index": index_bytes // 3}
    for name, limit in bounds.items():
        reason = "" if available() else "no cgroup can be made here"
        reason = reason or ("" if limit > LEAST else "Python itself is larger")
        if reason:
            print(f"  {name}: not measured, {reason}")
            continue
        forget(folder)
        with MemoryGroup(limit) as group:
            try:
                bounded = ask(folder, count, queries, group)
            except RuntimeError as error:
                print(f"  {name} ({limit / 1e6:.0f} MB): {error}")
                continue
            report(f"{name} ({limit / 1e6:.0f} MB)", bounded, free, corpus)


def fill(folder: Path, count: int) -> dict[str, Any]:
    """Stream the items in, build the index, and return what it took."""
    with Contestant(NAME, count) as one:
        one.ask("open", folder=str(folder))
        took = one.ask("add", start=0, count=count, batch=BATCH)
        settle_s = one.ask("settle")
        filled = {"adds_per_s": count / sum(took), "settle_s": settle_s, **one.ask("describe")}
        one.ask("close")
    return filled


def ask(folder: Path, count: int, queries: int, group: MemoryGroup | None = None) -> Answers:
    """Open the collection in a new process and ask it; raises RuntimeError where that dies."""
    with Contestant(NAME, count, under=group.command if group else ()) as one:
        opened_s = one.ask("open", folder=str(folder))
        first = one.ask("search", start=0, count=1)
        plain = one.ask("search", start=0, count=queries)
        within = one.ask("search", start=0, count=queries, field="shelf")
        peak = group.peak() if group else one.ask("peak")
        with suppress(RuntimeError):
            one.ask("close")
    return Answers(
        opened_s=opened_s + first["took"][0],
        found=plain["found"],
        found_within=within["found"],
        took=plain["took"],
        took_within=within["took"],
        peak=peak,
    )


def report(name: str, got: Answers, free: Answers, corpus: Corpus) -> None:
    """Print one process's answers beside those given without a bound."""
    queries = len(got.found)
    same = (got.found, got.found_within) == (free.found, free.found_within)
    within_ms = statistics.median(got.took_within) * 1e3
    recalled = recall(got.found, corpus.truth_QK[:queries])
    p99_ms = np.percentile(got.took, 99) * 1e3
    print(f"  {name}:")
    print(f"    recall@10 {recalled:.4f}, p50 {got.p50_ms:.2f} ms, p99 {p99_ms:.2f} ms")
    print(
        f"    filter that keeps 0.1 %: recall "
        f"{recall(got.found_within, corpus.truth_within('shelf')[:queries]):.4f},"
        f" p50 {within_ms:.2f} ms"
    )
    print(
        f"    opened to the first answer {got.opened_s:.2f} s, peak {got.peak / 1e6:.0f} MB; "
        f"answers {'identical' if same else 'DIFFERENT'}, slowdown {got.p50_ms / free.p50_ms:.2f}"
    )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
