"""Which kinds of index to try for a collection, by its size and what the user grants."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

from triptych.errors import InvalidInput

RECALL = 0.97
"""What is aimed at where nothing is said."""

_SMALL = 10_000  # so many vectors are scanned in less than half a millisecond
_LARGEST_GRAPH = 500_000  # a larger graph takes many minutes to build, lists two
_UNITS = {
    "": 1, "b": 1,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
    "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
}  # fmt: skip
_HINT = 'Give bytes or a size such as "2GB" or "512MiB"; None sets no bound.'

# 48 neighbours of 4 bytes at the ground, two on average above it, level and offset
_LINKS = 48 * 4 + 2 * 4 + 12
_ID = 8
_FACTORS = 8  # what RaBitQ keeps of each vector beside its signs


@dataclass(frozen=True, slots=True)
class Budget:
    """What the user grants: the share of the true top 10 to find, and bytes for the index."""

    recall: float = RECALL
    memory: int | None = None

    @classmethod
    def parse(cls, recall: Any = None, memory: Any = None) -> Self:
        """Return the budget of a recall such as 0.97 and a memory such as "2GB", 512_000_000 or
        None; a recall of None is the default.

        Raises InvalidInput outside of 0 < recall <= 1, for a memory that is no size above 0.
        """
        return cls(RECALL if recall is None else _recall(recall), _bytes(memory))


def kinds(count: int, dim: int, precision: str, budget: Budget) -> tuple[str, ...]:
    """Return what to try, in this order, until one reaches the recall; "flat" always does.

    Graphs are the fastest, and jump about in their memory with every search: they are tried where
    they fit and are soon built. That of 8-bit codes comes first: what it proposes is rescored
    exactly, so it gives the recall of whole vectors in two thirds of their time and a third of
    their memory. Lists of codes are read one after the other, and can stay on the disk where they
    do not fit.
    `precision` is that of the row file, "fp32" or "fp16".
    """
    if count <= _SMALL or budget.recall >= 1:
        return ("flat",)
    bound = math.inf if budget.memory is None else budget.memory
    graphs = [
        kind
        for kind in ("hnsw_sq8", "hnsw")
        if count <= _LARGEST_GRAPH and resident_bytes(kind, count, dim, precision) <= bound
    ]
    return (*graphs, "ivf_rabitq", "ivf_sq8", "flat")


def resident_bytes(kind: str, count: int, dim: int, precision: str = "fp32") -> int:
    """Return about how many bytes the searches of a kind go through again and again.

    "flat" goes through the row file; of it the others read single rows to rescore them, whose
    pages the system may drop at any time, and which are not counted. Building takes the same,
    for the lists besides up to 400 MB for the sample that they are trained on.
    """
    if kind == "flat":
        return count * dim * (2 if precision == "fp16" else 4)
    lists = 0 if kind.startswith("hnsw") else 1 if kind == "rabitq" else 4 * math.isqrt(count)
    return count * _PER_VECTOR[kind](dim) + lists * dim * 4


_PER_VECTOR: dict[str, Callable[[int], int]] = {
    "hnsw": lambda dim: 4 * dim + _LINKS,
    "hnsw_sq8": lambda dim: dim + _LINKS,
    "ivf_fp16": lambda dim: 2 * dim + _ID,
    "ivf_sq8": lambda dim: dim + _ID,
    "ivf_pq": lambda dim: dim // 4 + _ID,
    "ivf_rabitq": lambda dim: dim // 8 + _FACTORS + _ID,
    "rabitq": lambda dim: dim // 8 + _FACTORS + _ID,
}


def _recall(value: Any) -> float:
    try:
        recall = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidInput(f"A recall is a number above 0, at most 1, got {value!r}.") from None
    if not 0 < recall <= 1:
        raise InvalidInput(f"A recall is above 0 and at most 1, got {value!r}.")
    return recall


def _bytes(value: Any) -> int | None:
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        found = re.fullmatch(r"\s*([0-9]{1,18}(?:\.[0-9]+)?)\s*([a-z]*)\s*", str(value).lower())
        if found is None or found[2] not in _UNITS:
            raise InvalidInput(f"The memory {value!r} is no size.", hint=_HINT)
        size = int(float(found[1]) * _UNITS[found[2]])
    if size <= 0:
        raise InvalidInput(f"The memory is above 0, got {value!r}.", hint=_HINT)
    return size
