"""Explanations as JSON."""

from __future__ import annotations

import base64
from typing import Any

from triptych.types import Explanation, Heat


def explanation_json(said: Explanation) -> dict[str, Any]:
    """Return what a reply shows of it beside its hit; tier and stages are the whole reply's."""
    return {
        "shares": list(said.shares),
        "heat": None if said.heat is None else _heat(said.heat),
        "word_heats": [
            {"word": one.word, "part": one.part, "start": one.start, "stop": one.stop, **_heat(one)}
            for one in said.words
        ],
        "note": said.note,
    }


def _heat(heat: Heat) -> dict[str, Any]:
    png = base64.b64encode(heat.png).decode("ascii")
    # six decimals: more of a float32 would be noise
    grid = [[round(value, 6) for value in row] for row in heat.grid_RC.tolist()]
    return {"grid": grid, "png": f"data:image/png;base64,{png}"}
