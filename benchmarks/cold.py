"""`triptych search` from a cold shell on 10,000 pictures: wall time and peak memory."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.random_model import RandomModel
from triptych.retrieval.collection import Collection
from triptych.settings import Settings
from triptych.types import Item

COUNT = 10_000
RUNS = 9


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        _fill(Path(folder) / "pictures")
        command = [
            str(Path(sys.executable).with_name("triptych")),
            "search", "a dog on a beach", "-c", f"{folder}/pictures",
        ]  # fmt: skip
        runs = [_run(command, {**os.environ, "TRIPTYCH_DATA": folder}) for _ in range(RUNS + 1)][1:]
    wall = statistics.median(run[0] for run in runs)
    peak = statistics.median(run[1] for run in runs)
    print(f"triptych search, cold process, {COUNT:,} pictures, median of {RUNS}:")
    print(f"  wall {wall:.2f} s (worst {max(run[0] for run in runs):.2f}), peak {peak:.0f} MB")


def _fill(folder: Path) -> None:
    """Make a collection of the default model with random vectors: searching it costs the same."""
    model = Settings.from_env().open_model("default")
    items = [
        Item(id=f"/photos/{at:05}.jpg", text="x", uri=f"/photos/{at:05}.jpg") for at in range(COUNT)
    ]
    with Collection.open(folder, embedder=RandomModel(model)) as collection:
        collection.add(items)


def _run(command: list[str], environ: dict[str, str]) -> tuple[float, float]:
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    took = time.perf_counter() - start
    assert status == 0 and output.count(b"\n") == 10, output
    return took, usage.ru_maxrss / 1024


if __name__ == "__main__":
    main()
