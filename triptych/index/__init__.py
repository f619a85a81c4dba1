"""Vectors to neighbours, and the store that they can be rebuilt from."""

from __future__ import annotations

from triptych.errors import InvalidInput
from triptych.registry import Registry

INDEXES = Registry("index", {"flat": "triptych.index.flat:FlatIndex"})
"""Exact kinds: every vector is looked at."""

ANNS = Registry(
    "ann",
    dict.fromkeys(
        ("hnsw", "hnsw_sq8", "ivf_sq8", "ivf_fp16", "ivf_pq", "ivf_rabitq", "rabitq"),
        "triptych.index.faiss:FaissAnn",
    ),
)
"""Approximate kinds: a snapshot's row file with an `Ann` beside it."""

SCANS = Registry("scan", {"halves": "triptych.index.halves:Halves"})
"""What makes the scan of many vectors faster, and no less exact."""


def checked_kind(kind: str) -> str:
    """Return "auto" or the name of a kind; raises InvalidInput for any other."""
    if kind == "auto" or kind in INDEXES or kind in ANNS:
        return kind
    known = ", ".join(("auto", *INDEXES.names(), *ANNS.names()))
    raise InvalidInput(f"Unknown kind of index {kind!r}, known: {known}.")
