"""Vectors to neighbours, and the store that they can be rebuilt from."""

from __future__ import annotations

from triptych.registry import Registry

INDEXES = Registry(
    "index",
    {"flat": "triptych.index.flat:FlatIndex", "faiss": "triptych.index.faiss:FaissIndex"},
)
