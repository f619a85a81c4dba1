"""`python -m triptych.training RECIPE --data DIR --out DIR`: from the data to the artefact.

An interrupted run goes on where its last checkpoint was written, when it is started again.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path

import torch

from triptych.errors import TriptychError
from triptych.training import recipes
from triptych.training.made_up import write_data
from triptych.training.pipeline import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="triptych.training", description=__doc__)
    parser.add_argument("recipe", choices=sorted(recipes.RECIPES))
    parser.add_argument("--data", type=Path, help="a folder of Parquet files, or one such file")
    parser.add_argument("--out", type=Path, required=True, help="where everything is written")
    parser.add_argument("--name", help="of the model; default: that of --out")
    parser.add_argument("--steps", type=int, help="of a stage at most; default: the recipe's")
    parser.add_argument("--seed", type=int, help="for other crops, batches and captions")
    parser.add_argument("--threads", type=int, help="instead of the recipe's")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    stages = recipes.RECIPES[args.recipe]()
    if args.data is None:
        if args.recipe != "smoke":
            parser.error("--data is needed: only the smoke recipe makes its own")
        args.data = args.out / "data"
        write_data(args.data)
    if args.steps is not None:
        if args.steps < 1:
            parser.error("--steps is 1 or more.")
        stages = tuple(stage.at_most(args.steps) for stage in stages)
    if args.seed is not None:
        stages = tuple(replace(stage, seed=args.seed) for stage in stages)
    torch.set_num_threads(args.threads or stages[0].threads)
    try:
        run(stages, data=args.data, out=args.out, name=args.name or args.out.resolve().name)
    except TriptychError as error:
        parser.exit(2, f"{error}\n")


if __name__ == "__main__":
    main()
