"""A store of short vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from triptych.index.sqlite.records import Entry
from triptych.index.sqlite.store import Store

DIM = 8


def entry(id: str, **fields: Any) -> Entry:
    """Return a text whose vector its id's length decides."""
    vector_M = np.random.default_rng(len(id)).standard_normal(DIM)
    vector_M /= np.linalg.norm(vector_M)
    return Entry(id=id, modality="text", vector=vector_M.astype(np.float32), text="t", **fields)


def open_store(path: Path) -> Store:
    return Store.open(path, model="m", fingerprint="f" * 64, dim=DIM)
