"""The store alone: batches, rows, checksums, the lock, what is left after a deletion."""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest

from tests.index.small_store import DIM, entry, open_store
from triptych.errors import (
    CollectionBusy,
    CollectionDamaged,
    InvalidInput,
    NotAvailable,
)
from triptych.filters import parse_filter
from triptych.index.sqlite.meta import peek
from triptych.index.sqlite.pages import CHECKED
from triptych.index.sqlite.records import FileState
from triptych.index.sqlite.store import Store


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, path: Path) -> Any:
    store = open_store(path if request.param == "file" else None)
    yield store
    store.close()


def edit(path: Path, statement: str, *values: Any) -> None:
    connection = apsw.Connection(str(path), vfs=CHECKED)
    connection.execute(statement, values)
    connection.close()


def test_a_folder_may_lie_behind_a_symbolic_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    for given in ("a", "b"):
        with closing(open_store(tmp_path / "link" / "store.sqlite")) as store:
            store.write([entry(given)], replace=False)
    with closing(open_store(tmp_path / "real" / "store.sqlite")) as store:
        assert set(store.records_of(["a", "b"])) == {"a", "b"}


def test_what_goes_in_comes_out(store: Store) -> None:
    state = FileState(root="/r", size=3, mtime_ns=2**62)
    given = entry("a", metadata={"n": [1, None, "é"]}, uri="u", content="c", thumbnail=b"j")
    store.write([given, entry("b", file=state)], replace=False)
    found = store.records_of(["a", "b", "c"])
    assert set(found) == {"a", "b"}
    assert found["a"].metadata == {"n": [1, None, "é"]} and found["a"].uri == "u"
    assert (store.load(store.rows()).vectors_NM[0] == given.vector).all()
    assert store.thumbnail("a") == b"j" and store.thumbnail("b") is None
    assert {id: file.state for id, file in store.files().items()} == {"b": state}


@pytest.mark.parametrize("id", ["\udce9", "\ud800x", "a\0b", "a\nb", "é", "e\u0301", " "])
def test_any_name_survives(store: Store, id: str) -> None:
    store.write([entry(id, uri=id)], replace=False)
    assert store.records_of([id])[id].uri == id
    assert len(store.delete([id]).removed_N) == 1


def test_rows_are_never_used_again(store: Store) -> None:
    first = store.write([entry("a"), entry("b")], replace=False)
    again = store.write([entry("b", seed=1)], replace=True)
    assert again.removed_N.tolist() == first.added_N[1:].tolist()
    store.delete(["a", "b"])
    last = store.write([entry("c")], replace=False)
    assert last.added_N.min() > again.added_N.max() > first.added_N.max()


def test_the_sequence_grows_with_each_change_only(store: Store) -> None:
    assert store.sequence == 0
    store.write([entry("a")], replace=False)
    store.write([], replace=True)
    store.delete(["nothing"])
    assert store.sequence == 1
    store.delete(["a"])
    assert store.sequence == 2


def test_add_names_what_exists_and_adds_nothing(store: Store) -> None:
    store.write([entry("a")], replace=False)
    with pytest.raises(InvalidInput, match="'a' exist"):
        store.write([entry("b"), entry("a")], replace=False)
    with pytest.raises(InvalidInput, match="twice"):
        store.write([entry("c"), entry("c")], replace=False)
    assert len(store) == 1 and store.sequence == 1


