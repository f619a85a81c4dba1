"""Another model without an outage: nothing fails, nothing mixes, nothing is lost."""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import threading
import time
from collections import namedtuple
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.retrieval.fakes import BLUE, GREEN, RED, CountingModel, encoded, paint, picture
from tests.retrieval.migrating import (
    Turned,
    answers,
    migrate_there,
    open_here,
    search_and_write,
    turned,
)
from triptych.encoders.onnx import OnnxModel
from triptych.errors import InvalidInput, ModelMismatch, NotAvailable, NotFound
from triptych.index.snapshot import Snapshots
from triptych.index.sqlite.store import Store
from triptych.retrieval.collection import Collection
from triptych.retrieval.folder import STORE
from triptych.retrieval.ingest.run import index_folder
from triptych.retrieval.maintenance.migrate import MigrateOptions, drop_old, migrate, previous

OTHERS = [CountingModel(dim=64), Turned()]
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.retrieval.migrating"])


def words(num: int) -> list[dict[str, object]]:
    colours = ("red", "green", "blue")
    things = ("apple", "tree", "sky", "car", "dog")
    return [
        {"id": f"{n:04}", "text": f"a {colours[n % 3]} {things[n % 5]} number {n}"}
        for n in range(num)
    ]


def noise(path: Path, seed: int, *, size: tuple[int, int] = (300, 200)) -> Path:
    small = np.random.default_rng(seed).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(small).resize(size).save(path)
    return path


def same_as_fresh(collection: Collection, model: CountingModel) -> None:
    """Every vector is, bit for bit, what a new collection with this model would hold."""
    records = [record for record in collection.get(ids(collection)) if record is not None]
    with Collection.open(":memory:", embedder=model) as fresh:
        fresh.add(
            {
                "id": record.id,
                "text": record.text,
                "image": record.uri if record.modality != "text" else None,
            }
            for record in records
        )
        names = [record.id for record in records]
        assert np.array_equal(collection.vectors(names), fresh.vectors(names))
    assert collection.embedder.fingerprint == model.fingerprint


def ids(collection: Collection) -> list[str]:
    return sorted(hit.id for hit in collection.search("red", limit=100_000))


