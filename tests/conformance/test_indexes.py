"""Every kind of index that the registry knows, plug-ins included, passes one suite."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conformance.index_suite import DIM, IndexSuite, run_machine
from triptych.index import INDEXES
from triptych.index.base import VectorIndex


@pytest.mark.parametrize("kind", INDEXES.names())
class TestIndexes(IndexSuite):
    @pytest.fixture
    def index(self, kind: str) -> VectorIndex:  # type: ignore[override]
        made: Any = INDEXES.resolve(kind)(DIM)
        assert made.kind == kind
        return made

    def test_any_order_of_calls_equals_a_dict(self, kind: str) -> None:
        run_machine(INDEXES.resolve(kind))
