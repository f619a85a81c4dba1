"""Timing and pictures that the benchmarks share."""

from __future__ import annotations

import io
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
from PIL import Image

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


def photos(count: int, *, size: tuple[int, int] = (500, 375)) -> list[Path]:
    """Return `count` JPEG files of photo size: Flickr8k's dev pictures, scaled up where small."""
    folder = WORK / f"photos-{size[0]}x{size[1]}"
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{at:05}.jpg" for at in range(count)]
    if not all(path.exists() for path in paths):
        for path, data in zip(paths, _encoded_pictures(count), strict=True):
            picture = (
                Image.open(io.BytesIO(data)).convert("RGB").resize(size, Image.Resampling.BICUBIC)
            )
            picture.save(path, quality=90)
    return paths


def _encoded_pictures(count: int) -> list[bytes]:
    column = pq.read_table(DATA / "flickr8k.parquet", columns=["image"])["image"]
    return [column[at % len(column)].as_py() for at in range(count)]