@contextmanager
def searching(collection: Collection, seen: list[object], *, threads: int = 3) -> Iterator[None]:
    """Search all the time; `seen` takes every answer and every error, in order for each thread."""
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            try:
                seen.extend(answers(collection))
            except Exception as error:
                seen.append(repr(error))

    running = [threading.Thread(target=work) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in running:
            thread.join()


@pytest.mark.parametrize("model", OTHERS, ids=lambda model: model.name)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_all_vectors_are_those_of_a_fresh_collection(
    tmp_path: Path, model: CountingModel, precision: str
) -> None:
    for seed in range(7):
        noise(tmp_path / "photos" / f"{seed}.{('png', 'jpg')[seed % 2]}", seed)
    with open_here(tmp_path / "c", precision=precision) as collection:
        index_folder(collection, tmp_path / "photos")
        collection.add(words(150))
        jpeg = noise(tmp_path / "large.jpg", 9, size=(1500, 900))
        collection.add([{"id": "both", "text": "a rug", "image": str(jpeg)}])
        collection.add([{"id": "jpeg", "image": str(jpeg)}])
        report = migrate(collection, model)
        assert (report.before, report.after) == ("hashing:32", model.name)
        assert report.embedded == len(collection) == 159
        if precision == "fp32":
            same_as_fresh(collection, model)
    with open_here(tmp_path / "c") as collection:
        assert collection.embedder.fingerprint == model.fingerprint
        if precision == "fp32":
            same_as_fresh(collection, model)
        assert collection.info()["precision"] == precision


@pytest.mark.parametrize("model", OTHERS, ids=lambda model: model.name)
@pytest.mark.parametrize("index", ["auto", "hnsw"])
def test_every_answer_meanwhile_is_the_old_one_or_the_new_one(
    tmp_path: Path, model: CountingModel, index: str
) -> None:
    path = tmp_path / "c"
    with (
        open_here(path, index=index) as collection,
        open_here(path) as follower,
        Collection.open(":memory:", embedder=model) as fresh,
    ):
        collection.add(words(400))
        fresh.add(words(400))
        old, new = answers(collection), answers(fresh)
        assert old != new
        seen: list[object] = []
        with searching(collection, seen, threads=2), searching(follower, seen, threads=1):
            migrate(collection, model)
            time.sleep(0.1)
            migrate(collection, CountingModel())
            time.sleep(0.1)
            migrate(collection, model)
            time.sleep(0.1)
        assert [one for one in seen if one not in (*old, *new)] == []
        assert set(old) | set(new) == set(seen)
        assert answers(follower) == answers(collection) == new


def test_a_switch_and_a_build_in_the_background_do_not_wait_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, switched = threading.Event(), threading.Event()
    build, switch = Snapshots.build, Store.switch

    def slow(self: Snapshots, *args: Any, **options: Any) -> Any:
        if threading.current_thread().name == "build":
            started.set()
            switched.wait(20)
        return build(self, *args, **options)

    def noticed(self: Store, space: Any) -> None:
        switch(self, space)
        switched.set()

    monkeypatch.setattr(Snapshots, "build", slow)
    monkeypatch.setattr(Store, "switch", noticed)
    collection = open_here(tmp_path / "c", index="hnsw")
    collection.add(words(400))
    assert started.wait(20)
    migrating = threading.Thread(target=migrate, args=(collection, OTHERS[0]), daemon=True)
    migrating.start()
    migrating.join(60)
    assert not migrating.is_alive(), "each waits for what the other holds"
    assert collection.embedder.fingerprint == OTHERS[0].fingerprint
    collection.close()


@pytest.mark.parametrize("model", OTHERS, ids=lambda model: model.name)
def test_what_is_written_meanwhile_is_there_in_the_end(
    tmp_path: Path, model: CountingModel
) -> None:
    stop = threading.Event()
    failures: list[str] = []

    def write(name: str) -> None:
        for turn in range(10**9):
            if stop.is_set():
                return
            try:
                collection.upsert([{"id": f"{name}-{turn % 20}", "text": f"tree {turn}"}])
                collection.upsert([{"id": f"{turn % 300:04}", "text": f"{name} changed {turn}"}])
                if turn % 5 == 0:
                    collection.delete([f"{name}-{(turn + 7) % 20}", f"{turn % 290:04}"])
            except Exception as error:
                failures.append(repr(error))

    with open_here(tmp_path / "c") as collection:
        collection.add(words(300))
        writers = [threading.Thread(target=write, args=(name,)) for name in "ab"]
        for writer in writers:
            writer.start()
        for goal in (model, CountingModel(), model):
            migrate(collection, goal)
            time.sleep(0.05)
        stop.set()
        for writer in writers:
            writer.join()
        assert failures == []
        same_as_fresh(collection, model)
    with open_here(tmp_path / "c") as collection:
        same_as_fresh(collection, model)


def test_an_interrupted_migration_goes_on_where_it_was(tmp_path: Path) -> None:
    with open_here(tmp_path / "c") as collection:
        collection.add(words(300))
        before = answers(collection)
        first, second = Turned(), Turned()
        first.left = 150
        with pytest.raises(KeyboardInterrupt):
            migrate(collection, first)
        assert answers(collection) == before
    with open_here(tmp_path / "c") as collection:
        assert [one["vectors"] for one in collection.info()["spaces"]] == [300, 128]
        report = migrate(collection, second)
        assert report.embedded == 300 - 128
        made = first.embedded + [id for id in second.embedded if id]
        assert len(made) == len(set(made)) == 300
        same_as_fresh(collection, Turned())


def test_back_costs_only_what_came_since(tmp_path: Path) -> None:
    with open_here(tmp_path / "c") as collection:
        with pytest.raises(NotFound, match="go back to"):
            previous(collection)
        collection.add(words(100))
        before = answers(collection)
        migrate(collection, Turned())
        assert previous(collection).model == "hashing:32"
        assert migrate(collection, CountingModel()).embedded == 0
        assert answers(collection) == before
        assert previous(collection).model == "turned:32"
        collection.upsert([{"id": "0001", "text": "changed"}, {"id": "new", "text": "a new one"}])
        collection.delete("0002")
        assert migrate(collection, Turned()).embedded == 2
        same_as_fresh(collection, Turned())
        assert migrate(collection, Turned()).embedded == 0


def test_old_vectors_can_be_dropped_and_their_bytes_are_free(tmp_path: Path) -> None:
    with open_here(tmp_path / "c") as collection:
        collection.add(words(1000))
        migrate(collection, CountingModel(dim=64))
        collection.compact()
        store = tmp_path / "c" / STORE
        size = store.stat().st_size
        assert drop_old(collection) == 1
        assert store.stat().st_size < size - 1000 * 32 * 4
        assert [one["model"] for one in collection.info()["spaces"]] == ["hashing:64"]
        assert drop_old(collection) == 0
        same_as_fresh(collection, CountingModel(dim=64))


def test_vectors_that_another_process_switched_to_or_dropped_meanwhile_are_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_here(tmp_path / "c") as collection:
        collection.add(words(20))
        migrate(collection, CountingModel(dim=64))
        migrate(collection, Turned())
        wide, first = sorted(collection.spaces.others(), key=lambda space: -space.dim)
        collection.spaces.drop(wide)
        migrate(collection, CountingModel())
        monkeypatch.setattr(collection.spaces, "others", lambda: [wide, first])
        assert drop_old(collection) == 0
        same_as_fresh(collection, CountingModel())


def test_the_saved_index_is_the_new_models(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_here(tmp_path / "c", index="hnsw") as collection:
        collection.add(words(500))
        collection.compact()
        migrate(collection, CountingModel(dim=64))
        saved = collection._live.manifest
        assert saved is not None
        assert saved.fingerprint == CountingModel(dim=64).fingerprint
        assert collection.info()["pending"] == 0
        with open_here(tmp_path / "c", index="hnsw") as other:
            assert other.info()["pending"] == 0
            assert answers(other) == answers(collection)
    assert caplog.messages == []


def test_in_memory_and_empty(tmp_path: Path) -> None:
    with open_here(Path(":memory:")) as collection:
        collection.add(words(10))
        migrate(collection, Turned())
        same_as_fresh(collection, Turned())
    with open_here(tmp_path / "c") as collection:
        migrate(collection, CountingModel(dim=64))
        collection.add(words(10))
        same_as_fresh(collection, CountingModel(dim=64))


def test_vectors_of_the_callers_own_stay(tmp_path: Path) -> None:
    from triptych.encoders.vectors import CallerVectors

    own = CallerVectors("mine", 3)
    with Collection.open(tmp_path / "own", embedder=own) as collection:
        collection.add([{"id": "a", "vector": [1, 2, 3]}])
        with pytest.raises(InvalidInput, match="the caller's own"):
            migrate(collection, CountingModel())
    with open_here(tmp_path / "c") as collection:
        collection.add(words(1))
        with pytest.raises(InvalidInput, match="makes no vectors"):
            migrate(collection, own)
        assert len(collection.info()["spaces"]) == 1


def test_the_room_is_asked_for_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_here(tmp_path / "c") as collection:
        collection.add(words(10))
        usage = namedtuple("usage", "total used free")
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9, 9, 1 << 20))
        model = Turned()
        with pytest.raises(NotAvailable, match=r"turned:32 for 10 items take .* MB, 1 MB are free"):
            migrate(collection, model)
        assert model.embedded == []


