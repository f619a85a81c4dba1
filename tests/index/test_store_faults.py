"""A busy writer, a disk that is full, fails or is read-only, a folder that goes away."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.index.small_store import DIM, entry, open_store
from triptych.errors import CollectionBusy, CollectionDamaged, NotAvailable
from triptych.index.sqlite import pages
from triptych.index.sqlite.database import Database
from triptych.index.sqlite.meta import peek
from triptych.index.sqlite.reserve import SIZE
from triptych.index.sqlite.store import Store


def in_thread(work: Callable[[], Any]) -> Any:
    """Return what `work` returns in another thread, which must not wait."""
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(work()), daemon=True)
    thread.start()
    thread.join(timeout=5)
    assert found, "it waits"
    return found[0]


def test_reads_do_not_wait_for_a_write_of_the_same_process(store: Store) -> None:
    with store._database.writing() as connection:
        connection.execute("DELETE FROM items")
        connection.execute("UPDATE meta SET value = 0 WHERE key = 'count'")
        for read in (
            lambda: len(store),
            lambda: len(store.rows()),
            lambda: len(store.load(store.rows()).rows_N),
            lambda: len(store.records_of([f"i{at}" for at in range(100)])),
        ):
            assert in_thread(read) == 100
        with store.view() as view:
            assert sum(len(part.rows_N) for part in view.chunks()) == 100
        connection.execute("ROLLBACK")
        connection.execute("BEGIN")
    assert len(store) == 100


def test_a_view_stays_as_it_was_and_reads_in_any_thread(store: Store) -> None:
    with store.view() as view:
        store.delete(["i1", "i2"])
        store.write([entry("new"), entry("i5")], replace=True)
        rows = in_thread(lambda: [row for p in view.chunks(7) for row in p.rows_N.tolist()])
        assert rows == list(range(1, 101))
        assert (view.count, view.last_row, view.sequence) == (100, 100, 1)
        assert view.epoch == list(store.history())[-1]
    with store.view() as view:
        assert (view.count, view.last_row, view.sequence) == (99, 102, 3)


def test_several_reads_see_one_state(store: Store) -> None:
    with store.reading():
        assert len(store) == 100
        in_thread(lambda: store.delete(["i1"]))
        assert len(store) == 100 and len(store.rows()) == 100 and store.sequence == 1
    assert len(store) == 99


def test_many_threads_read_and_one_writes(store: Store) -> None:
    done = threading.Event()
    wrong: list[Any] = []

    def read() -> None:
        while not done.is_set():
            with store.reading():
                loaded = store.load(store.rows())
                if not len(store) == len(loaded.rows_N) == 100 or loaded.damaged:
                    wrong.append(loaded)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for at in range(40):
        store.write([entry(f"i{at}", metadata={"again": at})], replace=True)
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong
    assert store.check() == []


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Give a folder with options of its own; skipped where nobody may mount."""
    points: list[Path] = []

    def mount(*options: str) -> Path:
        point = tmp_path / f"mount{len(points)}"
        point.mkdir()
        done = subprocess.run(["mount", *options, str(point)], capture_output=True)
        if done.returncode:
            pytest.skip("only root may mount")
        points.append(point)
        return point

    yield mount
    for point in points:
        subprocess.run(["umount", "--lazy", str(point)], check=True)


def test_a_read_only_folder_is_read(path: Path, store: Store, mounted: Callable[..., Path]) -> None:
    store.close()
    copy = mounted("--bind", "-o", "ro", str(path.parent))
    subprocess.run(["mount", "-o", "remount,bind,ro", str(copy)], check=True)
    meta = peek(copy / path.name)
    assert meta is not None and meta.dim == DIM
    store = open_store(copy / path.name)
    assert store.read_only and len(store) == 100 and len(store.load(store.rows()).rows_N) == 100
    assert store.check() == []
    for write in (
        lambda: store.write([entry("x")], replace=True),
        lambda: store.delete(["i1"]),
        store.lock,
        store.compact,
    ):
        with pytest.raises(NotAvailable, match="read-only"):
            write()
    store.close()
    with pytest.raises(NotAvailable):
        open_store(copy / "new.sqlite")


