"""The saved base is a copy: whatever happens to it, it is noticed (law 5)."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.index.clusters import DIM, clustered
from triptych.errors import CollectionDamaged, NotAvailable
from triptych.index import ANNS, INDEXES
from triptych.index.base import halved, widened
from triptych.index.manifest import Identity, Manifest, State, checksum
from triptych.index.segments import Base, Knobs, SegmentedIndex
from triptych.index.snapshot import Snapshots, Staged

NUM = 600
MATRIX = clustered(NUM)
QUERIES = clustered(20, seed=1)
ROWS = np.arange(NUM) + 1
KINDS = [*INDEXES.names(), *ANNS.names()]
IDENTITY = Identity(
    collection="c",
    fingerprint="f" * 64,
    dim=DIM,
    precision="fp32",
    history={"old": (1, 3), "e": (3, 9)},
)
STATE = State(epoch="e", sequence=5, last_row=NUM)


def chunks(matrix: Any = MATRIX, rows: Any = ROWS) -> Iterator[Any]:
    for start in range(0, len(rows), 100):
        yield rows[start : start + 100], matrix[start : start + 100]


def tuned(base: Base) -> tuple[Knobs, float] | None:
    assert base.ann is not None
    return Knobs(effort=base.ann.efforts()[-1], refine=4), 0.97


def build(snapshots: Snapshots, *kinds: str, **changes: Any) -> Staged | None:
    arguments: dict[str, Any] = {
        "kinds": kinds,
        "tune": tuned,
        "identity": IDENTITY,
        "state": STATE,
    } | changes
    return snapshots.build(arguments.pop("chunks", chunks()), **arguments)


def published(folder: Path, *kinds: str, **changes: Any) -> Snapshots:
    snapshots = Snapshots(folder)
    staged = build(snapshots, *kinds, **changes)
    assert staged is not None
    snapshots.publish(staged)
    return snapshots


def opened(snapshots: Snapshots, identity: Identity = IDENTITY) -> tuple[Base, Manifest]:
    found = snapshots.open(lambda: identity)
    assert found is not None
    return found


def answers(base: Base) -> Any:
    return SegmentedIndex(DIM, base).search(QUERIES, 10)[0].tolist()


def refused(snapshots: Snapshots, caplog: Any, identity: Identity = IDENTITY) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert snapshots.open(lambda: identity) is None
    assert len(caplog.records) == 1 and "index not used, it is rebuilt: " in caplog.text
    return str(caplog.text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    collection = tmp_path / "c é"
    collection.mkdir()
    return collection / "index"


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_published_can_be_opened(folder: Path, kind: str, mapped: bool) -> None:
    snapshots = published(folder, kind)
    base, manifest = opened(Snapshots(folder, mapped=mapped))
    exact = kind in INDEXES.names()
    assert (base.kind, manifest.kind, base.ann is None) == (kind, kind, exact)
    assert (len(base.rows), manifest.count, manifest.sequence, manifest.last_row) == (
        NUM,
        NUM,
        5,
        NUM,
    )
    assert manifest.recall == (1.0 if exact else 0.97)
    assert base.knobs == Knobs(manifest.effort, manifest.refine)
    folders = [path for path in folder.iterdir() if path.is_dir()]
    assert [path.name for path in folders] == [manifest.folder]
    assert manifest.num_bytes == sum(path.stat().st_size for path in folders[0].iterdir())
    found = answers(base)
    expected = answers(opened(published(folder.with_name("flat"), "flat"))[0])
    same = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, expected, strict=True)])
    assert same > (0.5 if kind in ("ivf_pq", "ivf_rabitq", "rabitq") else 0.99)
    assert snapshots.manifest() == manifest


def test_halves(folder: Path) -> None:
    identity = replace(IDENTITY, precision="fp16")
    snapshots = published(folder, "hnsw_sq8", identity=identity)
    base, _ = opened(snapshots, identity)
    assert (base.rows.gather(np.arange(NUM)) == widened(halved(MATRIX))).all()


def test_nothing_published_is_no_fault(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert Snapshots(folder).manifest() is None
    assert Snapshots(folder).open(lambda: IDENTITY) is None
    assert caplog.text == ""


def test_the_first_kind_that_reaches_the_recall_is_taken(folder: Path) -> None:
    tried = []

    def choosy(base: Base) -> tuple[Knobs, float] | None:
        tried.append(base.kind)
        return tuned(base) if base.kind == "ivf_sq8" else None

    snapshots = published(folder, "rabitq", "ivf_sq8", "hnsw", tune=choosy)
    assert tried == ["rabitq", "ivf_sq8"] and opened(snapshots)[1].kind == "ivf_sq8"
    published(folder, "rabitq", tune=choosy)
    assert opened(snapshots)[1].kind == "flat"


def test_a_few_vectors_are_scanned(folder: Path) -> None:
    snapshots = published(folder, "hnsw", chunks=[(ROWS[:20], MATRIX[:20])])
    assert opened(snapshots)[0].ann is None
    snapshots = published(folder, "hnsw", chunks=[])
    assert len(opened(snapshots)[0].rows) == 0


def test_a_cancelled_build_leaves_nothing(folder: Path) -> None:
    snapshots = published(folder, "flat")
    before = sorted(folder.rglob("*"))
    for calls in range(9):
        left = iter([False] * calls)
        assert (
            build(snapshots, "hnsw", cancelled=lambda left=left: next(left, True)) is None
            or calls > 6
        )
        assert sorted(folder.rglob("*")) == before or calls > 6


def test_a_failed_build_leaves_nothing(folder: Path) -> None:
    def broken() -> Iterator[Any]:
        yield from chunks(rows=ROWS[:200])
        raise KeyboardInterrupt

    snapshots = Snapshots(folder)
    with pytest.raises(KeyboardInterrupt):
        build(snapshots, "hnsw", chunks=broken())
    assert list(folder.iterdir()) == []


def test_a_folder_that_cannot_be_written(folder: Path) -> None:
    folder.write_text("a file")
    with pytest.raises(NotAvailable, match=r"cannot be written: File exists\. Check that"):
        build(Snapshots(folder), "flat")


def test_a_collection_that_is_gone_gets_no_folder_again(folder: Path) -> None:
    folder.parent.rmdir()
    with pytest.raises(NotAvailable, match=r"No such file or directory\. Check that the folder"):
        build(Snapshots(folder), "flat")
    assert not folder.parent.exists()


def test_a_staged_base_is_not_used(folder: Path) -> None:
    snapshots = published(folder, "flat")
    staged = build(snapshots, "hnsw", state=replace(STATE, sequence=6))
    assert staged is not None and opened(snapshots)[1].sequence == 5
    snapshots.discard(staged)
    with pytest.raises(NotAvailable, match="published"):
        snapshots.publish(staged)
    assert opened(snapshots)[1].sequence == 5


def test_publishing_sweeps_what_is_old_and_what_a_crash_left(folder: Path) -> None:
    snapshots = published(folder, "hnsw")
    reader, _ = opened(snapshots)
    expected = answers(reader)
    (folder / "0123.tmp").mkdir()
    (folder / "0123.tmp" / "rows").write_bytes(b"torn")
    (folder / "manifest.json.tmp").write_bytes(b"{")
    published(folder, "flat")
    assert len(list(folder.iterdir())) == 2
    assert answers(reader) == expected, "a reader keeps the base that it has open"


def test_sweeping_keeps_what_is_published(folder: Path) -> None:
    snapshots = published(folder, "hnsw")
    build(snapshots, "flat")
    assert len(list(folder.glob("*.tmp"))) == 1
    snapshots.sweep()
    assert len(list(folder.iterdir())) == 2 and opened(snapshots)[1].kind == "hnsw"
    Snapshots(folder / "none").sweep()


def test_nothing_is_swept_where_the_manifest_cannot_be_read(folder: Path) -> None:
    snapshots = published(folder, "hnsw")
    manifest = folder / "manifest.json"
    whole = manifest.read_bytes()
    manifest.unlink()
    manifest.mkdir()  # as unreadable as on a disk that fails
    snapshots.sweep()
    manifest.rmdir()
    manifest.write_bytes(whole)
    assert opened(snapshots)[1].kind == "hnsw"


def test_a_reader_survives_a_writer_that_replaces_the_base(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = published(folder, "hnsw")
    original = Snapshots.manifest
    calls = iter(range(99))

    def late(self: Snapshots) -> Manifest | None:
        found = original(self)
        if next(calls) == 0:
            published(folder, "hnsw", state=replace(STATE, sequence=7))
        return found

    monkeypatch.setattr(Snapshots, "manifest", late)
    assert opened(snapshots)[1].sequence == 7 and caplog.text == ""


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"collection": "d"}, "another collection"),
        ({"fingerprint": "0" * 64}, "another collection, model"),
        ({"precision": "fp16"}, "precision"),
        ({"dim": DIM + 1}, "another"),
        ({"history": {"e": (3, 4)}}, "never had"),
        ({"history": {"f": (1, 9)}}, "never had"),
    ],
)
def test_refuses_what_belongs_elsewhere(
    folder: Path, caplog: pytest.LogCaptureFixture, changes: Any, reason: str
) -> None:
    snapshots = published(folder, "hnsw")
    assert reason in refused(snapshots, caplog, replace(IDENTITY, **changes))


def edit(where: Path, **changes: Any) -> None:
    path = where / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_refuses_a_newer_manifest_by_its_format(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = published(folder, "flat")
    edit(folder, format=3, unknown="field")
    assert "format 3, this program reads 2" in refused(snapshots, caplog)


@pytest.mark.parametrize("field", ["sequence", "count", "kind", "folder", "recall", "checksum"])
def test_refuses_an_edited_manifest(
    folder: Path, caplog: pytest.LogCaptureFixture, field: str
) -> None:
    snapshots = published(folder, "flat")
    edit(folder, **{field: "another"})
    assert "manifest is damaged" in refused(snapshots, caplog)


def forge(where: Path, **changes: Any) -> None:
    """Edit with the right checksum."""
    edit(where, **changes)
    body = json.loads((where / "manifest.json").read_text())
    del body["checksum"]
    edit(where, checksum=checksum(body))


def test_refuses_a_kind_that_is_not_installed(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = published(folder, "hnsw")
    forge(folder, kind="of a plug-in")
    assert "Unknown ann 'of a plug-in'" in refused(snapshots, caplog)
    forge(folder, kind="ivf_sq8")
    assert "another kind" in refused(snapshots, caplog)


@pytest.mark.parametrize("changes", [{"folder": 5}, {"epoch": []}, {"count": 1.5}, {"more": 1}])
def test_refuses_a_forged_manifest(
    folder: Path, caplog: pytest.LogCaptureFixture, changes: dict[str, Any]
) -> None:
    snapshots = published(folder, "flat")
    forge(folder, **changes)
    assert "manifest cannot be read" in refused(snapshots, caplog)


@pytest.mark.parametrize("content", ["", "[]", "{}", "7", '{"format": 2}', "\xff", "[" * 9_000])
def test_refuses_a_garbled_manifest(
    folder: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    snapshots = published(folder, "flat")
    (folder / "manifest.json").write_text(content, "latin-1")
    assert "manifest cannot be read" in refused(snapshots, caplog)
    with pytest.raises(CollectionDamaged):
        snapshots.manifest()


def a_file(folder: Path, name: str) -> Path:
    return next(folder.glob(f"*/{name}"))


def gone(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    path.write_bytes(b"")


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"x")


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [gone, empty, halve, longer, a_folder], ids=lambda d: d.__name__)
@pytest.mark.parametrize("name", ["rows", "ann"])
def test_refuses_damaged_files(
    folder: Path, caplog: pytest.LogCaptureFixture, name: str, damage: Callable[[Path], None]
) -> None:
    snapshots = published(folder, "hnsw_sq8")
    damage(a_file(folder, name))
    assert name in refused(snapshots, caplog)


def test_refuses_the_files_of_another_collection(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = published(folder, "hnsw")
    other = published(folder.with_name("other"), "hnsw", chunks=chunks(clustered(NUM, seed=5)))
    for name in ("rows", "ann"):
        mine = a_file(folder, name)
        kept = mine.read_bytes()
        shutil.copyfile(a_file(other.folder, name), mine)
        assert "manifest" in refused(snapshots, caplog)
        mine.write_bytes(kept)
    assert snapshots.open(lambda: IDENTITY) is not None


@pytest.mark.parametrize("mapped", [False, True])
def test_every_flipped_bit_is_noticed(
    folder: Path, caplog: pytest.LogCaptureFixture, mapped: bool
) -> None:
    snapshots = Snapshots(folder, mapped=mapped)
    published(folder, "hnsw_sq8")
    rng = np.random.default_rng(0)
    for name in ("*/rows", "*/ann", "manifest.json"):
        path = next(folder.glob(name))
        whole = path.read_bytes()
        for at in rng.integers(0, len(whole), 60).tolist():
            torn = bytearray(whole)
            torn[at] ^= 1 << int(rng.integers(8))
            if name == "manifest.json" and same_json(bytes(torn), whole):
                continue
            path.write_bytes(torn)
            found = snapshots.open(lambda: IDENTITY)
            if found is not None:
                with pytest.raises(CollectionDamaged):
                    found[0].rows.verify()
        path.write_bytes(whole)
    assert snapshots.open(lambda: IDENTITY) is not None


def same_json(torn: bytes, whole: bytes) -> bool:
    """Whether only white space differs."""
    try:
        return bool(json.loads(torn) == json.loads(whole))
    except ValueError:
        return False


def test_a_disk_without_the_room_is_not_filled_up(folder: Path) -> None:
    read: list[int] = []

    def counted() -> Iterator[Any]:
        for chunk in chunks():
            read.append(len(chunk[0]))
            yield chunk

    with pytest.raises(NotAvailable, match=r"No space left.*Free some"):
        build(Snapshots(folder), "flat", chunks=counted(), count=10**12)
    assert not read and not list(folder.iterdir())
