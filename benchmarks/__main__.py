"""`make bench`: every benchmark, each in a process of its own; name some to run only those.

What follows `scenarios` are the names of scenarios, what follows `headings` folders.
"""

from __future__ import annotations

import subprocess
import sys

BENCHMARKS = [
    "quality",
    "rounding",
    "stamps",
    "languages",
    "mixed",
    "alone",
    "encode",
    "batching",
    "cold",
    "install",
    "ann",
    "stores",
    "cache",
    "losses",
    "serve",
    "uploads",
    "moe",
    "pointing",
    "page",
    "scenarios",
]
ON_DEMAND = [
    "servers",
    "infinity",
    "rerank",
    "alignment",
    "million",
    "rescoring",
    "ladder",
    "headings",
]


def main() -> int:
    chosen, options = sys.argv[1:] or BENCHMARKS, []
    if chosen[0] in ("scenarios", "serve", "headings"):  # these take more: serve 100000
        chosen, options = chosen[:1], chosen[1:]
    known = BENCHMARKS + ON_DEMAND
    unknown = set(chosen) - set(known)
    if unknown:
        print(f"Unknown benchmark {', '.join(sorted(unknown))}, known: {', '.join(known)}.")
        return 2
    codes = []
    for name in chosen:
        print(f"\n== {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *options]
        codes.append(subprocess.run(command).returncode)
    return max(codes)


if __name__ == "__main__":
    sys.exit(main())
