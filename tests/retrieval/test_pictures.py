"""Pictures kept as they were sent: byte for byte, once, for as long as an item has them."""

from __future__ import annotations

import base64
import errno
import hashlib
import multiprocessing
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.retrieval.fakes import BLUE, GREEN, RED, encoded, paint
from tests.retrieval.migrating import Turned, open_here
from triptych.errors import CollectionDamaged, DiskFull, NotAvailable
from triptych.index.blobs import Blobs
from triptych.retrieval.collection import Collection
from triptych.retrieval.folder import STORE, open_store
from triptych.retrieval.maintenance import portable
from triptych.retrieval.maintenance.migrate import MigrateOptions, migrate
from triptych.retrieval.maintenance.portable import export_collection, import_collection
from triptych.retrieval.maintenance.repair import repair
from triptych.retrieval.maintenance.verify import verify

PROCESSES = multiprocessing.get_context("forkserver")


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "pictures").glob("*/*")}


def named(*pictures: bytes) -> dict[str, bytes]:
    return {hashlib.sha256(one).hexdigest(): one for one in pictures}


def test_bytes_and_data_uris_are_kept_once_and_files_and_arrays_are_not(tmp_path: Path) -> None:
    red, blue = encoded(RED), encoded(BLUE, format="JPEG")
    uri = f"data:image/jpeg;base64,{base64.b64encode(blue).decode()}"
    with open_here(tmp_path / "c") as collection:
        collection.add([{"id": "1", "image": red}, {"id": "2", "image": uri, "text": "blue"}])
        collection.add([{"id": "3", "image": bytearray(red)}])
        collection.add([{"id": "file", "image": paint(tmp_path / "g.png", GREEN)}])
        collection.add([{"id": "array", "image": np.zeros((9, 9, 3), np.uint8)}])
        collection.add([{"id": "words", "text": "nothing to see"}])
        kept = [collection.picture(id) for id in ("1", "2", "3", "file", "array", "words", "none")]
        assert kept == [red, blue, red, None, None, None, None]
        assert files(tmp_path / "c") == named(red, blue)
        assert collection.info()["pictures"] == {"count": 2, "bytes": len(red) + len(blue)}
        collection.keep_pictures = False
        collection.add([{"id": "4", "image": encoded(GREEN)}])
        assert collection.picture("4") is None
    assert verify(tmp_path / "c").ok


def test_the_last_item_takes_its_picture_with_it(tmp_path: Path) -> None:
    red, blue = encoded(RED), encoded(BLUE)
    with open_here(tmp_path / "c") as collection:
        collection.add([{"id": "1", "image": red}, {"id": "2", "image": red}])
        collection.delete("1")
        assert files(tmp_path / "c") == named(red)
        collection.upsert([{"id": "2", "image": red}])  # the same once more
        assert files(tmp_path / "c") == named(red)
        collection.upsert([{"id": "2", "image": blue}])
        assert files(tmp_path / "c") == named(blue)
        collection.delete("2")
        assert files(tmp_path / "c") == {}


def test_in_memory_it_is_the_same() -> None:
    with open_here(Path(":memory:")) as collection:
        collection.add([{"id": "1", "image": encoded(RED)}])
        assert collection.picture("1") == encoded(RED)
        collection.delete("1")
        assert collection.picture("1") is None
        assert collection.info()["pictures"] == {"count": 0, "bytes": 0}


def test_what_a_crash_left_goes_with_compact(tmp_path: Path) -> None:
    with open_here(tmp_path / "c") as collection:
        collection.add([{"id": "1", "image": encoded(RED)}])
        orphan = encoded(BLUE)
        Blobs(tmp_path / "c" / "pictures").put(hashlib.sha256(orphan).hexdigest(), orphan)
        (folder := tmp_path / "c" / "pictures" / "ab").mkdir(exist_ok=True)
        (folder / f"{'ab' * 32}.0123.tmp").write_bytes(b"half")
        collection.compact()
        assert files(tmp_path / "c") == named(encoded(RED))