def test_a_read_only_folder_is_read_as_it_is_now(
    path: Path, store: Store, mounted: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    store.close()
    copy = mounted("--bind", "-o", "ro", str(path.parent))
    subprocess.run(["mount", "-o", "remount,bind,ro", str(copy)], check=True)
    reader = open_store(copy / path.name)
    assert len(reader) == 100
    for at in range(2):
        writer = open_store(path)
        writer.write([entry(f"new{at}", metadata={"at": at})], replace=False)
        assert len(reader) == len(reader.rows()) == 101 + at
        if at:
            writer.compact()
        writer.delete([f"i{at}"])
        writer.write([entry(f"i{at}")], replace=False)
        writer.close()
        assert len(reader) == 101 + at and reader.check() == []
    reader.close()
    assert not caplog.records


def test_what_is_written_while_a_read_only_folder_is_read_is_told(
    path: Path, store: Store, mounted: Callable[..., Path]
) -> None:
    store.close()
    copy = mounted("--bind", "-o", "ro", str(path.parent))
    subprocess.run(["mount", "-o", "remount,bind,ro", str(copy)], check=True)
    reader = open_store(copy / path.name)
    with pytest.raises(CollectionBusy, match="while it was read"), reader.reading():
        assert len(reader) == 100
        writer = open_store(path)
        writer.write([entry("new")], replace=False)
        writer.close()  # which without a log no lock of a reader holds off
    assert len(reader) == 101
    reader.close()


def test_this_sqlite_loses_no_commits_when_its_log_begins_anew() -> None:
    version = tuple(map(int, apsw.sqlitelibversion().split(".")))
    assert version >= (3, 51, 3)


def fill(folder: Path) -> None:
    filler = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    with pytest.raises(OSError):  # not even the rest of a page is left
        while True:
            os.write(filler, bytes(512))
    os.close(filler)


def test_a_full_disk_still_opens_reads_and_deletes(
    mounted: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = mounted("-t", "tmpfs", "-o", "size=16m", "tmpfs")
    (folder / "ballast").write_bytes(bytes(4 << 20))
    store = open_store(folder / "store.sqlite")
    written = 0
    with pytest.raises(NotAvailable, match="disk is full"):
        while True:
            items = [entry(f"i{written + at}", thumbnail=os.urandom(4000)) for at in range(50)]
            store.write(items, replace=False)
            written += len(items)
    assert len(store) == written > 300
    fill(folder)
    store.close()  # which gives back what the log took
    fill(folder)
    store = open_store(folder / "store.sqlite")
    assert len(store) == written and 0 < (folder / "reserve").stat().st_size < SIZE
    for at in range(0, written, 50):
        assert len(store.delete([f"i{n}" for n in range(at, at + 50)]).removed_N) == 50
    assert len(store) == 0 and store.check() == []
    with monkeypatch.context() as patch:
        patch.setattr(Database, "used", lambda _: 1 << 40)
        with pytest.raises(NotAvailable, match="takes 2,097,152 MB"):
            store.compact()
    (folder / "ballast").unlink()
    store.write([entry("again")], replace=False)
    assert (folder / "reserve").stat().st_size == SIZE
    store.close()
    store = open_store(folder / "store.sqlite")
    assert len(store) == 1 and store.check() == []
    store.close()


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tests.index.small_store import entry, open_store
from triptych.errors import NotAvailable
store = open_store(Path(sys.argv[1]))
store.write([entry("kept")], replace=False)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))
written = 0
try:
    while True:
        store.write([entry(f"i{written}", thumbnail=bytes(50_000))], replace=False)
        written += 1
except NotAvailable as error:
    assert "disk is full" in error.message, error.message
