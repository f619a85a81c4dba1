"""What each alignment brings, on frozen towers: `python -m benchmarks.alignment [PART ...]`."""

from __future__ import annotations

import sys
import time
from importlib import import_module

import torch

PARTS = ("places", "relations", "fusion", "tokens")


def main() -> None:
    torch.set_num_threads(1)
    for part in sys.argv[1:] or PARTS:
        start = time.process_time()
        import_module(f"benchmarks.alignment.{part}").main()
        print(f"  ({time.process_time() - start:.0f} s of one core)\n", flush=True)


if __name__ == "__main__":
    main()
