"""Which sequences share a batch, so that little is padded: one planner for all who batch."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def plan(lengths: Sequence[int], *, budget: int, overhead: int = 0) -> list[list[int]]:
    """Return batches of indices into `lengths`, the shortest first; each index is in one of them.

    A batch costs count x longest, what it takes when padded, and that is at most `budget`; a
    longer sequence goes alone. The sum over batches of (cost + overhead) is the least possible:
    `overhead` is what a call costs however little is in it, in tokens. Equal lengths keep their
    order.

    An optimal plan cuts the sorted sequence into pieces: filling the batches of any other plan
    in sorted order, smallest maximum first, raises no batch's maximum. So the cuts are found by
    dynamic programming over prefixes.
    """
    order = np.argsort(np.asarray(lengths, dtype=np.int64), kind="stable")
    sorted_N = np.asarray(lengths, dtype=np.int64)[order]
    if len(order) and (sorted_N[0] < 1 or overhead < 0):
        raise ValueError(f"Got length {sorted_N[0]} and overhead {overhead}, expected 1 and 0.")
    least = np.zeros(len(order) + 1, dtype=np.int64)  # the cost of the best plan of a prefix
    cuts = np.zeros(len(order) + 1, dtype=np.int64)  # where its last batch begins
    for end in range(1, len(order) + 1):
        longest = int(sorted_N[end - 1])
        first = end - max(1, min(end, budget // longest))
        # the smallest last batch first: of equal plans the one that fills the earlier batches
        costs = least[first:end][::-1] + longest * np.arange(1, end - first + 1)
        best = int(costs.argmin())
        least[end] = costs[best] + overhead
        cuts[end] = end - 1 - best
    batches = []
    end = len(order)
    while end:
        batches.append(order[cuts[end] : end].tolist())
        end = int(cuts[end])
    return batches[::-1]


def padded(lengths: Sequence[int], batches: Sequence[Sequence[int]]) -> float:
    """Return the share of a plan's tokens that is padding, 0 to 1."""
    paid = sum(len(batch) * max(lengths[at] for at in batch) for batch in batches)
    return 1 - sum(lengths) / paid if paid else 0.0
