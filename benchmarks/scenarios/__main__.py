"""`python -m benchmarks scenarios [shop|medical|law]`: each beside what the seeds claim of it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from benchmarks.scenarios import law, medical, shop

SCENARIOS: dict[str, Callable[[], None]] = {
    "shop": shop.main,
    "medical": medical.main,
    "law": law.main,
}


def main() -> int:
    chosen = sys.argv[1:] or list(SCENARIOS)
    unknown = set(chosen) - set(SCENARIOS)
    if unknown:
        print(f"Unknown scenario {', '.join(sorted(unknown))}, known: {', '.join(SCENARIOS)}.")
        return 2
    for name in chosen:
        print(f"\n-- {name}", flush=True)
        SCENARIOS[name]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