def test_vectors_made_before_the_switch_are_refused_after_it(tmp_path: Path) -> None:
    with open_here(tmp_path / "c") as collection:
        collection.add(words(3))
        old = collection.embedder.fingerprint
        migrate(collection, Turned())
        store: Store = collection._store
        with pytest.raises(ModelMismatch, match="turned:32"):
            store.write([], replace=True, fingerprint=old)


def test_without_a_way_to_open_the_new_model_a_follower_says_so(tmp_path: Path) -> None:
    with (
        open_here(tmp_path / "c") as collection,
        Collection.open(tmp_path / "c", embedder=CountingModel()) as follower,
    ):
        collection.add(words(3))
        assert follower.search("red")
        migrate(collection, Turned())
        with pytest.raises(ModelMismatch, match=r"turned:32.*got hashing:32"):
            follower.search("red")
        with pytest.raises(ModelMismatch):
            follower.add([{"id": "x", "text": "x"}])


def lossy(path: Path, tmp_path: Path) -> Collection:
    """A file that stays, one that goes, one that changes, with and without a hash; an upload."""
    photos = tmp_path / "photos"
    for name, colour in (("stays", RED), ("goes", GREEN), ("changes", BLUE)):
        paint(photos / f"{name}.png", colour)
        paint(tmp_path / "added" / f"{name}.png", colour)
    collection = open_here(path)
    index_folder(collection, photos)
    for name in ("stays", "goes", "changes"):
        collection.add([{"id": name, "image": str(tmp_path / "added" / f"{name}.png")}])
    collection.keep_pictures = False
    collection.add([{"id": "upload", "image": encoded(RED)}, {"id": "text", "text": "red"}])
    for folder in (photos, tmp_path / "added"):
        (folder / "goes.png").unlink()
        paint(folder / "changes.png", GREEN)
    return collection


