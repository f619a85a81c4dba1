"""A store of short vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from triptych.index.sqlite.records import Entry
from triptych.index.sqlite.store import Store
from triptych.types import Precision

DIM = 8


def entry(id: str, *, seed: int | None = None, **fields: Any) -> Entry:
    """Return a text whose vector the seed decides, or else its id."""
    own = crc32(id.encode("utf-8", "surrogatepass")) if seed is None else seed
    vector_M = np.random.default_rng(own).standard_normal(DIM)
    vector_M /= np.linalg.norm(vector_M)
    given = {"text": "t", **fields}
    return Entry(id=id, modality="text", vector=vector_M.astype(np.float32), **given)


def open_store(path: Path | None, precision: Precision = "fp32") -> Store:
    return Store.open(path, model="m", fingerprint="f" * 64, dim=DIM, precision=precision)
