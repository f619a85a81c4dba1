"""The saved index is a copy: whatever happens to it, the answers stay right (law 5)."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.retrieval.fakes import DIM, unit_vectors
from triptych.encoders.vectors import CallerVectors
from triptych.index.manifest import Manifest
from triptych.index.snapshot import Snapshots
from triptych.retrieval.collection import Collection

NUM = 300
KINDS = ["auto", "flat", "hnsw", "ivf_sq8"]


def open_own(path: Path, *, index: str = "auto") -> Collection:
    return Collection.open(path, embedder=CallerVectors("mine", DIM), index=index)


def answers(path: Path, *, index: str = "auto") -> list[list[tuple[str, float]]]:
    with open_own(path, index=index) as collection:
        queries = unit_vectors(5, seed=9)
        found = [collection.search(vector=query, limit=NUM) for query in queries]
        return [[(hit.id, hit.score) for hit in hits] for hits in found]


def index_file(path: Path) -> Path:
    folders = [file for file in (path / "index").iterdir() if file.name != "manifest.json"]
    assert len(folders) == 1, folders
    return max(folders[0].iterdir())  # the vectors, where there is nothing else


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def path(tmp_path: Path, kind: str) -> Path:
    return filled(tmp_path / "c", kind)


def filled(path: Path, kind: str = "auto", *, seed: int = 0) -> Path:
    with open_own(path, index=kind) as collection:
        collection.add(
            {"id": f"{at}", "vector": v} for at, v in enumerate(unit_vectors(NUM, seed=seed))
        )
    return path


def remove_index(path: Path) -> None:
    shutil.rmtree(path / "index")


def remove_manifest(path: Path) -> None:
    (path / "index" / "manifest.json").unlink()


def remove_file(path: Path) -> None:
    index_file(path).unlink()


def halve(path: Path) -> None:
    file = index_file(path)
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def empty(path: Path) -> None:
    index_file(path).write_bytes(b"")


def garble_manifest(path: Path) -> None:
    (path / "index" / "manifest.json").write_text('{"format": 1')


def another_list(path: Path) -> None:
    (path / "index" / "manifest.json").write_text("[]")


def foreign(path: Path) -> None:
    other = filled(path.with_name("other"), seed=5)
    shutil.rmtree(path / "index")
    shutil.copytree(other / "index", path / "index")


def newer(path: Path) -> None:
    edit(path, format=99)


def from_the_future(path: Path) -> None:
    edit(path, sequence=1000)


def wrong_count(path: Path) -> None:
    edit(path, count=NUM - 1)


def wrong_types(path: Path) -> None:
    edit(path, folder=5, epoch=[])


def edit(path: Path, **changes: Any) -> None:
    file = path / "index" / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


DAMAGE = [
    remove_index,
    remove_manifest,
    remove_file,
    halve,
    empty,
    garble_manifest,
    another_list,
    foreign,
    newer,
    from_the_future,
    wrong_count,
    wrong_types,
]


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda damage: damage.__name__)
def test_damage_is_noticed_and_mended(
    path: Path, kind: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    expected = answers(path, index=kind)
    damage(path)
    with caplog.at_level(logging.WARNING):
        assert answers(path, index=kind) == expected
    assert ("rebuilt" in caplog.text) == (damage not in (remove_index, remove_manifest))
    caplog.clear()
    assert answers(path, index=kind) == expected
    assert caplog.text == "", "the mended copy was not saved"


def test_a_stray_file_of_a_crash_is_swept(path: Path, kind: str) -> None:
    (path / "index" / "0123.tmp").mkdir()
    with open_own(path, index=kind) as collection:
        collection.add([{"id": "new", "vector": unit_vectors(1)[0]}])
    assert index_file(path)


@pytest.mark.slow
def test_every_single_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = filled(tmp_path / "c")
    expected = answers(path)
    rng = np.random.default_rng(0)
    for _ in range(60):
        file = index_file(path)
        whole = bytearray(file.read_bytes())
        whole[rng.integers(len(whole))] ^= 1 << int(rng.integers(8))
        file.write_bytes(whole)
        assert answers(path) == expected


def test_a_stale_index_catches_up(path: Path, kind: str) -> None:
    saved = path.with_name("saved")
    shutil.copytree(path / "index", saved)
    with open_own(path, index=kind) as collection:
        collection.delete(["1", "2"])
        collection.upsert([{"id": "3", "vector": unit_vectors(1, seed=4)[0]}])
    expected = answers(path, index=kind)
    shutil.rmtree(path / "index")
    shutil.copytree(saved, path / "index")
    assert answers(path, index=kind) == expected


def test_the_index_of_another_history_is_refused(
    path: Path, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A restored backup goes another way: its rows have the numbers of lost ones."""
    backup = path.with_name("backup")
    shutil.copytree(path, backup)
    with open_own(path, index=kind) as collection:
        collection.add([{"id": "lost", "vector": unit_vectors(1, seed=1)[0]}])
        collection.compact()
    with open_own(backup, index=kind) as collection:
        collection.add([{"id": "other", "vector": unit_vectors(1, seed=2)[0]}])
        collection.compact()
    expected = answers(backup, index=kind)
    shutil.rmtree(backup / "index")
    shutil.copytree(path / "index", backup / "index")
    with caplog.at_level(logging.WARNING):
        assert answers(backup, index=kind) == expected
    assert "never had" in caplog.text


def test_changing_the_kind_of_index_rebuilds(path: Path, kind: str) -> None:
    expected = answers(path, index=kind)
    for other in KINDS:
        found = answers(path, index=other)
        assert found == expected


def test_a_reader_survives_a_writer_that_replaces_the_index(
    path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected = answers(path, index=kind)
    original = Snapshots.manifest
    calls = iter(range(99))

    def late(self: Snapshots) -> Manifest | None:
        found = original(self)
        if next(calls) == 0:
            with open_own(path, index=kind) as writer:
                writer.delete(["none of these"])
                writer.compact()
        return found

    monkeypatch.setattr(Snapshots, "manifest", late)
    with caplog.at_level(logging.WARNING):
        assert answers(path, index=kind) == expected
    assert caplog.text == ""
