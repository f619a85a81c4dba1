"""Hits and their explanations out of JSON."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import numpy as np

from triptych.types import Explanation, Heat, Hit, WordHeat

_HIT = ("id", "score", "metadata", "uri", "text", "modality", "found", "words")
_WORD = ("word", "part", "start", "stop")


def hits_of(said: Any) -> list[Hit]:
    """Return the hits of a search's reply."""
    whole = said.get("explain", {})
    return [
        Hit(**{name: hit[name] for name in _HIT}, explanation=_explanation(hit, whole))
        for hit in said["hits"]
    ]


def _explanation(hit: Mapping[str, Any], whole: Mapping[str, Any]) -> Explanation | None:
    if hit.get("shares") is None:
        return None
    heat = hit.get("heat")
    return Explanation(
        shares=tuple(hit["shares"]),
        tier=whole["tier"],
        stages_ms=whole["stages_ms"],
        heat=None if heat is None else Heat(**_heat(heat)),
        words=tuple(
            WordHeat(**_heat(one), **{name: one[name] for name in _WORD})
            for one in hit.get("word_heats") or ()
        ),
        note=hit.get("note"),
    )


def _heat(said: Mapping[str, Any]) -> dict[str, Any]:
    grid_RC = np.asarray(said["grid"], dtype=np.float32)
    return {"grid_RC": grid_RC, "png": base64.b64decode(said["png"].partition(",")[2])}
