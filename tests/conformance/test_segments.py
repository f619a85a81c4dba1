"""A base with a delta and removed rows passes the suite of every index."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.index_suite import DIM, IndexSuite, run_machine
from tests.conformance.segments import SHAPES, composed
from triptych.index import ANNS
from triptych.index.base import VectorIndex

SCANNED = {
    **{f"flat-{shape}": composed("flat", shape) for shape in SHAPES},
    "flat-both-fp16": composed("flat", "both", "fp16"),
}
APPROXIMATE = {
    **{f"{kind}-both": composed(kind, "both") for kind in ANNS.names()},
    "hnsw_sq8-base-fp16": composed("hnsw_sq8", "base", "fp16"),
}
FAST = ("flat-both", "flat-both-fp16", "hnsw_sq8-base-fp16")
NAMES: list[Any] = [
    name if name in FAST else pytest.param(name, marks=pytest.mark.slow)
    for name in SCANNED | APPROXIMATE
]


@pytest.mark.parametrize("name", NAMES)
class TestSegments(IndexSuite):
    """With knobs that leave nothing out, the answer is the one of a list."""

    @pytest.fixture
    def index(self, name: str) -> VectorIndex:  # type: ignore[override]
        return (SCANNED | APPROXIMATE)[name](DIM)


@pytest.mark.parametrize("name", SCANNED)
def test_any_order_of_calls_equals_a_dict(name: str) -> None:
    run_machine(SCANNED[name])
