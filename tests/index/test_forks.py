"""A process that forks while a store is open: the child has files and locks of its own, or none."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.index.small_store import entry, open_store
from triptych.errors import CollectionBusy, NotAvailable
from triptych.index.sqlite.store import Store

FORK = multiprocessing.get_context("fork")


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    store = open_store(path)
    store.write([entry("a")], replace=False)
    assert len(store) == 1  # another connection
    yield store
    store.close()


def test_what_a_child_writes_after_its_parent_has_closed_is_there(path: Path, store: Store) -> None:
    closed = FORK.Event()

    def child() -> None:
        assert closed.wait(20)
        store.write([entry("b")], replace=False)
        mine = open_store(path)
        assert len(mine) == len(store) == 2

    process = FORK.Process(target=child)
    process.start()
    store.close()
    closed.set()
    process.join(30)
    assert process.exitcode == 0
    store = open_store(path)
    assert len(store) == 2 and store.check() == []
    store.close()


def test_a_child_reads_what_its_parent_goes_on_to_write(path: Path, store: Store) -> None:
    written, seen = FORK.Event(), FORK.Event()

    def child() -> None:
        mine = open_store(path)
        assert len(mine) == len(store) == 1
        seen.set()
        assert written.wait(20)
        assert len(mine) == len(store) == 2
        with pytest.raises(CollectionBusy):
            store.write([entry("c")], replace=False)

    process = FORK.Process(target=child)
    process.start()
    assert seen.wait(20)
    store.write([entry("b")], replace=False)
    written.set()
    process.join(30)
    assert process.exitcode == 0 and len(store) == 2


def test_a_child_does_not_keep_the_lock_of_its_parent(path: Path, store: Store) -> None:
    done = FORK.Event()
    process = FORK.Process(target=done.wait, args=(20,))
    process.start()
    store.close()
    other = open_store(path)
    other.write([entry("b")], replace=False)
    other.close()
    done.set()
    process.join(30)


def test_a_file_that_a_thread_reads_at_the_fork_is_not_opened_in_the_child(
    path: Path, store: Store
) -> None:
    reading, done = threading.Event(), threading.Event()

    def read() -> None:
        with store.reading():
            reading.set()
            done.wait(20)

    def child() -> None:
        looks: tuple[Callable[[], object], ...] = (lambda: len(store), lambda: open_store(path))
        for look in looks:
            with pytest.raises(NotAvailable, match="forked"):
                look()

    thread = threading.Thread(target=read)
    thread.start()
    assert reading.wait(20)
    process = FORK.Process(target=child)
    process.start()
    process.join(30)
    done.set()
    thread.join()
    assert process.exitcode == 0 and len(store) == 1