def test_what_is_gone_stops_it_before_the_work(tmp_path: Path) -> None:
    with lossy(tmp_path / "c", tmp_path) as collection:
        model = Turned()
        with pytest.raises(NotAvailable, match=r"^3 items .*'goes'|^3 items .*goes\.png"):
            migrate(collection, model)
        assert model.embedded == []
        paint(tmp_path / "photos" / "goes.png", GREEN)
        paint(tmp_path / "added" / "goes.png", GREEN)
        collection.delete("upload")
        before = answers(collection)
        with pytest.raises(NotAvailable, match=r"^2 items .*another one now.*Index their folder"):
            migrate(collection, model)
        assert answers(collection) == before
        assert collection.embedder.name == "hashing:32"
        paint(tmp_path / "photos" / "changes.png", BLUE)
        paint(tmp_path / "added" / "changes.png", BLUE)
        assert migrate(collection, model).embedded == 2
        same_as_fresh(collection, Turned())


def test_thumbnails_stand_in(tmp_path: Path) -> None:
    with lossy(tmp_path / "c", tmp_path) as collection:
        report = migrate(collection, Turned(), MigrateOptions(from_thumbnails=True))
        assert (report.embedded, report.from_thumbnails, report.dropped) == (8, 5, [])
        found = collection.vectors(["upload", "changes", "stays"])
    image = Image.open(BytesIO(encoded(BLUE)))
    wanted = Turned().embed_pictures([picture(RED), image])
    wanted = turned(wanted)
    assert found[0] @ found[2] > 0.98  # JPEG changes colours a little
    assert found[1] @ wanted[1] > 0.9
    assert found[1] @ wanted[0] < 0.9


def test_what_is_lost_is_dropped_where_that_is_wanted(tmp_path: Path) -> None:
    with lossy(tmp_path / "c", tmp_path) as collection:
        report = migrate(collection, Turned(), MigrateOptions(drop_missing=True))
        codes = sorted((Path(one.id).stem, one.code) for one in report.dropped)
        assert codes == [
            ("changes", "picture_changed"),
            ("changes", "picture_changed"),
            ("goes", "picture_gone"),
            ("goes", "picture_gone"),
            ("upload", "picture_not_kept"),
        ]
        assert len(collection) == 3
        same_as_fresh(collection, Turned())


def test_one_that_the_model_cannot_place_takes_no_other_with_it(tmp_path: Path) -> None:
    with open_here(tmp_path / "c") as collection:
        collection.add(words(100))
        model = Turned()
        model.unplaceable = {"0042"}
        with pytest.raises(NotAvailable, match=r"^1 item .*'0042'.* 99 vectors .* are kept"):
            migrate(collection, model)
        model.unplaceable = set()
        assert migrate(collection, model).embedded == 1
        same_as_fresh(collection, Turned())