assert written and len(store) == written + 1
store.delete(["kept"])
assert len(store) == written
store.close()
"""


def test_a_limit_on_files_is_a_full_disk(path: Path) -> None:
    root = str(Path(__file__).parents[2])
    subprocess.run([sys.executable, "-c", LIMITED, str(path), root], check=True)
    store = open_store(path)
    assert len(store) > 5 and "kept" not in store.records_of(["kept"]) and store.check() == []
    store.close()


class BrokenLog(apsw.VFSFile):
    failing = ""

    def xSync(self, flags: int) -> None:
        if BrokenLog.failing == "sync":
            raise failure(apsw.SQLITE_IOERR_FSYNC)
        super().xSync(flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        if BrokenLog.failing == "write":
            raise failure(apsw.SQLITE_IOERR)
        super().xWrite(data, offset)


def failure(code: int) -> apsw.Error:
    error = apsw.IOError("broken")
    error.result, error.extendedresult = apsw.SQLITE_IOERR, code  # type: ignore[attr-defined]
    return error


@pytest.fixture
def broken_log(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    usual = pages._CheckedPages.xOpen

    def open_file(self: Any, name: Any, flags: list[int]) -> apsw.VFSFile:
        if flags[0] & apsw.SQLITE_OPEN_WAL:
            return BrokenLog("", name, flags)
        return usual(self, name, flags)

    monkeypatch.setattr(pages._CheckedPages, "xOpen", open_file)
    yield lambda how: setattr(BrokenLog, "failing", how)
    BrokenLog.failing = ""


@pytest.mark.parametrize("how", ["sync", "write"])
def test_a_failing_disk_is_no_success(
    path: Path, broken_log: Callable[[str], None], how: str
) -> None:
    store = open_store(path)
    store.write([entry("a")], replace=False)
    broken_log(how)
    for write in (lambda: store.write([entry("b")], replace=False), lambda: store.delete(["a"])):
        with pytest.raises(NotAvailable):
            write()
    assert len(store) == 1 and "b" not in store.records_of(["b"])
    broken_log("")
    if how == "sync":  # the system says only once that it lost something
        with pytest.raises(NotAvailable, match="synced"):
            store.write([entry("c")], replace=False)
        assert len(store) == 1
        store.close()
        store = open_store(path)
    store.write([entry("c")], replace=False)
    assert sorted(store.records_of(["a", "b", "c"])) == ["a", "c"] and store.check() == []
    store.close()


def test_a_checkpoint_that_fails_is_no_failed_write(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: Any) -> None:
        raise apsw.FullError

    with monkeypatch.context() as patch:
        patch.setattr(pages._CheckedFile, "xWrite", full)
        for at in range(5):
            store.write([entry(f"big{at}", thumbnail=bytes(5 << 20))], replace=False)
    assert "log cannot be moved" in caplog.text
    assert len(store) == 105 and store.sequence == 6
    store.close()
    store = open_store(path)
    assert len(store) == 105 and store.check() == []
    store.close()


@pytest.mark.parametrize("what", ["removed", "replaced"])
def test_a_folder_that_goes_away_is_never_made_again(tmp_path: Path, what: str) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    store = open_store(folder / "store.sqlite")
    store.write([entry("a")], replace=False)
    folder.rename(tmp_path / "elsewhere")
    if what == "replaced":
        folder.mkdir()
        open_store(folder / "store.sqlite").close()
    for use in (
        lambda: store.write([entry("b")], replace=False),
        lambda: store.delete(["a"]),
        lambda: len(store),
        lambda: store.view().__enter__(),
    ):
        with pytest.raises(NotAvailable, match="removed or replaced"):
            use()
    store.close()
    assert folder.exists() == (what == "replaced")
    if what == "replaced":
        other = open_store(folder / "store.sqlite")
        assert len(other) == 0
        other.close()


def test_a_store_of_the_first_format_is_refused(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA page_size = 8192")
    connection.execute("PRAGMA journal_mode = WAL").fetchall()
    connection.execute("CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID")
    connection.execute("INSERT INTO meta VALUES ('format', 1), ('dim', 4), ('created', 1.5)")
    connection.close()
    for attempt in (open_store, peek):
        with pytest.raises(NotAvailable, match=r"format 1.*Index again"):
            attempt(path)


BEGIN = """
import sys
from pathlib import Path
from triptych.errors import CollectionBusy
from triptych.index.sqlite.store import Store
sys.stdin.read()
try:
    store = Store.open(Path(sys.argv[1]), model="m", fingerprint="f" * 64, dim=8)
    print(store.meta.collection)
except CollectionBusy:
    print("busy")
"""


def test_processes_that_create_at_once_agree(path: Path) -> None:
    children = [
        subprocess.Popen(
            [sys.executable, "-c", BEGIN, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for child in children:
        assert child.stdin is not None
        child.stdin.close()
        child.stdin = None
    answers = {child.communicate()[0].strip() for child in children}
    assert all(child.returncode == 0 for child in children)
    assert len(answers - {"busy"}) == 1
    store = open_store(path)
    assert store.meta.collection in answers
    store.close()


def test_a_close_that_fails_leaves_the_log(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any) -> None:
        raise failure(apsw.SQLITE_IOERR_WRITE)

    with monkeypatch.context() as patch:
        patch.setattr(pages._CheckedFile, "xWrite", broken)
        store.close()
    assert str(path) in caplog.text
    store = open_store(path)
    assert len(store) == 100 and store.check() == []
    store.close()


def test_text_that_cannot_be_decoded_is_damage(store: Store) -> None:
    with pytest.raises(CollectionDamaged), store._database.reading() as connection:
        connection.execute("SELECT CAST(x'ff' AS TEXT)").fetchall()