def test_a_folder_of_that_name_keeps_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "c" / "pictures" / "ab").mkdir(parents=True)
    (tmp_path / "c" / "pictures" / "holiday").mkdir()
    own = ["top.jpg", "ab/a.jpg", f"ab/{'cd' * 32}", "holiday/a.jpg", f"holiday/{'ab' * 32}"]
    for name in own:
        (tmp_path / "c" / "pictures" / name).write_bytes(b"mine")
    with open_here(tmp_path / "c") as collection:
        collection.add([{"id": "1", "image": encoded(RED)}, {"id": "2", "image": encoded(BLUE)}])
        collection.delete("2")
        collection.compact()
    found = {path for path in (tmp_path / "c" / "pictures").rglob("*") if path.is_file()}
    ours = hashlib.sha256(encoded(RED)).hexdigest()
    expected = {f"{ours[:2]}/{ours}", *own}
    assert {str(path.relative_to(tmp_path / "c" / "pictures")) for path in found} == expected


def test_a_refused_batch_leaves_no_picture(tmp_path: Path) -> None:
    with open_here(tmp_path / "c") as collection:
        collection.add([{"id": "1", "image": encoded(RED)}])
        with pytest.raises(ValueError, match="exists already"):
            collection.add([{"id": "1", "image": encoded(BLUE)}])
        with pytest.raises(ValueError, match="exists already"):
            collection.add([{"id": "1", "image": encoded(RED)}])
        assert files(tmp_path / "c") == named(encoded(RED))


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, DiskFull), (errno.EIO, NotAvailable)])
@pytest.mark.parametrize("call", ["fsync", "rename"])
def test_no_item_is_acknowledged_without_its_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type, call: str
) -> None:
    with open_here(tmp_path / "c") as collection:
        collection.add([{"id": "1", "text": "words"}])

        def fails(*arguments: Any) -> None:
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(*((os, "fsync") if call == "fsync" else (Path, "rename")), fails)
            with pytest.raises(kind):
                collection.add([{"id": "2", "image": encoded(RED)}])
        assert collection.get("2") == [None]
        assert files(tmp_path / "c") == {}
        collection.add([{"id": "2", "image": encoded(RED)}])
        assert collection.picture("2") == encoded(RED)


