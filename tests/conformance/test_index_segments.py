"""A base with a delta and removed rows passes the suite of every index."""

from __future__ import annotations

from collections.abc import Iterable
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
FAST = ("flat-both", "hnsw_sq8-base-fp16")


def marked(names: Iterable[str]) -> list[Any]:
    return [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("name", marked(SCANNED | APPROXIMATE))
class TestSegments(IndexSuite):
    """With knobs that leave nothing out, the answer is the one of a list."""

    @pytest.fixture
    def index(self, name: str) -> VectorIndex:  # type: ignore[override]
        return (SCANNED | APPROXIMATE)[name](DIM)


@pytest.mark.parametrize("name", marked(SCANNED))
def test_any_order_of_calls_equals_a_dict(name: str) -> None:
    run_machine(SCANNED[name])
