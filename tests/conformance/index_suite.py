"""One suite for every kind of index, measured against brute force in float64: ids, order, scores."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from triptych.errors import CollectionDamaged, InvalidInput
from triptych.index.base import VectorIndex

DIM = 8


def vectors(num: int, *, seed: int = 0, dim: int = DIM) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).standard_normal((num, dim)).astype(np.float32)


def unit(vectors_NM: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    wide = np.asarray(vectors_NM, dtype=np.float64)
    # the contract: unit rows in float32, so that a tie is a tie on both sides
    return (wide / np.linalg.norm(wide, axis=1, keepdims=True)).astype(np.float32).astype(float)


def oracle(stored: dict[int, Any], query_M: Any, k: int, allowed: Any = None) -> list[Any]:
    """Return (row, cosine), best first, ties by row: the definition, written slowly."""
    rows = [row for row in sorted(stored) if allowed is None or row in set(allowed)]
    query = unit(np.asarray(query_M)[None])[0]
    scored = [(row, float(np.float32(unit(stored[row][None])[0] @ query))) for row in rows]
    return sorted(scored, key=lambda pair: (-pair[1], pair[0]))[:k]


def assert_agrees(
    index: VectorIndex, stored: dict[int, Any], query: Any, k: int, **kw: Any
) -> None:
    kept = getattr(index, "kept", np.asarray)  # an index of halves keeps halves
    expected = oracle({r: kept(v) for r, v in stored.items()}, query, k, kw.get("allowed"))
    ids_QK, scores_QK = index.search(np.asarray(query)[None], k, **kw)
    assert ids_QK.dtype == np.int64 and scores_QK.dtype == np.float32
    assert ids_QK.shape == scores_QK.shape == (1, min(k, len(stored)))
    found = len(expected)
    assert ids_QK[0, :found].tolist() == [row for row, _ in expected]
    np.testing.assert_allclose(scores_QK[0, :found], [score for _, score in expected], atol=2e-6)
    assert (ids_QK[0, found:] == -1).all() and np.isneginf(scores_QK[0, found:]).all()


class IndexSuite:
    """Subclasses set `make`."""

    @pytest.fixture
    def index(self) -> VectorIndex:
        raise NotImplementedError

    @pytest.fixture
    def filled(self, index: VectorIndex) -> tuple[VectorIndex, dict[int, Any]]:
        matrix = vectors(300)
        rows = np.arange(300) * 7 + 3
        index.add(rows, matrix)
        return index, dict(zip(rows.tolist(), matrix, strict=True))

    def test_obeys_the_protocol(self, index: VectorIndex) -> None:
        assert isinstance(index, VectorIndex)
        assert index.dim == DIM and len(index) == 0 and index.rows().tolist() == []

    @pytest.mark.parametrize("k", [1, 5, 299, 300, 301])
    def test_agrees_with_brute_force(self, filled: Any, k: int) -> None:
        for query in vectors(20, seed=1):
            assert_agrees(*filled, query, k)

    def test_many_queries_answer_as_one_alone(self, filled: Any) -> None:
        index, _ = filled
        queries = vectors(9, seed=2)
        ids_QK, scores_QK = index.search(queries, 10)
        for at, query in enumerate(queries):
            ids_1K, scores_1K = index.search(query[None], 10)
            assert (ids_QK[at] == ids_1K[0]).all() and (scores_QK[at] == scores_1K[0]).all()

    def test_equal_vectors_come_by_row_even_at_the_cut(self, index: VectorIndex) -> None:
        same = np.tile(vectors(1), (500, 1))
        order = np.random.default_rng(3).permutation(500)
        index.add(order, same)
        for k in (1, 3, 100):
            ids_QK, scores_QK = index.search(same[:1], k)
            assert ids_QK[0].tolist() == list(range(k))
            assert len(set(scores_QK[0].tolist())) == 1

    def test_allowed_restricts(self, filled: Any) -> None:
        index, stored = filled
        some = np.array([*list(stored)[::9], 999_999])
        for query in vectors(5, seed=4):
            assert_agrees(index, stored, query, 4, allowed=some)
            assert_agrees(index, stored, query, 300, allowed=some)
        assert_agrees(index, stored, vectors(1)[0], 3, allowed=np.array([], dtype=np.int64))
        assert_agrees(index, stored, vectors(1)[0], 3, allowed=np.array([1]))

    def test_add_replaces(self, filled: Any) -> None:
        index, stored = filled
        fresh = vectors(2, seed=5)
        index.add(np.array([3, 10]), fresh)
        stored |= {3: fresh[0], 10: fresh[1]}
        assert len(index) == 300
        assert_agrees(index, stored, fresh[0], 5)

    def test_of_a_row_given_twice_the_last_stays(self, index: VectorIndex) -> None:
        matrix = vectors(3)
        index.add(np.array([5, 6, 5]), matrix)
        assert len(index) == 2
        assert_agrees(index, {5: matrix[2], 6: matrix[1]}, matrix[0], 2)

    def test_remove_counts_what_was_there(self, filled: Any) -> None:
        index, stored = filled
        assert index.remove(np.array([3, 4, 10, 3])) == 2
        assert index.remove(np.array([], dtype=np.int64)) == 0
        del stored[3], stored[10]
        assert index.rows().tolist() == sorted(stored)
        assert_agrees(index, stored, vectors(1, seed=6)[0], 298)

    def test_an_empty_index_finds_nothing(self, index: VectorIndex) -> None:
        ids_QK, scores_QK = index.search(vectors(2), 10)
        assert ids_QK.shape == scores_QK.shape == (2, 0)
        index.add(np.array([], dtype=np.int64), np.empty((0, DIM)))
        assert len(index) == 0

    def test_a_huge_k_allocates_nothing(self, filled: Any) -> None:
        index, _ = filled
        ids_QK, _ = index.search(vectors(1), 1_000_000_000)
        assert ids_QK.shape == (1, 300)

    @pytest.mark.parametrize("k", [0, -1, 1.5, "3", None])
    def test_refuses_an_unusable_k(self, filled: Any, k: Any) -> None:
        with pytest.raises(InvalidInput, match="k is"):
            filled[0].search(vectors(1), k)

    @pytest.mark.parametrize(
        "bad",
        [
            np.full((1, DIM), np.nan),
            np.full((1, DIM), np.inf),
            np.zeros((1, DIM)),
            np.ones((1, DIM + 1)),
            np.ones(DIM),
            np.ones((1, DIM)) * 1j,
            np.array([["a"] * DIM]),
        ],
        ids=["nan", "inf", "zero", "dim", "rank", "complex", "text"],
    )
    def test_refuses_unusable_vectors(self, index: VectorIndex, bad: Any) -> None:
        with pytest.raises(InvalidInput, match=r"(?i)vector"):
            index.add(np.array([1]), bad)
        with pytest.raises(InvalidInput, match=r"(?i)vector"):
            index.search(bad, 1)
        assert len(index) == 0

    @pytest.mark.parametrize("scale", [1e-20, 1e-5, 1.0, 1e38])
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
    def test_takes_any_scale_and_type(self, index: VectorIndex, scale: float, dtype: Any) -> None:
        with np.errstate(over="ignore"):
            matrix = (vectors(5) * 100 if dtype == np.int64 else vectors(5) * scale).astype(dtype)
        if not np.isfinite(matrix.astype(np.float64)).all() or not matrix.any(axis=1).all():
            pytest.skip("this type cannot hold this scale")
        index.add(np.arange(5), np.asfortranarray(matrix))
        assert_agrees(index, dict(enumerate(matrix.astype(np.float64))), matrix[2], 5)

    def test_refuses_bad_rows(self, index: VectorIndex) -> None:
        with pytest.raises(InvalidInput, match="expected"):
            index.add(np.array([1, 2]), vectors(1))
        with pytest.raises(InvalidInput, match="0 or more"):
            index.add(np.array([-1]), vectors(1))

    def test_caller_keeps_its_arrays(self, index: VectorIndex) -> None:
        matrix, rows = vectors(4), np.arange(4)
        before = matrix.copy()
        index.add(rows, matrix)
        index.search(matrix, 2)
        assert (matrix == before).all() and (rows == np.arange(4)).all()

    def test_saved_and_loaded_answers_alike(self, filled: Any, tmp_path: Path) -> None:
        index, _ = filled
        index.remove(np.array([3]))
        index.save(tmp_path / "an index é")
        loaded = type(index).load(tmp_path / "an index é")
        assert loaded.dim == DIM and len(loaded) == 299
        for ours, theirs in zip(
            index.search(vectors(5, seed=7), 50), loaded.search(vectors(5, seed=7), 50), strict=True
        ):
            assert (ours == theirs).all()
        loaded.add(np.array([3]), vectors(1))
        assert len(loaded) == 300

    @pytest.mark.parametrize("damage", ["missing", "empty", "text", "half"])
    def test_refuses_to_load_damage(self, filled: Any, tmp_path: Path, damage: str) -> None:
        index, _ = filled
        path = tmp_path / "index"
        if damage != "missing":
            index.save(path)
            whole = path.read_bytes()
            content = {"empty": b"", "text": b"<html>", "half": whole[: len(whole) // 2]}
            path.write_bytes(content[damage])
        with pytest.raises(CollectionDamaged, match="index"):
            type(index).load(path)

    @pytest.mark.parametrize("dim", [0, -3, 10_000_000])
    def test_refuses_an_unusable_dim(self, index: VectorIndex, dim: int) -> None:
        with pytest.raises(InvalidInput, match="dimensions"):
            type(index)(dim)


class IndexMachine(RuleBasedStateMachine):
    """Any order of add, remove, search, save and load equals a dict."""

    make: Any
    at_first: int

    @initialize()
    def start(self) -> None:
        self.index: VectorIndex = self.make(DIM)
        self.stored: dict[int, Any] = {}
        self.add(list(range(self.at_first)), seed=6)

    # a small pool makes exact ties and replaced rows frequent
    @rule(rows=st.lists(st.integers(0, 30), max_size=8), seed=st.integers(0, 5))
    def add(self, rows: list[int], seed: int) -> None:
        matrix = vectors(len(rows), seed=seed)
        self.index.add(np.array(rows, dtype=np.int64), matrix)
        self.stored |= dict(zip(rows, matrix, strict=True))

    @rule(rows=st.lists(st.integers(0, 30), max_size=8))
    def remove(self, rows: list[int]) -> None:
        gone = {row for row in rows if self.stored.pop(row, None) is not None}
        assert self.index.remove(np.array(rows, dtype=np.int64)) == len(gone)

    @rule(
        seed=st.integers(0, 5),
        k=st.integers(1, 40),
        allowed=st.none() | st.lists(st.integers(0, 30), max_size=20),
    )
    def search(self, seed: int, k: int, allowed: list[int] | None) -> None:
        rows = None if allowed is None else np.array(allowed, dtype=np.int64)
        assert_agrees(self.index, self.stored, vectors(1, seed=seed)[0], k, allowed=rows)

    @rule()
    def reopen(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            self.index.save(Path(folder) / "index")
            self.index = type(self.index).load(Path(folder) / "index")

    @invariant()
    def holds_the_same_rows(self) -> None:
        if hasattr(self, "index"):
            assert self.index.rows().tolist() == sorted(self.stored)


def run_machine(make: Any, *, at_first: int = 0) -> None:
    fields = {"make": staticmethod(make), "at_first": at_first}
    machine = type("Machine", (IndexMachine,), fields)
    run_state_machine_as_test(
        machine, settings=settings(max_examples=40, stateful_step_count=25, deadline=None)
    )
