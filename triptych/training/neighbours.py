"""Batches of pictures that are hard to tell apart, for the scorer of pairs.

N pictures, M embedding width, K nearest.
"""

from __future__ import annotations

from random import Random

import torch
from torch import Tensor


class Neighbourhoods:
    """Each batch is some pictures, each followed by its nearest: what a reranker is asked about."""

    def __init__(self, emb_NM: Tensor, *, name: str, batch: int, block: int, seed: int) -> None:
        self._name, self._seed, self._num = name, seed, max(batch // block, 1)
        self._block = min(block, len(emb_NM))
        parts = [
            (some @ emb_NM.T).topk(min(2 * self._block, len(emb_NM))).indices
            for some in torch.split(emb_NM, 512)
        ]
        self._near_NK = torch.cat(parts)

    def draw(self, step: int) -> tuple[str, list[int]]:
        """Return the set and the rows, block after block; no row stands twice in a block."""
        turns = max(len(self._near_NK) // self._num, 1)
        epoch, turn = divmod(step, turns)
        order = list(range(len(self._near_NK)))
        random = Random(f"{self._seed}:{epoch}")  # noqa: S311
        random.shuffle(order)
        rows: list[int] = []
        for first in order[turn * self._num : (turn + 1) * self._num]:
            others = [int(row) for row in self._near_NK[first] if int(row) != first]
            # of twice as many as fit, so that the neighbours of a picture vary
            rows += [first, *random.sample(others, min(self._block - 1, len(others)))]
        return self._name, rows
