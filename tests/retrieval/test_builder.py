"""The index is built in the background, and is never what makes an answer wrong."""

from __future__ import annotations

import os
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.retrieval.fakes import unit_vectors
from triptych.encoders.hashing import HashingEncoder
from triptych.encoders.vectors import CallerVectors
from triptych.errors import InvalidInput
from triptych.index.plan import Budget
from triptych.index.segments import Base
from triptych.index.snapshot import Snapshots, Staged
from triptych.index.tuning import fit
from triptych.retrieval.collection import Collection
from triptych.retrieval.maintenance.migrate import migrate
from triptych.retrieval.maintenance.verify import verify

DIM = 16
VECTOR = unit_vectors(1, dim=DIM)[0]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands are many here."""
    monkeypatch.setattr("triptych.index.plan._SMALL", 1_000)
    monkeypatch.setattr("triptych.retrieval.builder._QUIET", 0.1)

    def insisting(base: Base, recall: float, **options: Any) -> Any:
        # of so few vectors a scan is often faster than a graph, under a tracer always
        return fit(base, recall, **{**options, "insist": True})

    monkeypatch.setattr("triptych.retrieval.builder.fit", insisting)


def open_own(path: Path, **options: Any) -> Collection:
    return Collection.open(path, embedder=CallerVectors("mine", DIM), **options)


def with_vectors(num: int, *, seed: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": f"{seed}-{at:05}", "vector": vector}
        for at, vector in enumerate(unit_vectors(num, dim=DIM, seed=seed))
    ]


def wait_for(collection: Collection, kind: str) -> None:
    until = time.monotonic() + 60  # where other work leaves it little of a core
    while not collection.info()["index"].startswith(kind):
        assert time.monotonic() < until, collection.info()
        time.sleep(0.05)


def recall(collection: Collection, vectors_NM: Any) -> float:
    found = 0
    for query in unit_vectors(50, dim=DIM, seed=9):
        best = set(np.argsort(-(vectors_NM @ query))[:10].tolist())
        found += len(best & {int(hit.id[2:]) for hit in collection.search(vector=query)})
    return found / 500


def test_a_growing_collection_gets_a_graph_by_itself(tmp_path: Path) -> None:
    items = with_vectors(3_000)
    with open_own(tmp_path) as collection:
        collection.add(items[:900])
        assert collection.info()["index"] == "flat"
        collection.add(items[900:])
        assert len(collection.search(vector=items[5]["vector"])) == 10, "answers while it is built"
        wait_for(collection, "hnsw")
        info = collection.info()
        assert info["recall@10"] >= 0.97 and info["pending"] == 0
        assert recall(collection, unit_vectors(3_000, dim=DIM)) >= 0.97
        collection.delete([item["id"] for item in items[:100]])
        collection.add(with_vectors(50, seed=1))
        assert collection.info()["pending"] == 150
    with open_own(tmp_path) as collection:
        assert collection.info()["index"].startswith("hnsw") and collection.info()["pending"] == 150


def test_what_is_written_during_a_build_is_kept(tmp_path: Path) -> None:
    with open_own(tmp_path, index="hnsw") as collection:
        collection.add(with_vectors(2_000))
        for seed in range(1, 20):
            more = with_vectors(40, seed=seed)
            collection.add(more)
            collection.delete([more[0]["id"]])
            if seed == 10:
                collection.compact()
            found = [collection.search(vector=item["vector"], limit=1)[0].id for item in more[1:9]]
            assert found == [item["id"] for item in more[1:9]]
        assert collection.count() == 2_000 + 19 * 39


def test_closing_does_not_wait_for_a_graph(tmp_path: Path) -> None:
    with open_own(tmp_path) as collection:
        collection.add(with_vectors(3_000))
    with open_own(tmp_path) as collection:
        assert collection.info()["index"] == "flat" and collection.info()["pending"] == 0
        collection.optimize()
        assert collection.info()["index"].startswith("hnsw")


def test_the_memory_decides(tmp_path: Path) -> None:
    tight = Budget.parse(0.9, "100KB")
    with open_own(tmp_path, budget=tight) as collection:
        collection.add(with_vectors(5_000))
        collection.optimize()
        info = collection.info()
        assert info["index"].startswith("ivf_") and info["recall@10"] >= 0.9


def test_a_recall_of_one_is_exact(tmp_path: Path) -> None:
    with open_own(tmp_path, budget=Budget.parse(1, None)) as collection:
        collection.add(with_vectors(2_000))
        collection.optimize()
        assert collection.info()["index"] == "flat"
        assert recall(collection, unit_vectors(2_000, dim=DIM)) == 1


def test_half_precision_takes_half_the_room(tmp_path: Path) -> None:
    sizes = {}
    for precision in ("fp32", "fp16"):
        with open_own(tmp_path / precision, precision=precision) as collection:
            collection.add(with_vectors(2_000))
            hit = collection.search(vector=unit_vectors(1, dim=DIM)[0], limit=1)[0]
            assert hit.id == "0-00000" and hit.score == pytest.approx(1, abs=1e-3)
            collection.compact()
        folder = next((tmp_path / precision / "index").glob("*/rows"))
        sizes[precision] = folder.stat().st_size
    assert sizes["fp16"] < 0.75 * sizes["fp32"]
    with pytest.raises(InvalidInput, match="fp32 or fp16"):
        open_own(tmp_path / "other", precision="int4")


def test_a_large_collection_without_an_index_is_read_by_way_of_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_own(tmp_path / "c") as collection:
        collection.add(with_vectors(900))
        collection.delete(["0-00007"])
        expected = [collection.search(vector=v) for v in unit_vectors(5, dim=DIM, seed=3)]
    shutil.rmtree(tmp_path / "c" / "index")
    monkeypatch.setattr("triptych.retrieval.live._MANY", 100)
    with open_own(tmp_path / "c") as collection:
        assert [collection.search(vector=v) for v in unit_vectors(5, dim=DIM, seed=3)] == expected
        assert list((tmp_path / "c" / "index").iterdir()) == []
        collection.add(with_vectors(5, seed=1))
        collection.delete(["0-00008"])
        assert collection.count() == 903 == len(collection.search(vector=VECTOR, limit=9_999))


def test_whoever_holds_a_lock_has_the_common_priority(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A polite thread with Python's lock, or the writers', lets them wait for all others."""
    build, publish = Snapshots.build, Snapshots.publish
    seen: dict[str, int] = {}

    def note(what: str) -> None:
        seen[what] = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    def watched(self: Snapshots, chunks: Any, *, tune: Any, **options: Any) -> Any:
        def reading() -> Any:
            for one in chunks:
                note("reading")
                yield one

        def tuning(*args: Any, **more: Any) -> Any:
            note("tuning")
            return tune(*args, **more)

        return build(self, reading(), tune=tuning, **options)

    def noted(self: Snapshots, staged: Any) -> Any:
        note("publishing")
        return publish(self, staged)

    monkeypatch.setattr(Snapshots, "build", watched)
    monkeypatch.setattr(Snapshots, "publish", noted)
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    with open_own(tmp_path, index="hnsw") as collection:
        for seed in range(2):
            collection.add(with_vectors(2_000, seed=seed))
            wait_for(collection, "hnsw")
            while collection.info()["pending"]:
                time.sleep(0.05)
            assert seen == {"reading": mine, "tuning": max(mine, 15), "publishing": mine}


def test_what_was_built_before_a_migration_there_and_back_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, there = HashingEncoder(dim=DIM), HashingEncoder(dim=2 * DIM)
    build = Snapshots.build

    def overtaken(self: Snapshots, *args: Any, **options: Any) -> Staged | None:
        staged = build(self, *args, **options)
        for space in (*collection.spaces.others(), collection.spaces.current()):
            collection.spaces.switch(space, from_thumbnails=False)
        return staged

    with Collection.open(tmp_path, embedder=here) as collection:
        collection.add([{"id": "1", "text": "red shoe"}])
        migrate(collection, there)
        migrate(collection, here)
        collection.add([{"id": "2", "text": "blue hat"}])
        with monkeypatch.context() as patch:
            patch.setattr(Snapshots, "build", overtaken)
            collection.compact()
        assert verify(tmp_path).checked["index"] == "none is saved" and verify(tmp_path).ok
        assert collection.search("blue hat", limit=1)[0].id == "2"
        collection.compact()
        assert verify(tmp_path).checked["index"] == "flat of 2"
