"""Where the benchmarks find and leave their files, and how they measure; standard library only."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
WORK = Path(__file__).parent.parent / ".work" / "bench"


def seconds(work: Callable[[], object]) -> float:
    """Return the wall time of one call."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def alternate(
    contestants: dict[str, Callable[[], object]], *, rounds: int
) -> dict[str, list[float]]:
    """Return each contestant's times over rounds that take turns, so that drift hits all alike."""
    for work in contestants.values():
        work()  # warm
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, work in contestants.items():
            times[name].append(seconds(work))
    return times


def median_ratio(one: list[float], other: list[float]) -> float:
    """Return the median over rounds of one / other."""
    return statistics.median(a / b for a, b in zip(one, other, strict=True))


def memory(what: str = "VmRSS", *, of: int | str = "self") -> int:
    """Return bytes that a process holds (VmRSS), or held at most (VmHWM), as proc(5) has them."""
    lines = Path(f"/proc/{of}/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(f"{what}:"))
