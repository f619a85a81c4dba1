"""Base, delta and removed rows together: recall with modest knobs, exactness with all of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conformance.segments import based
from tests.index.clusters import DIM, NUM, clustered, recall, truth
from triptych.errors import NotFound
from triptych.index import ANNS
from triptych.index.segments import Base, Knobs, SegmentedIndex

MATRIX = clustered()
QUERIES = clustered(60, seed=1)
ROWS = np.arange(NUM) * 2 + 10
LIMIT = 10
KNOBS = {"hnsw": (48, 1), "hnsw_sq8": (48, 2), "ivf_sq8": (24, 2), "ivf_fp16": (24, 2)}


@pytest.fixture(scope="module", params=ANNS.names())
def base(request: pytest.FixtureRequest) -> Base:
    effort, refine = KNOBS.get(request.param, (24, 16))
    return based(ROWS, MATRIX, request.param, "fp32", Knobs(effort, refine))


def reached(index: SegmentedIndex, held: Any, allowed: Any = None) -> float:
    """Return the recall, having checked that every answer is true to its score and in order."""
    rows, matrix = held
    if allowed is not None:
        inside = np.isin(rows, allowed)
        rows, matrix = rows[inside], matrix[inside]
    ids_QK, scores_QK = index.search(QUERIES, LIMIT, allowed=allowed)
    assert (np.diff(scores_QK, axis=1) <= 0).all()
    for ids, scores, query in zip(ids_QK, scores_QK, QUERIES, strict=True):
        assert set(ids.tolist()) <= set(rows.tolist())
        np.testing.assert_allclose(scores, matrix[np.searchsorted(rows, ids)] @ query, atol=1e-5)
    return recall(ids_QK, [rows[truth(matrix, query, LIMIT)] for query in QUERIES])


def test_recall_of_the_base(base: Base) -> None:
    index = SegmentedIndex(DIM, base)
    assert (index.kind, index.exact, index.pending) == (base.kind, False, 0)
    assert reached(index, (ROWS, MATRIX)) >= 0.95


@pytest.mark.parametrize("share", [0.01, 0.3, 0.9])
def test_recall_under_a_filter(base: Base, share: float) -> None:
    allowed = ROWS[np.random.default_rng(3).random(NUM) < share]
    found = reached(SegmentedIndex(DIM, base), (ROWS, MATRIX), allowed)
    assert found == 1 if share == 0.01 else found >= 0.95


@pytest.mark.parametrize("share", [0.1, 0.5, 0.97])
def test_recall_when_much_is_removed(base: Base, share: float) -> None:
    index = SegmentedIndex(DIM, base)
    gone = np.random.default_rng(4).random(NUM) < share
    assert index.remove(ROWS[gone]) == gone.sum() == index.pending
    assert reached(index, (ROWS[~gone], MATRIX[~gone])) >= 0.95


def test_removed_rows_that_surround_the_query_do_not_hide_the_rest(base: Base) -> None:
    index = SegmentedIndex(DIM, base)
    near = truth(MATRIX, QUERIES[0], 700)
    index.remove(ROWS[near])
    ids_QK, _ = index.search(QUERIES[:1], LIMIT)
    left = np.setdiff1d(np.arange(NUM), near)
    expected = ROWS[left[truth(MATRIX[left], QUERIES[0], LIMIT)]]
    assert recall(ids_QK, [expected]) >= 0.8


def test_recall_with_a_delta_and_replaced_rows(base: Base) -> None:
    index = SegmentedIndex(DIM, base)
    fresh = clustered(500, seed=8)
    rows = np.concatenate([np.arange(400) * 2 + 11, ROWS[:100]])  # between others, and replacing
    index.add(rows, fresh)
    index.remove(ROWS[100:200])
    held = dict(zip(ROWS.tolist(), MATRIX, strict=True)) | dict(
        zip(rows.tolist(), fresh, strict=True)
    )
    for row in ROWS[100:200].tolist():
        del held[row]
    ordered = np.array(sorted(held))
    matrix = np.stack([held[row] for row in ordered.tolist()])
    assert index.rows().tolist() == ordered.tolist() and index.pending == 700
    assert (index.vectors_of(ordered) == matrix).all()
    assert reached(index, (ordered, matrix)) >= 0.95
    assert reached(index, (ordered, matrix), allowed=ordered[::2]) >= 0.95
    for allowed in (rows[:1], ROWS[150:151], ordered[::300]):
        here = np.intersect1d(allowed, ordered)
        ids_QK, _ = index.search(QUERIES[:1], LIMIT, allowed=allowed)
        assert set(ids_QK[0][ids_QK[0] >= 0].tolist()) <= set(here.tolist())


@pytest.mark.parametrize("kind", ["hnsw", "hnsw_sq8", "ivf_sq8", "ivf_fp16"])
def test_full_effort_finds_the_best_of_all(kind: str) -> None:
    ann = based(ROWS, MATRIX, kind, "fp32", Knobs(1, 1)).ann
    assert ann is not None
    for query in QUERIES:  # asked itself: of the base it would be a scan
        found = ann.search(query, 4 * LIMIT, effort=NUM)
        best = found[np.argsort(-(MATRIX[found] @ query))[:LIMIT]]
        assert set(best.tolist()) == set(truth(MATRIX, query, LIMIT).tolist())


class NeverAsked:
    """Stands where an Ann would take longer than a scan."""

    def search(self, *_: Any, **__: Any) -> Any:
        raise AssertionError("it was asked")


def test_what_takes_more_effort_than_a_scan_is_scanned(base: Base) -> None:
    """For so many neighbours: few enough as candidates, but not as what is kept in mind."""
    wanted = NUM // 16
    beside = replace(base, ann=NeverAsked(), knobs=Knobs(effort=48, refine=1))
    ids_QK, _ = SegmentedIndex(DIM, beside).search(QUERIES, wanted)
    assert [set(ids.tolist()) for ids in ids_QK] == [
        set(ROWS[truth(MATRIX, query, wanted)].tolist()) for query in QUERIES
    ]
    with pytest.raises(AssertionError, match="it was asked"):
        SegmentedIndex(DIM, beside).search(QUERIES, LIMIT)


def test_without_an_ann_the_base_is_scanned() -> None:
    index = SegmentedIndex(DIM, based(ROWS, MATRIX, "flat", "fp32", Knobs(1, 1)))
    assert (index.kind, index.exact) == ("flat", True)
    assert reached(index, (ROWS, MATRIX)) == 1


def test_without_a_base_it_is_flat() -> None:
    index = SegmentedIndex(DIM)
    assert (index.kind, index.exact, index.pending, len(index)) == ("flat", True, 0, 0)
    index.add(ROWS, MATRIX)
    assert index.pending == NUM and reached(index, (ROWS, MATRIX)) == 1


def test_vectors_of_rows_that_are_not_there(base: Base) -> None:
    index = SegmentedIndex(DIM, base)
    index.remove(ROWS[:1])
    for row in (ROWS[0], 11, 10**12):
        with pytest.raises(NotFound, match="1 of 2"):
            index.vectors_of(np.array([int(ROWS[1]), int(row)]))
    assert index.vectors_of(np.array([], dtype=np.int64)).shape == (0, DIM)


def test_saving_over_the_file_that_is_open(tmp_path: Path) -> None:
    index = SegmentedIndex(DIM)
    index.add(ROWS, MATRIX)
    index.save(tmp_path / "rows")
    loaded = SegmentedIndex.load(tmp_path / "rows")
    loaded.remove(ROWS[5:])
    loaded.save(tmp_path / "rows")
    assert len(SegmentedIndex.load(tmp_path / "rows")) == 5
    loaded.add(ROWS[:1], MATRIX[:1])
    assert len(loaded) == 5


def test_a_base_serves_two_indexes_apart(base: Base) -> None:
    one, other = SegmentedIndex(DIM, base), SegmentedIndex(DIM, base)
    one.remove(ROWS)
    assert (len(one), len(other)) == (0, NUM)
    assert one.search(QUERIES[:1], 3)[0].shape == (1, 0)