def test_damage_is_found_named_and_never_handed_out(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with open_here(folder) as collection:
        collection.add(
            [{"id": "bad", "image": encoded(RED)}, {"id": "good", "image": encoded(BLUE)}]
        )
        collection.add([{"id": "gone", "image": encoded(GREEN)}])
    (bad,) = (folder / "pictures").glob(f"*/{next(iter(named(encoded(RED))))}")
    bad.write_bytes(bad.read_bytes()[:-1] + b"?")
    next((folder / "pictures").glob(f"*/{next(iter(named(encoded(GREEN))))}")).unlink()
    with open_here(folder) as collection:
        for id in ("bad", "gone"):
            with pytest.raises(CollectionDamaged, match=f"picture of '{id}'"):
                collection.picture(id)
        assert collection.picture("good") == encoded(BLUE)
        with pytest.raises(NotAvailable, match="2 items"):
            migrate(collection, Turned())
    found = verify(folder)
    assert {(one.part, one.id) for one in found.findings} == {
        ("pictures", "bad"),
        ("pictures", "gone"),
    }
    mended = repair(found)
    assert sorted(mended.without_picture) == ["bad", "gone"]
    assert not mended.complete
    assert verify(folder).ok
    with open_here(folder) as collection:
        assert len(collection) == 3
        assert collection.picture("bad") is None
        collection.upsert([{"id": "bad", "image": encoded(RED)}])  # and the bytes are whole again
        assert collection.picture("bad") == encoded(RED)


def test_a_migration_reads_them(tmp_path: Path) -> None:
    with open_here(tmp_path / "c") as collection:
        collection.add([{"id": str(n), "image": encoded(one)} for n, one in enumerate((RED, BLUE))])
        report = migrate(collection, Turned(), MigrateOptions())
        assert (report.embedded, report.from_thumbnails) == (2, 0)
        vectors_NM = collection.vectors(["0", "1"])
    with Collection.open(tmp_path / "fresh", embedder=Turned()) as fresh:
        fresh.add([{"id": str(n), "image": encoded(one)} for n, one in enumerate((RED, BLUE))])
        np.testing.assert_allclose(vectors_NM, fresh.vectors(["0", "1"]), atol=1e-6)


@pytest.mark.parametrize("exists", [False, True])
def test_an_archive_carries_them(tmp_path: Path, exists: bool) -> None:
    with open_here(tmp_path / "c") as collection:
        same = [{"id": str(n), "image": encoded(RED)} for n in range(3)]
        collection.add([*same, {"id": "blue", "image": encoded(BLUE)}, {"id": "t", "text": "red"}])
    if exists:
        open_here(tmp_path / "copy").close()
    store = open_store(tmp_path / "c")
    assert export_collection(store, tmp_path / "c.tar").pictures == 2
    store.close()
    import_collection(tmp_path / "c.tar", tmp_path / "copy")
    assert files(tmp_path / "copy") == named(encoded(RED), encoded(BLUE))
    assert verify(tmp_path / "copy").ok
    with open_here(tmp_path / "copy") as copy:
        assert [copy.picture(id) for id in ("0", "blue", "t")] == [
            encoded(RED),
            encoded(BLUE),
            None,
        ]


def test_an_export_has_the_pictures_that_are_deleted_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write = portable.write_archive
    red, blue, green = encoded(RED), encoded(BLUE), encoded(GREEN)
    with open_here(tmp_path / "c") as collection:
        collection.add([{"id": "1", "image": red}, {"id": "2", "image": blue}])

        def overtaken(*args: Any, **options: Any) -> Any:
            collection.delete("1")
            collection.upsert([{"id": "2", "image": green}])
            collection.compact()
            return write(*args, **options)

        monkeypatch.setattr(portable, "write_archive", overtaken)
        store = open_store(tmp_path / "c")
        assert export_collection(store, tmp_path / "c.tar").pictures == 2
        store.close()
        assert "an export holds it: what was deleted is in it still" in caplog.text
        collection.compact()
        assert files(tmp_path / "c") == named(green)
    import_collection(tmp_path / "c.tar", tmp_path / "copy")
    assert files(tmp_path / "copy") == named(red, blue)


def test_a_damaged_archive_of_pictures_is_refused(tmp_path: Path) -> None:
    with open_here(tmp_path / "c") as collection:
        collection.add([{"id": "1", "image": encoded(RED)}])
    store = open_store(tmp_path / "c")
    export_collection(store, tmp_path / "c.tar")
    store.close()
    body = (tmp_path / "c.tar").read_bytes()
    assert body.count(encoded(RED)) == 1
    (tmp_path / "bad.tar").write_bytes(body.replace(encoded(RED), encoded(RED)[:-1] + b"?"))
    with pytest.raises(CollectionDamaged, match="not as it was written"):
        import_collection(tmp_path / "bad.tar", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()


def write_many(path: Path, seed: int, acknowledged: Any) -> None:
    chance = random.Random(seed)
    with open_here(path) as collection:
        for n in range(10_000):
            colour = (chance.randrange(256), chance.randrange(4), n % 256)
            collection.upsert([{"id": str(n % 7), "image": encoded(colour)}])
            acknowledged.value = n + 1
            if n % 5 == 4:
                collection.delete(str(n % 7))


@pytest.mark.parametrize("seed", range(3))
def test_a_kill_leaves_every_item_its_picture(tmp_path: Path, seed: int) -> None:
    done = PROCESSES.Value("q", 0)
    process = PROCESSES.Process(target=write_many, args=(tmp_path / "c", seed, done))
    process.start()
    while done.value < 10:
        time.sleep(0.005)
    time.sleep(random.Random(seed).random() / 20)
    os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    found = verify(tmp_path / "c")
    assert found.ok, found.findings
    with open_here(tmp_path / "c") as collection:
        for record in collection.get([str(n) for n in range(7)]):
            assert record is None or collection.picture(record.id) is not None
        collection.compact()
        assert len(files(tmp_path / "c")) <= len(collection)


def test_another_process_hands_its_pictures_over(tmp_path: Path) -> None:
    with open_here(tmp_path / "c") as collection:
        collection.add([{"id": "0", "text": "this process writes"}])
        done = PROCESSES.Value("q", 0)
        process = PROCESSES.Process(target=write_many, args=(tmp_path / "c", 1, done))
        process.start()
        while done.value < 20:
            time.sleep(0.005)
        process.kill()
        process.join()
        there = [one for one in collection.get([str(n) for n in range(7)]) if one is not None]
        assert all(collection.picture(one.id) is not None for one in there if one.text is None)
        collection.delete([str(n) for n in range(7)])
        assert files(tmp_path / "c") == {}


def test_a_store_without_pictures_has_no_table_of_them(tmp_path: Path) -> None:
    with open_here(tmp_path / "c") as collection:
        collection.add([{"id": "0", "text": "words"}])
        collection.compact()
    assert not (tmp_path / "c" / "pictures").exists()
    assert b"CREATE TABLE pictures" not in (tmp_path / "c" / STORE).read_bytes()
