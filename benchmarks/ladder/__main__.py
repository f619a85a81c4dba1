"""The seeds' own story, rung by rung: the same pictures and steps, what each mechanism brings.

`python -m benchmarks ladder` trains what is not there yet, one file a run under
`benchmarks/results/ladder`, and prints the table. `python -m benchmarks.ladder 0 2` trains these
seeds only, `--table` none.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.ladder.features import Features, load
from benchmarks.ladder.model import ASIDE, RUNGS, Rung
from benchmarks.ladder.report import report
from benchmarks.ladder.train import Run

RESULTS = Path(__file__).parent.parent / "results" / "ladder"
SEEDS = (0, 1, 2)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    if "--table" not in sys.argv:
        _train([int(seed) for seed in sys.argv[1:]] or SEEDS)
    print(report([json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))]))


def _train(seeds: Sequence[int]) -> None:
    RESULTS.mkdir(parents=True, exist_ok=True)
    features: dict[str, Features] = {}
    for seed in seeds:
        for at, rung in enumerate((*RUNGS, *ASIDE)):
            path = RESULTS / f"{at}-{_slug(rung)}-{seed}.json"
            if path.exists():
                continue
            features = features or {split: load(split) for split in ("train", "dev")}
            logging.info("%s, seed %d", rung.name, seed)
            found = Run(rung, seed=seed, train=features["train"], dev=features["dev"]).run()
            path.with_suffix(".new").write_text(json.dumps(found, indent=1) + "\n")
            path.with_suffix(".new").replace(path)


def _slug(rung: Rung) -> str:
    return rung.name.removeprefix("+ ").replace(",", "").replace(" ", "-")


if __name__ == "__main__":
    main()
