"""Vectors of another model beside those in use, and the moment when they take over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from triptych.errors import InvalidInput, NotFound
from triptych.index.sqlite.meta import Space
from triptych.index.sqlite.records import Entry
from triptych.index.sqlite.store import Store
from triptych.types import Matrix

OLD, NEW = 4, 6


def units(count: int, dim: int, seed: int = 0) -> Matrix:
    vectors_NM = np.random.default_rng(seed).standard_normal((count, dim))
    vectors_NM /= np.linalg.norm(vectors_NM, axis=1, keepdims=True)
    return vectors_NM.astype(np.float32)


def entries(count: int, dim: int, prefix: str = "i", seed: int = 0) -> list[Entry]:
    return [
        Entry(id=f"{prefix}{at}", modality="vector", vector=vector)
        for at, vector in enumerate(units(count, dim, seed))
    ]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "store.sqlite", model="old", fingerprint="o", dim=OLD)
    store.write(entries(50, OLD), replace=False)
    yield store
    store.close()


def begin(store: Store) -> Space:
    return store.begin_space(model="new", fingerprint="n", dim=NEW, precision="fp16")


def fill(store: Store, space: Space) -> None:
    after = 0
    while len(rows := store.missing(space, after, limit=16)):
        store.put_vectors(space, rows, units(len(rows), NEW, seed=int(rows[0])))
        after = int(rows[-1])


def test_a_space_is_filled_while_the_other_is_in_use(store: Store) -> None:
    space = begin(store)
    assert begin(store) == space and [one.model for one in store.spaces()] == ["old", "new"]
    assert store.missing(space, 10, limit=5).tolist() == [11, 12, 13, 14, 15]
    store.put_vectors(space, np.array([1, 2, 999]), units(3, NEW))
    assert store.missing(space, 0, limit=2).tolist() == [3, 4]
    store.delete(["i0", "i5"])
    store.write(entries(3, OLD, "later"), replace=False)
    before = store.sequence
    fill(store, space)
    assert store.sequence == before and store.meta.model == "old"
    assert store.load(store.rows()).vectors_NM.shape == (51, OLD)
    assert store.check() == []


def test_the_switch_waits_for_every_vector_and_reloads_every_reader(
    store: Store, tmp_path: Path
) -> None:
    reader = Store.open(tmp_path / "store.sqlite", model="old", fingerprint="o", dim=OLD)
    store.delete(["i3"])
    space = begin(store)
    with pytest.raises(InvalidInput, match="49 items have no vector of new yet"):
        store.switch(space)
    fill(store, space)
    last = store.missing(space, 0, 1)
    assert not len(last)
    before = store.sequence
    store.switch(space)
    for one in (store, reader):
        assert one.sequence == before + 1 and one.changes(before, 50) is None
        assert one.refreshed_meta().fingerprint == "n"
        assert (one.meta.dim, one.meta.precision, one.meta.space) == (NEW, "fp16", space.space)
        loaded = one.load(one.rows())
        assert loaded.vectors_NM.shape == (49, NEW) and not loaded.damaged
        assert one.changes(before + 1, 50) is not None
    with pytest.raises(InvalidInput, match="in use"):
        store.drop_space(space)
    old = store.spaces()[0]
    store.drop_space(old)
    assert store.spaces() == [space] and store.check() == []
    change = store.write(entries(1, NEW, "n"), replace=False)
    assert change.vectors_NM.shape == (1, NEW)
    reader.close()


def test_a_space_that_was_dropped_meanwhile_is_no_damage(store: Store) -> None:
    space = begin(store)
    store.drop_space(space)
    with pytest.raises(NotFound, match=r"number 2 are gone\. Run the migration again"):
        store.missing(space)


def test_a_read_that_began_before_the_switch_ends_as_it_began(store: Store) -> None:
    space = begin(store)
    fill(store, space)
    with store.view() as view, store.reading():
        assert store.sequence == 1
        # a transaction of the connection that writes, as another thread would do it
        store.switch(space)
        store.drop_space(store.spaces()[0])
        assert store.load(store.rows()).vectors_NM.shape == (50, OLD)
        assert sum(len(part.vectors_NM) for part in view.chunks(20)) == 50
    assert store.load(store.rows()).vectors_NM.shape == (50, NEW)


def test_a_wrong_width_and_an_empty_stores_model(store: Store) -> None:
    space = begin(store)
    with pytest.raises(InvalidInput, match=r"shape \(1, 4\), expected \(n, 6\)"):
        store.put_vectors(space, np.array([1]), units(1, OLD))
    with pytest.raises(InvalidInput, match="Only an empty"):
        store.adopt(model="x", fingerprint="x", dim=3)
    store.drop_space(space)
    store.delete([f"i{at}" for at in range(50)])
    store.adopt(model="x", fingerprint="x", dim=3, precision="fp16")
    assert (store.meta.model, store.meta.dim, store.meta.precision) == ("x", 3, "fp16")
    assert store.write(entries(2, 3), replace=False).vectors_NM.shape == (2, 3)
