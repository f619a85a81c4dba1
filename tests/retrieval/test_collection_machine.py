"""Any order of calls equals a dict and brute force, whatever is reopened or lost in between."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from triptych.encoders.vectors import CallerVectors
from triptych.errors import InvalidInput
from triptych.filters import matches, parse_filter
from triptych.index import INDEXES
from triptych.retrieval.collection import Collection
from triptych.types import Matrix

DIM = 6
# few ids and few vectors: replacement and exact ties are then frequent
NAMES = st.sampled_from([f"item {at}" for at in range(12)] + ["é", "\udcff", "a\0b", "new\nline"])
ITEMS = st.dictionaries(NAMES, st.tuples(st.integers(0, 6), st.text(max_size=3)), max_size=6)
LEAVES = st.one_of(
    st.builds(lambda note: {"note": note}, st.sampled_from(["", "a", "0"])),
    st.builds(
        lambda verb, at: {"at": {verb: at}},
        st.sampled_from(["$eq", "$ne", "$gt", "$gte", "$lt", "$lte"]),
        st.integers(0, 6),
    ),
    st.builds(
        lambda verb, ats: {"at": {verb: ats}},
        st.sampled_from(["$in", "$nin"]),
        st.lists(st.integers(0, 6), min_size=1, max_size=3),
    ),
    st.builds(lambda there: {"odd": {"$exists": there}}, st.booleans()),
)
FILTERS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.builds(lambda verb, parts: {verb: parts}, st.sampled_from(["$and", "$or"]),
                  st.lists(inner, min_size=1, max_size=3)),
        st.builds(lambda part: {"$not": part}, inner),
    ),
    max_leaves=4,
)  # fmt: skip


def pool() -> Matrix:
    matrix = np.random.default_rng(0).standard_normal((7, DIM))
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


def metadata(at: int, note: str) -> dict[str, Any]:
    return {"note": note, "at": at} | ({"odd": True} if at % 2 else {})


class CollectionMachine(RuleBasedStateMachine):
    @initialize(kind=st.sampled_from(["auto", "hnsw", *INDEXES.names()]))
    def start(self, kind: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.kind = kind
        self.stored: dict[str, tuple[int, str]] = {}
        self.open()

    def open(self) -> None:
        self.collection = self.opened()

    def opened(self) -> Collection:
        embedder = CallerVectors("machine", DIM)
        return Collection.open(self.folder, embedder=embedder, index=self.kind)

    def items(self, given: dict[str, tuple[int, str]]) -> list[dict[str, Any]]:
        return [
            {"id": id, "vector": pool()[at], "metadata": metadata(at, note)}
            for id, (at, note) in given.items()
        ]

    @rule(given=ITEMS)
    def upsert(self, given: dict[str, tuple[int, str]]) -> None:
        assert self.collection.upsert(self.items(given)) == len(given)
        self.stored |= given

    @rule(given=ITEMS)
    def add(self, given: dict[str, tuple[int, str]]) -> None:
        if self.stored.keys() & given:
            with pytest.raises(InvalidInput):
                self.collection.add(self.items(given))
        else:
            self.collection.add(self.items(given))
            self.stored |= given

    @rule(ids=st.lists(NAMES, max_size=5))
    def delete(self, ids: list[str]) -> None:
        gone = {id for id in ids if self.stored.pop(id, None) is not None}
        assert self.collection.delete(ids) == len(gone)

    def expected(self, at: int, filter: dict[str, Any] | None) -> list[tuple[str, float]]:
        """Return ids and cosines of all that match, best first, equal ones by id."""
        query_M, wanted = pool()[at].astype(float), parse_filter(filter)
        scored = [
            (id, float(np.float32(np.clip(pool()[other].astype(float) @ query_M, -1, 1))))
            for id, (other, note) in self.stored.items()
            if wanted is None or matches(wanted, metadata(other, note), "vector")
        ]
        return sorted(scored, key=lambda pair: (-pair[1], pair[0]))

    @rule(
        at=st.integers(0, 6),
        limit=st.integers(1, 20),
        offset=st.integers(0, 4),
        filter=st.none() | FILTERS,
        threshold=st.none() | st.floats(-1, 1),
    )
    def search(
        self, at: int, limit: int, offset: int, filter: dict[str, Any] | None,
        threshold: float | None,
    ) -> None:  # fmt: skip
        expected = self.expected(at, filter)[offset : offset + limit]
        if threshold is not None:
            # a score that is as good as equal may fall on either side
            threshold = next((-1.0 for _, s in expected if abs(s - threshold) < 1e-5), threshold)
            expected = [pair for pair in expected if pair[1] >= threshold]
        hits = self.collection.search(
            vector=pool()[at], limit=limit, offset=offset, filter=filter, threshold=threshold
        )
        assert [hit.id for hit in hits] == [id for id, _ in expected]
        np.testing.assert_allclose([h.score for h in hits], [s for _, s in expected], atol=1e-6)
        assert all(hit.metadata == metadata(*self.stored[hit.id]) for hit in hits)

    @rule(filter=FILTERS)
    def count(self, filter: dict[str, Any]) -> None:
        assert self.collection.count(filter) == len(self.expected(0, filter))

    @rule(filter=st.none() | FILTERS)
    def facets(self, filter: dict[str, Any] | None) -> None:
        values = [self.stored[id][0] for id, _ in self.expected(0, filter)]
        found = dict(self.collection.facets("at", filter=filter)["at"])
        assert found == {value: values.count(value) for value in set(values)}

    @rule(at=st.integers(0, 6))
    def search_like_a_stored_one(self, at: int) -> None:
        same = sorted(id for id, (other, _) in self.stored.items() if other == at)
        if same:
            hits = self.collection.search(like=same[0], limit=30)
            assert [h.id for h in hits] == [
                id for id, _ in self.expected(at, None) if id != same[0]
            ]

    @rule(at=st.integers(0, 6))
    def another_reads_along(self, at: int) -> None:
        with self.opened() as other:
            found = [hit.id for hit in other.search(vector=pool()[at], limit=30)]
        assert found == [id for id, _ in self.expected(at, None)]

    @rule(ids=st.lists(NAMES, max_size=4))
    def get(self, ids: list[str]) -> None:
        found = self.collection.get(ids)
        assert [record and record.metadata["note"] for record in found] == [
            self.stored[id][1] if id in self.stored else None for id in ids
        ]

    @rule()
    def reopen(self) -> None:
        self.collection.close()
        self.open()

    @rule()
    def reopen_without_the_index(self) -> None:
        self.collection.close()
        shutil.rmtree(self.folder / "index", ignore_errors=True)
        self.open()

    @rule()
    def compact(self) -> None:
        self.collection.compact()

    @invariant()
    def counts_agree(self) -> None:
        if hasattr(self, "collection"):
            assert self.collection.count() == len(self.stored)
            assert self.collection._live.rows().tolist() == (self.collection._store.rows().tolist())

    def teardown(self) -> None:
        if hasattr(self, "collection"):
            self.collection.close()
            shutil.rmtree(self.folder)


@pytest.mark.slow
def test_any_order_of_calls_equals_the_model(pytestconfig: pytest.Config) -> None:
    run_state_machine_as_test(
        CollectionMachine,
        settings=settings(
            max_examples=pytestconfig.getoption("examples"),
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
