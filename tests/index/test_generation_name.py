"""The name of what a store holds: another one after each write, by whatever process, and never twice."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from triptych.errors import NotAvailable
from triptych.index.sqlite.counter import Counter
from triptych.index.sqlite.generation import Seen, write_generation
from triptych.index.sqlite.records import Entry
from triptych.index.sqlite.store import Store


def opened(path: Path | None) -> Store:
    return Store.open(path, model="m", fingerprint="f", dim=2)


def put(store: Store, id: str) -> None:
    vector_M = np.array([1, 0], dtype=np.float32)
    entry = Entry(id=id, modality="text", vector=vector_M, text=id, uri=None, metadata={})
    store.write([entry], replace=True)


@pytest.mark.parametrize("in_memory", [True, False])
def test_each_write_gives_another_name(in_memory: bool, tmp_path: Path) -> None:
    store = opened(None if in_memory else tmp_path / "store.sqlite")
    names = [store.generation]
    for at in range(5):
        put(store, str(at))
        assert store.generation == store.generation
        names.append(store.generation)
    store.delete(["0"])
    names.append(store.generation)
    assert len(set(names)) == 7
    store.close()


def test_a_reader_is_told_at_once_even_by_a_new_file(tmp_path: Path) -> None:
    writer, reader = (opened(tmp_path / "store.sqlite") for _ in range(2))
    names = {reader.generation}
    for at in range(6):
        put(writer, str(at))
        names.add(reader.generation)
        if at == 3:
            (tmp_path / "generation").unlink()  # the next write makes another
    assert len(names) == 7
    assert reader.generation == writer.generation
    writer.close()
    reader.close()


def test_a_write_that_was_never_noted_is_found_at_the_next_opening(tmp_path: Path) -> None:
    """The power went between the commit and the note of it."""
    store = opened(tmp_path / "store.sqlite")
    put(store, "a")
    before, note = store.generation, (tmp_path / "generation").read_bytes()
    put(store, "b")
    after = store.generation
    store.close()
    (tmp_path / "generation").write_bytes(note)
    again = opened(tmp_path / "store.sqlite")
    assert again.generation == after != before
    again.close()


def test_a_backup_brings_back_the_sequence_and_not_the_name(tmp_path: Path) -> None:
    folder, backup = tmp_path / "c", tmp_path / "backup"
    folder.mkdir()
    names: list[str] = []
    for attempt in range(3):
        store = opened(folder / "store.sqlite")
        for at in range(3):
            put(store, f"{attempt} {at}")
            names.append(store.generation)
        store.close()
        if attempt == 0:
            shutil.copytree(folder, backup)
        else:
            shutil.rmtree(folder)
            shutil.copytree(backup, folder)
    assert len(set(names)) == 9
    assert len({name.rpartition(":")[2] for name in names}) == 6


@pytest.mark.parametrize("wrote", ["itself", "another"])
def test_what_is_made_anew_in_its_place_is_not_taken_for_it(wrote: str, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    folder.mkdir()
    old, other = (opened(folder / "store.sqlite") for _ in range(2))
    put(old if wrote == "itself" else other, "old")
    assert old.generation == other.generation
    other.close()
    shutil.rmtree(folder)
    with pytest.raises(NotAvailable, match="removed or replaced"):
        _ = old.generation
    folder.mkdir()
    new = opened(folder / "store.sqlite")
    put(new, "new")  # as many writes as to the old one
    with pytest.raises(NotAvailable, match="removed or replaced"):
        _ = old.generation
    assert new.generation
    new.close()
    old.close()


def test_a_counter_is_read_whole_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "generation"
    counter = Counter(path, "c" * 32)
    assert counter.read() == -1
    write_generation(path, Seen(0, "c" * 32))
    read: list[int] = []
    stop = threading.Event()

    def watch() -> None:
        while not stop.is_set():
            read.append(counter.read())

    threads = [threading.Thread(target=watch) for _ in range(3)]
    for thread in threads:
        thread.start()
    for at in range(2_000):
        write_generation(path, Seen(at, "c" * 32))
        assert counter.read() == at
    stop.set()
    for thread in threads:
        thread.join()
    assert set(read) <= set(range(2_000))
    path.write_bytes(b"")  # cut short: a mapping would end the process here
    assert counter.read() == 1_999
    counter.close()
    counter.close()
