"""Any order of calls equals a dict and brute force, whatever is reopened or lost in between."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from triptych.encoders.vectors import CallerVectors
from triptych.errors import InvalidInput
from triptych.index import INDEXES
from triptych.retrieval.collection import Collection
from triptych.types import Matrix

DIM = 6
# few ids and few vectors: replacement and exact ties are then frequent
NAMES = st.sampled_from([f"item {at}" for at in range(12)] + ["é", "\udcff", "a\0b", "new\nline"])
ITEMS = st.dictionaries(NAMES, st.tuples(st.integers(0, 6), st.text(max_size=3)), max_size=6)


def pool() -> Matrix:
    matrix = np.random.default_rng(0).standard_normal((7, DIM))
    return (matrix / np.linalg.norm(matrix, axis=1, keepdims=True)).astype(np.float32)


class CollectionMachine(RuleBasedStateMachine):
    @initialize(kind=st.sampled_from(INDEXES.names()))
    def start(self, kind: str) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.kind = kind
        self.stored: dict[str, tuple[int, str]] = {}
        self.open()

    def open(self) -> None:
        self.collection = Collection.open(
            self.folder, embedder=CallerVectors("machine", DIM), index=self.kind
        )

    def items(self, given: dict[str, tuple[int, str]]) -> list[dict[str, Any]]:
        return [
            {"id": id, "vector": pool()[at], "metadata": {"note": note}}
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

    @rule(at=st.integers(0, 6), limit=st.integers(1, 20), offset=st.integers(0, 4))
    def search(self, at: int, limit: int, offset: int) -> None:
        query = pool()[at].astype(float)
        scored = [
            (id, float(np.float32(np.clip(pool()[at].astype(float) @ query, -1, 1))))
            for id, (at, _) in self.stored.items()
        ]
        expected = sorted(scored, key=lambda pair: (-pair[1], pair[0]))[offset : offset + limit]
        hits = self.collection.search(vector=pool()[at], limit=limit, offset=offset)
        assert [hit.id for hit in hits] == [id for id, _ in expected]
        np.testing.assert_allclose([h.score for h in hits], [s for _, s in expected], atol=1e-6)
        assert all(hit.metadata == {"note": self.stored[hit.id][1]} for hit in hits)

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


TestCollectionMachine = pytest.mark.slow(CollectionMachine.TestCase)
TestCollectionMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
