"""The store against a dict; who follows its changes against who loads it anew."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.index.small_store import DIM, entry, open_store
from triptych.errors import InvalidInput
from triptych.index.sqlite.reader import Change
from triptych.index.sqlite.records import DEEPEST, LONGEST_ID, Entry
from triptych.index.sqlite.store import Store
from triptych.types import Precision

IDS = st.sampled_from(["a", "b", "c", "é", "\udce9", "x\0y", " "])
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
)
TEXTS = st.text(st.characters(exclude_categories=[]), max_size=8)
METADATA = st.dictionaries(
    TEXTS,
    st.recursive(
        SCALARS | TEXTS,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=3,
)


class Follower:
    """What an index keeps: rows and vectors, and how far it is."""

    def __init__(self) -> None:
        self.sequence = self.last_row = 0
        self.vectors: dict[int, list[float]] = {}

    def follow(self, store: Store) -> None:
        change = store.changes(self.sequence, self.last_row)
        if change is None:
            self.__init__()  # type: ignore[misc]
            with store.view() as view:
                for part in view.chunks(size=2):
                    self._add(part.rows_N, part.vectors_NM)
                self.sequence, self.last_row = view.sequence, view.last_row
        else:
            self.apply(change)

    def apply(self, change: Change) -> None:
        assert not change.damaged
        for row in change.removed_N.tolist():
            self.vectors.pop(row, None)
        self._add(change.added_N, change.vectors_NM)
        self.sequence, self.last_row = change.sequence, change.last_row

    def _add(self, rows_N: Any, vectors_NM: Any) -> None:
        self.vectors.update(zip(rows_N.tolist(), vectors_NM.tolist(), strict=True))


class StoreMachine(RuleBasedStateMachine):
    @initialize(precision=st.sampled_from(["fp32", "fp16"]), in_memory=st.booleans())
    def begin(self, precision: Precision, in_memory: bool) -> None:
        self.folder = TemporaryDirectory()
        self.path = None if in_memory else Path(self.folder.name) / "store.sqlite"
        self.precision = precision
        self.store = open_store(self.path, precision)
        self.model: dict[str, Entry] = {}
        self.every_time, self.sometimes = Follower(), Follower()

    @rule(
        given=st.lists(st.tuples(IDS, METADATA, st.none() | TEXTS), min_size=1, max_size=4),
        replace=st.booleans(),
        seed=st.integers(0, 9),
    )
    def write(self, given: list[Any], replace: bool, seed: int) -> None:
        entries = [
            entry(id, seed=seed + at, metadata=metadata, text=text, thumbnail=b"j" * seed or None)
            for at, (id, metadata, text) in enumerate(given)
        ]
        names = [one.id for one in entries]
        if not replace and (len(set(names)) < len(names) or set(names) & set(self.model)):
            with pytest.raises(InvalidInput):
                self.store.write(entries, replace=False)
            return
        self.every_time.apply(self.store.write(entries, replace=replace))
        self.model |= {one.id: one for one in entries}

    @rule(ids=st.lists(IDS, max_size=3))
    def delete(self, ids: list[str]) -> None:
        before = self.store.sequence
        change = self.store.delete(ids)
        assert change.sequence - before == bool(len(change.removed_N))
        assert len(change.removed_N) == len(set(ids) & set(self.model))
        for id in ids:
            self.model.pop(id, None)
        self.every_time.apply(change)

    @rule()
    def follow(self) -> None:
        self.sometimes.follow(self.store)
        assert self.sometimes.vectors == self.every_time.vectors
        assert self.sometimes.sequence == self.store.sequence

    @rule(back=st.integers(0, 3))
    def forget(self, back: int) -> None:
        self.store.forget(max(0, self.store.sequence - back))

    @rule()
    def compact(self) -> None:
        self.store.compact()

    @rule()
    def reopen(self) -> None:
        if self.path is not None:
            self.store.close()
            self.store = open_store(self.path)

    @invariant()
    def the_store_is_the_model(self) -> None:
        store = self.store
        assert len(store) == len(self.model)
        ids = sorted(self.model)
        records = store.records_of([*ids, "nobody"])
        assert sorted(records) == ids
        for id, one in self.model.items():
            assert records[id].text == one.text and records[id].modality == one.modality
            assert store.thumbnail(id) == one.thumbnail
        rows = store.rows_of(ids)
        assert store.ids_of(list(rows.values())) == {row: id for id, row in rows.items()}
        assert store.contents(ids) == dict.fromkeys(ids)
        loaded = store.load(store.rows())
        held = dict(zip(loaded.rows_N.tolist(), loaded.vectors_NM.tolist(), strict=True))
        assert held == self.every_time.vectors and sorted(held) == sorted(rows.values())
        again = [record.id for record in store.records(list(rows.values()))[0]]
        assert again == ids
        assert store.check() == []

    def teardown(self) -> None:
        self.store.close()
        self.folder.cleanup()


StoreMachine.TestCase.settings = settings(
    max_examples=25,
    stateful_step_count=15,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
test_store_machine = StoreMachine.TestCase


@settings(max_examples=60, deadline=None)
@given(metadata=METADATA)
def test_metadata_come_back_as_json_gives_them(metadata: dict[str, Any]) -> None:
    store = open_store(None)
    store.write([entry("a", metadata=metadata)], replace=False)
    found = store.records_of(["a"])["a"].metadata
    assert found == json.loads(json.dumps(metadata))
    assert store.check() == []
    store.close()


def test_numbers_beyond_64_bits_survive() -> None:
    store = open_store(None)
    numbers = {"huge": 10**400, "least": -(2**63) - 1, "edge": 2**63, "tiny": 5e-324}
    store.write([entry("a", metadata=numbers)], replace=False)
    assert store.records_of(["a"])["a"].metadata == numbers
    store.close()


def nested(depth: int) -> dict[str, Any]:
    value: Any = 1
    for at in range(depth - 1):
        value = [value] if at % 2 else {"k": value}
    return {"k": value}


@pytest.mark.parametrize("depth", [DEEPEST + 1, 900, 100_000])
def test_deep_metadata_are_refused_by_name(depth: int) -> None:
    store = open_store(None)
    store.write([entry("a", metadata=nested(DEEPEST))], replace=False)
    with pytest.raises(InvalidInput, match=r"metadata of 'b'.*deep"):
        store.write([entry("b", metadata=nested(depth))], replace=False)
    assert len(store) == 1
    store.close()


def test_ids_have_a_length() -> None:
    store = open_store(None)
    store.write([entry("é" * (LONGEST_ID // 2))], replace=False)
    for id in ("", "x" * (LONGEST_ID + 1), "é" * LONGEST_ID):
        with pytest.raises(InvalidInput, match=r"1 to 10,000 bytes, got '"):
            store.write([entry(id)], replace=False)
    assert len(store) == 1
    store.close()


@pytest.mark.parametrize("shape", [(DIM + 1,), (1, DIM), ()])
def test_a_vector_of_another_shape_is_refused_by_name(shape: tuple[int, ...]) -> None:
    store = open_store(None)
    bad = Entry(id="bad", modality="vector", vector=np.ones(shape, dtype=np.float32))
    with pytest.raises(InvalidInput, match=r"'bad' has the shape"):
        store.write([entry("a"), bad], replace=False)
    assert len(store) == 0
    store.close()


def test_what_half_precision_stores_is_the_same_everywhere(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store.sqlite", "fp16")
    given = [entry(str(at), seed=at) for at in range(200)]
    change = store.write(given, replace=False)
    assert store.meta.precision == "fp16" and change.vectors_NM.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(change.vectors_NM, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(change.vectors_NM, [one.vector for one in given], atol=1e-3)
    alone = np.concatenate([store.load(np.array([row])).vectors_NM for row in change.added_N])
    replayed = store.changes(0, 0)
    assert replayed is not None
    for other_NM in (store.load(store.rows()).vectors_NM, alone, replayed.vectors_NM):
        assert (other_NM == change.vectors_NM).all()
    # written again, as a repair or a copy does, nothing moves
    again = [
        Entry(id=one.id, modality="text", vector=vector)
        for one, vector in zip(given, change.vectors_NM, strict=True)
    ]
    assert (store.write(again, replace=True).vectors_NM == change.vectors_NM).all()
    store.close()


def test_changes_that_cannot_be_replayed_are_none() -> None:
    store = open_store(None)
    for seed in range(4):
        store.write([entry("a", seed=seed)], replace=True)
    assert store.changes(5, 4) is None and store.changes(4, 9) is None
    replayed = store.changes(2, 2)
    assert replayed is not None
    assert (replayed.added_N.tolist(), replayed.removed_N.tolist()) == ([4], [2])
    store.forget(3)
    assert store.changes(2, 2) is None and store.changes(3, 3) is not None
    store.close()


READ = """
import sys
from pathlib import Path
from triptych.index.sqlite.store import Store
store = Store.open(Path(sys.argv[1]), model="m", fingerprint="f" * 64, dim=8)
print(len(store), flush=True)
for line in sys.stdin:
    print(len(store), store.sequence, len(store.records_of(line.split())), flush=True)
"""


def test_another_process_reads_what_was_written_at_once(tmp_path: Path) -> None:
    path = tmp_path / "store.sqlite"
    store = open_store(path)
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", READ, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for reader in readers:
        assert reader.stdout is not None and reader.stdout.readline() == "0\n"
    for at in range(50):
        store.write([entry(f"i{at}", seed=at)], replace=False)
        if at % 10 == 5:
            store.delete([f"i{at}"])
            store.compact()
        for reader in readers:
            assert reader.stdin is not None and reader.stdout is not None
            print(f"i{at}", file=reader.stdin, flush=True)
            expected = f"{len(store)} {store.sequence} {0 if at % 10 == 5 else 1}\n"
            assert reader.stdout.readline() == expected
    for reader in readers:
        reader.communicate()
        assert reader.returncode == 0
    store.close()
