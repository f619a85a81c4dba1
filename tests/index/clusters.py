"""Vectors that lie as embeddings do: in clusters, few directions mattering."""

from __future__ import annotations

from typing import Any

import numpy as np

from triptych.index.base import checked_vectors

DIM = 48
NUM = 4000


def clustered(num: int = NUM, *, seed: int = 0, dim: int = DIM) -> np.ndarray[Any, Any]:
    world = np.random.default_rng(123)
    centres, axes = world.standard_normal((60, 16)), world.standard_normal((16, dim))
    rng = np.random.default_rng(seed)
    latent = centres[rng.integers(0, 60, num)] + 0.7 * rng.standard_normal((num, 16))
    return checked_vectors(latent @ axes + 0.3 * rng.standard_normal((num, dim)), dim)


def truth(matrix: Any, query: Any, k: int) -> np.ndarray[Any, Any]:
    return np.argsort(-(matrix.astype(np.float64) @ query.astype(np.float64)), kind="stable")[:k]


def recall(found: Any, wanted: Any) -> float:
    pairs = list(zip(found, wanted, strict=True))
    return sum(len(set(f.tolist()) & set(w.tolist())) / len(w) for f, w in pairs) / len(pairs)
