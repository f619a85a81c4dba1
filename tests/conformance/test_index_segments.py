"""A base with a delta and removed rows passes the suite of every index."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest

from tests.conformance.index_suite import DIM, IndexSuite, assert_agrees, run_machine, vectors
from tests.conformance.segments import SHAPES, composed
from triptych.index import ANNS, segments
from triptych.index.base import VectorIndex
from triptych.index.faiss import FaissAnn
from triptych.index.holdout import Holdout

SCANNED = {
    **{f"flat-{shape}": composed("flat", shape) for shape in SHAPES},
    "flat-both-fp16": composed("flat", "both", "fp16"),
}
APPROXIMATE = {
    **{f"{kind}-both": composed(kind, "both") for kind in ANNS.names()},
    "hnsw_sq8-base-fp16": composed("hnsw_sq8", "base", "fp16"),
}
REFINES = dict.fromkeys(ANNS.names(), 2) | {"ivf_pq": 16, "ivf_rabitq": 16, "rabitq": 64}
"""Candidates for each neighbour, enough for the codes of a kind to be as good as exact."""
FAST = ("flat-both", "hnsw_sq8-base-fp16")


def marked(names: Iterable[str]) -> list[Any]:
    return [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.fixture(autouse=True)
def asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have an Ann asked where to look at its few rows would take less time."""
    monkeypatch.setattr(segments, "_SCAN", 1e-9)
    monkeypatch.setattr(segments, "_GATHER", 0)


@pytest.mark.parametrize("name", marked(SCANNED | APPROXIMATE))
class TestSegments(IndexSuite):
    """With knobs that leave nothing out, the answer is the one of a list."""

    @pytest.fixture
    def index(self, name: str) -> VectorIndex:  # type: ignore[override]
        return (SCANNED | APPROXIMATE)[name](DIM)


@pytest.mark.parametrize("name", marked(SCANNED | APPROXIMATE))
def test_any_order_of_calls_equals_a_dict(name: str) -> None:
    run_machine((SCANNED | APPROXIMATE)[name], at_first=160)


def check_candidates(kind: str) -> None:
    """Few candidates, base, delta, removed rows and filters: ids, order and scores of the list."""
    index = composed(kind, "both", refine=REFINES[kind])(DIM)
    rows, matrix = np.arange(2000) * 7 + 3, vectors(2000)
    index.add(rows, matrix)
    index.remove(rows[::5])
    stored = dict(zip(rows.tolist(), matrix, strict=True))
    for row in rows[::5].tolist():
        del stored[row]
    for query in vectors(10, seed=1):
        assert_agrees(index, stored, query, 10)
        assert_agrees(index, stored, query, 10, allowed=rows[::3])


@pytest.mark.parametrize("kind", ANNS.names())
def test_the_candidates_of_an_ann_are_the_best(kind: str) -> None:
    check_candidates(kind)


def shifted(ann: Any, found: Any) -> Any:
    return (found + 1) % len(ann)


def without_the_best(ann: Any, found: Any) -> Any:
    return found[1:]


def without_what_came_last(ann: Any, found: Any) -> Any:
    return found[found < 0.9 * len(ann)]


@pytest.mark.parametrize("bug", [shifted, without_the_best, without_what_came_last])
@pytest.mark.parametrize("kind", ANNS.names())
def test_a_planted_bug_is_noticed(kind: str, bug: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = FaissAnn.search
    monkeypatch.setattr(
        FaissAnn, "search", lambda self, *args, **kw: bug(self, sound(self, *args, **kw))
    )
    with pytest.raises(AssertionError):
        check_candidates(kind)


def test_a_filter_that_is_not_heeded_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FaissAnn, "_parameters", lambda self, *_: None)
    with pytest.raises(AssertionError):
        check_candidates("ivf_sq8")


def test_a_filter_on_the_wrong_numbers_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        Holdout, "chosen", lambda self, at: np.isin(np.arange(self._count), at, kind="table")
    )
    with pytest.raises(AssertionError):
        check_candidates("ivf_sq8")
