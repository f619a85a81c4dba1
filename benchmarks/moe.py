"""The experts: time against the roofline, routing, balance, variants, serving.

Name parts to run only those: `python -m benchmarks.moe roofline serving`.
"""

from __future__ import annotations

import sys

import torch

from benchmarks.experts import flips, layer_time, served, training

PARTS = {
    "share": layer_time.routing_share,
    "roofline": layer_time.roofline,
    "sweep": layer_time.sweep,
    "serving": served.main,
    "flips": flips.main,
    "balance": training.balance,
    "variants": training.variants,
    "budget": training.budget,
    "heat": training.heat,
}


def main() -> None:
    torch.set_num_threads(1)
    for name in sys.argv[1:] or PARTS:
        PARTS[name]()


if __name__ == "__main__":
    main()