def test_the_default_model_and_back(tmp_path: Path) -> None:
    for seed in range(5):
        noise(tmp_path / "photos" / f"{seed}.jpg", seed, size=(900, 700))
    default = OnnxModel.load()
    with Collection.open(tmp_path / "c", embedder=default) as collection:
        index_folder(collection, tmp_path / "photos")
        collection.add(words(20))
        before = collection.vectors(ids(collection))
        migrate(collection, CountingModel())
        same_as_fresh(collection, CountingModel())
        drop_old(collection)
        migrate(collection, default)
        after = collection.vectors(ids(collection))
        assert np.abs(before - after).max() < 1e-5


@pytest.mark.parametrize("index", ["auto", "hnsw"])
def test_another_process_searches_and_writes_throughout(tmp_path: Path, index: str) -> None:
    path = tmp_path / "c"
    with open_here(path, index=index) as collection:
        collection.add(words(300))
        started, stop, failures = PROCESSES.Event(), PROCESSES.Event(), PROCESSES.Queue()
        other = PROCESSES.Process(target=search_and_write, args=(path, started, stop, failures))
        other.start()
        assert started.wait(30)
        for model in (Turned(pause=0.02), CountingModel(), CountingModel(dim=64)):
            migrate(collection, model)
        stop.set()
        told = failures.get(timeout=60)
        assert isinstance(told, int), told
        other.join(240)
        assert len(collection) > 300
        same_as_fresh(collection, CountingModel(dim=64))


def test_a_process_that_does_not_write_migrates_through_the_one_that_does(tmp_path: Path) -> None:
    path = tmp_path / "c"
    with open_here(path) as collection:
        collection.add(words(300))
        stop = threading.Event()
        failures: list[str] = []

        def write() -> None:
            for turn in range(10**9):
                if stop.is_set():
                    return
                try:
                    collection.upsert([{"id": f"{turn % 9}", "text": f"blue {turn}"}])
                    time.sleep(0.005)
                except Exception as error:
                    failures.append(repr(error))

        writer = threading.Thread(target=write)
        writer.start()
        seen: list[object] = []
        with searching(collection, seen, threads=1):
            other = PROCESSES.Process(target=migrate_there, args=(path, 0.01))
            other.start()
            other.join(240)
        stop.set()
        writer.join()
        assert other.exitcode == 0
        assert failures == []
        assert not [one for one in seen if isinstance(one, str)]
        same_as_fresh(collection, Turned())


def time_of_migration(path: Path) -> float:
    """Return the seconds that it takes in a process of its own, on the machine as it is now."""
    child, began = PROCESSES.Process(target=migrate_there, args=(path, 0.005)), time.monotonic()
    child.start()
    child.join()
    return time.monotonic() - began


@pytest.mark.slow
def test_killed_at_any_point_it_goes_on(tmp_path: Path) -> None:
    rng = random.Random(0)
    path, num_switched = tmp_path / "c", 0
    with open_here(path) as collection:
        collection.add(words(300))
        old = answers(collection)
    with Collection.open(":memory:", embedder=Turned()) as fresh:
        fresh.add(words(300))
        new = answers(fresh)
    whole = time_of_migration(shutil.copytree(path, tmp_path / "timed"))
    for kill in range(40):
        copy = tmp_path / f"c{kill}"
        shutil.copytree(path, copy)
        for _ in range(rng.randrange(1, 4)):
            child = PROCESSES.Process(target=migrate_there, args=(copy, 0.005))
            child.start()
            time.sleep(rng.uniform(0.0, 1.2 * whole))
            with suppress(ProcessLookupError):
                os.kill(child.pid or 0, signal.SIGKILL)
            child.join()
        with open_here(copy) as collection:
            is_new = collection.embedder.fingerprint == Turned().fingerprint
            num_switched += is_new
            assert answers(collection) == (new if is_new else old)
            migrate(collection, Turned())
            assert answers(collection) == new
            same_as_fresh(collection, Turned())
        shutil.rmtree(copy)
    assert 0 < num_switched < 40