def test_an_interrupt_in_a_batch_leaves_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> bytes:
        raise KeyboardInterrupt

    store.write([entry("a")], replace=False)
    with monkeypatch.context() as patch:
        patch.setattr("triptych.index.sqlite.writes.checksum", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.write([entry("a", seed=1), entry("b")], replace=True)
    assert list(store.records_of(["a", "b"])) == ["a"]
    assert store.sequence == 1


@pytest.mark.parametrize("metadata", [{"x": float("nan")}, {"x": object()}, {1: 2}, [1]])
def test_metadata_must_be_json(store: Store, metadata: Any) -> None:
    with pytest.raises(InvalidInput, match="metadata of 'a'"):
        store.write([entry("a", metadata=metadata)], replace=False)


@pytest.mark.parametrize("seed", range(40))
def test_a_flipped_bit_in_a_row_is_found(path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    store = open_store(path)
    texts = {"metadata": {"key": "value"}, "uri": "file", "content": "hash"}
    change = store.write([entry("good"), entry("bad", **texts)], replace=False)
    store.close()
    columns = ["id", "modality", "text", "uri", "metadata", "content", "checksum", "vector"]
    column = columns[seed % len(columns)]
    table = "vectors_1" if column == "vector" else "items"
    row = int(change.added_N[1])
    connection = apsw.Connection(str(path), vfs=CHECKED)
    value = connection.execute(f"SELECT {column} FROM {table} WHERE row = ?", (row,)).get
    raw = bytearray(value.encode() if isinstance(value, str) else value)
    raw[rng.integers(len(raw))] ^= 1 << int(rng.integers(7))
    back = raw.decode("latin1") if isinstance(value, str) else bytes(raw)
    connection.execute(f"UPDATE {table} SET {column} = ? WHERE row = ?", (back, row))
    connection.close()
    store = open_store(path)
    if column in ("vector", "checksum"):
        loaded = store.load(store.rows())
        assert loaded.rows_N.tolist() == [row - 1] and list(loaded.damaged) == [row]
    if column != "vector":
        records, damaged = store.records([row - 1, row])
        assert [record.id for record in records] == ["good"] and list(damaged) == [row]
    if column not in ("id", "vector"):
        with pytest.raises(CollectionDamaged, match="'bad'"):
            store.records_of(["bad"])
    store.close()


def test_a_vector_of_another_item_is_found(path: Path) -> None:
    store = open_store(path)
    store.write([entry("a"), entry("b", seed=1)], replace=False)
    store.close()
    edit(path, "UPDATE vectors_1 SET vector = (SELECT vector FROM vectors_1 WHERE row = 2)")
    store = open_store(path)
    assert store.load(store.rows()).damaged == {1: "a"}
    store.close()


@pytest.mark.parametrize("content", [b"<html>", b"SQLite format 3\0" + b"\xff" * 5000])
def test_no_database_is_a_sentence(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CollectionDamaged, match=r"store\.sqlite"):
        open_store(path)


def test_a_newer_format_is_refused(path: Path) -> None:
    open_store(path).close()
    edit(path, "UPDATE meta SET value = 4 WHERE key = 'format'")
    with pytest.raises(NotAvailable, match=r"format 4.*up to 3.*upgrade"):
        open_store(path)


def test_the_first_write_brings_an_older_format_up(path: Path) -> None:
    with closing(open_store(path)) as store:
        store.write([entry(f"{n}", metadata={"n": n}) for n in range(40)], replace=False)
    edit(path, "UPDATE meta SET value = 2 WHERE key = 'format'")
    edit(path, "DROP TABLE fresh")
    wanted = parse_filter("n >= 38")
    assert wanted is not None
    with closing(open_store(path)) as store:
        assert store.meta.format == 2
        assert store.where(wanted).tolist() == [39, 40]
        assert store.facets(["n"], wanted) == {"n": [(38, 1), (39, 1)]}
        assert store.check() == []
        store.write([entry("more", metadata={"n": 99})], replace=False)
        assert store.where(wanted).tolist() == [39, 40, 41]
        assert store.read_meta().format == 3
        assert store.check() == []


@pytest.mark.parametrize("key", ["format", "space", "created", "count"])
def test_a_lost_meta_is_damage(path: Path, key: str) -> None:
    open_store(path).close()
    edit(path, "DELETE FROM meta WHERE key = ?", key)
    with pytest.raises(CollectionDamaged):
        open_store(path)


@pytest.mark.parametrize("table", ["notes (text)", "meta (key, value)", "meta (name)"])
def test_a_database_of_another_program_is_not_damaged_and_left_alone(
    path: Path, table: str
) -> None:
    connection = apsw.Connection(str(path))
    connection.execute(f"CREATE TABLE {table}")
    connection.close()
    before = path.read_bytes()
    for look in (open_store, peek):
        with pytest.raises(NotAvailable, match="no collection made") as caught:
            look(path)
        assert "repair" not in str(caught.value)
    assert path.read_bytes() == before


def test_peek_reads_without_the_lock(path: Path) -> None:
    assert peek(path) is None
    store = open_store(path)
    store.write([entry("a")], replace=False)
    meta = peek(path)
    assert meta is not None and (meta.model, meta.dim) == ("m", DIM)
    store.close()


def test_a_full_disk_is_a_sentence_and_loses_nothing(path: Path) -> None:
    store = open_store(path)
    store.write([entry("a")], replace=False)
    with store._database.writing() as connection:
        connection.execute("PRAGMA max_page_count = 40").fetchall()
    with pytest.raises(NotAvailable, match="disk is full"):
        for at in range(1000):
            store.write([entry(f"b{at}", thumbnail=bytes(9000))], replace=False)
    assert "a" in store.records_of(["a"])
    assert len(store.delete(["a"]).removed_N) == 1
    store.close()


def test_deleted_content_is_gone_from_the_files(path: Path) -> None:
    store = open_store(path)
    store.write([entry("a", metadata={"k": "hunter2secret"})], replace=False)
    store.write([entry("b")], replace=False)
    store.delete(["a"])
    store.compact()
    store.close()
    for file in path.parent.iterdir():
        assert b"hunter2secret" not in file.read_bytes()


def test_closed_is_a_sentence(path: Path) -> None:
    store = open_store(path)
    store.close()
    store.close()
    with pytest.raises(NotAvailable, match="closed"):
        len(store)


HOLD = """
import sys, time
from pathlib import Path
from triptych.index.sqlite.store import Store
store = Store.open(Path(sys.argv[1]), model="m", fingerprint="f" * 64, dim=8)
store.lock()
print("held", flush=True)
time.sleep(60)
"""


@pytest.mark.alone
def test_a_second_writer_is_refused_at_once_with_the_pid(path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    store = open_store(path)
    started = time.monotonic()
    with pytest.raises(CollectionBusy, match=f"process {holder.pid}"):
        store.write([entry("a")], replace=False)
    assert time.monotonic() - started < 1
    assert len(store) == 0  # reading needs no lock
    holder.kill()
    holder.wait()
    holder.stdout.close()
    store.write([entry("a")], replace=False)  # a dead holder leaves nothing to clean up
    store.close()


def test_two_writers_in_one_process_too(path: Path) -> None:
    first, second = open_store(path), open_store(path)
    first.write([entry("a")], replace=False)
    with pytest.raises(CollectionBusy):
        second.delete(["a"])
    first.close()
    second.delete(["a"])
    second.close()


def test_rows_may_be_numpy_integers(store: Store) -> None:
    file = FileState(root="/r", size=3, mtime_ns=4)
    store.write([entry("a"), entry("b", file=file)], replace=False)
    rows_N = store.rows()
    for rows in (rows_N, list(rows_N), rows_N.tolist()):
        assert [record.id for record in store.records(rows)[0]] == ["a", "b"]
        assert store.ids_of(rows) == {1: "a", 2: "b"}
    store.touch({rows_N[1]: FileState(root="/r", size=5, mtime_ns=6)})
    assert store.files()["b"].state.size == 5
