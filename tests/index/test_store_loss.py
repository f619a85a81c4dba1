"""Files that are lost, damaged, cut off or another collection's: said at opening, never passed over."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.index.small_store import entry, open_store
from triptych.errors import CollectionDamaged, NotAvailable
from triptych.index.sqlite.generation import NAME as GENERATION
from triptych.index.sqlite.generation import Seen, read_generation, write_generation
from triptych.index.sqlite.meta import peek
from triptych.index.sqlite.pages import mark_of
from triptych.index.sqlite.salvage import salvaging
from triptych.index.sqlite.store import Store

LOG = "store.sqlite-wal"


def crash_copy(path: Path, folder: Path) -> Path:
    """Return a copy as a kill would leave it: most of it in the log."""
    folder.mkdir()
    for file in path.parent.iterdir():
        if file.is_file() and not file.name.endswith("-shm"):
            (folder / file.name).write_bytes(file.read_bytes())
    return folder / path.name


def test_a_lost_or_damaged_log_is_noticed(path: Path, store: Store, tmp_path: Path) -> None:
    store.write([entry("last")], replace=False)
    assert read_generation(path.with_name(GENERATION)) == (2, store.meta.collection)
    whole = crash_copy(path, tmp_path / "whole")
    copy = open_store(whole)
    assert len(copy) == 101
    copy.close()
    size = path.with_name(LOG).stat().st_size
    for at, place in enumerate([40, size // 2, size - 100]):
        damaged = crash_copy(path, tmp_path / f"damaged{at}")
        with damaged.with_name(LOG).open("r+b") as file:
            file.seek(place)
            file.write(b"\x01\xff")
        with pytest.raises(CollectionDamaged):
            open_store(damaged)
    short = crash_copy(path, tmp_path / "short")
    os.truncate(short.with_name(LOG), size - 8192)
    with pytest.raises(CollectionDamaged, match=r"last 1 writes .* are lost"):
        open_store(short)
    missing = crash_copy(path, tmp_path / "missing")
    missing.with_name(LOG).unlink()
    with pytest.raises(CollectionDamaged, match="empty"):
        open_store(missing)


def test_another_collections_files_are_noticed(path: Path, store: Store, tmp_path: Path) -> None:
    store.close()
    (tmp_path / "other").mkdir()
    other = open_store(tmp_path / "other" / path.name)
    other.write([entry("x")], replace=False)
    other.close()
    path.write_bytes((tmp_path / "other" / path.name).read_bytes())
    with pytest.raises(CollectionDamaged, match="another collection"):
        open_store(path)
    path.with_name(GENERATION).unlink()  # as the message says
    store = open_store(path)
    assert len(store) == 1
    store.close()


def test_a_store_and_the_log_of_two_collections_are_noticed(
    path: Path, store: Store, tmp_path: Path
) -> None:
    ours = crash_copy(path, tmp_path / "ours")
    (tmp_path / "other").mkdir()
    other = open_store(tmp_path / "other" / path.name)
    other.write([entry(f"x{at}") for at in range(300)], replace=False)
    theirs = crash_copy(tmp_path / "other" / path.name, tmp_path / "theirs")
    other.close()
    moved = crash_copy(tmp_path / "other" / path.name, tmp_path / "moved")  # without a log
    mixtures = {
        "their file, our log": (moved, ours),
        "our file, their log": (ours, theirs),
        "their file, our log, nothing seen": (moved, ours),
        "our file, their log, nothing seen": (ours, theirs),
    }
    for at, (told, (file, log)) in enumerate(mixtures.items()):
        mixed = tmp_path / f"mixed{at}" / path.name
        mixed.parent.mkdir()
        mixed.write_bytes(file.read_bytes())
        mixed.with_name(LOG).write_bytes(log.with_name(LOG).read_bytes())
        if "nothing seen" not in told:
            seen = ours.with_name(GENERATION).read_bytes()
            mixed.with_name(GENERATION).write_bytes(seen)
        for attempt in (open_store, peek, lambda path: salvaging(path).__enter__()):
            with pytest.raises(CollectionDamaged, match="two collections"):
                attempt(mixed)


def test_an_older_file_beside_a_newer_log_is_noticed(
    path: Path, store: Store, tmp_path: Path
) -> None:
    backups = []
    for turn in range(3):
        # at its end the file holds everything, and the next write begins a log
        store.write([entry(f"{turn}-{at}") for at in range(40)], replace=False)
        store.close()
        backups.append(path.read_bytes())
        store = open_store(path)
    store.write([entry("0-1")], replace=True)
    store.delete(["0-2"])
    crashed = crash_copy(path, tmp_path / "crashed")
    store.move_log()  # it goes on with the old frames behind the new ones
    store.write([entry("0-3")], replace=True)
    moved = crash_copy(path, tmp_path / "moved")
    store.close()
    cases = [(crashed, body) for body in backups] + [(moved, body) for body in backups]
    for at, (live, body) in enumerate(cases):
        mixed = crash_copy(live, tmp_path / f"mixed{at}")
        mixed.write_bytes(body)
        if live == crashed and body == backups[-1]:  # which it is the log of
            fits = open_store(mixed)
            assert len(fits) == 219
            fits.close()
            continue
        for generation in (True, False):
            if not generation:
                mixed.with_name(GENERATION).unlink()
            with pytest.raises(CollectionDamaged, match="is older than its log") as error:
                open_store(mixed)
            assert "verify --repair" in str(error.value.hint)
    for whole in (crashed, moved):
        again = open_store(whole)
        assert len(again) == 219 and not again.check()
        again.close()


def test_a_log_that_is_moved_while_a_store_is_opened_is_no_damage(path: Path, store: Store) -> None:
    for turn in range(12):
        store.write([entry(f"{turn}-{at}") for at in range(3)], replace=False)
        if turn % 3 == 1:
            store.move_log()
        if turn % 5 == 4:
            store.compact()
        other = open_store(path)
        assert len(other) == len(store)
        other.close()


def test_the_mark_of_a_file_stays(path: Path, store: Store) -> None:
    mark = mark_of(path)
    assert store.meta.collection.startswith(f"{mark:08x}") and mark
    store.delete([f"i{at}" for at in range(0, 100, 2)])
    store.compact()
    store.close()
    assert mark_of(path) == mark
    body = bytearray(path.read_bytes())
    body[70] ^= 4  # one wrong bit is no other collection
    path.write_bytes(body)
    assert mark_of(path) == mark
    with salvaging(path) as salvage:
        assert sum(len(part) for part in salvage.entries()) == 50


def test_a_log_without_a_store_is_no_new_collection(
    path: Path, store: Store, tmp_path: Path
) -> None:
    for at, without in enumerate([Path.unlink, lambda file: os.truncate(file, 0)]):
        copy = crash_copy(path, tmp_path / f"copy{at}")
        without(copy)
        copy.with_name(GENERATION).unlink()
        with pytest.raises(CollectionDamaged, match="its log is there"):
            open_store(copy)
        assert copy.with_name(LOG).stat().st_size


def test_what_was_seen_is_the_highest_that_is_whole(tmp_path: Path) -> None:
    path = tmp_path / GENERATION
    assert read_generation(path) is None
    for sequence in range(1, 6):
        write_generation(path, Seen(sequence, "c" * 32))
        assert read_generation(path) == (sequence, "c" * 32)
    whole = path.read_bytes()
    for at in range(len(whole)):
        body = bytearray(whole)
        body[at] ^= 16
        path.write_bytes(body)
        seen = read_generation(path)
        assert seen is not None and seen.sequence in (4, 5)
    assert [one.name for one in tmp_path.iterdir()] == [GENERATION]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda body: b"",
        lambda body: body[:40],
        lambda body: bytes(len(body)),
        lambda body: body[1:],
    ],
    ids=["empty", "cut", "zeros", "moved"],
)
def test_what_cannot_be_told_is_said(
    path: Path, store: Store, spoil: Callable[[bytes], bytes]
) -> None:
    store.close()
    generation = path.with_name(GENERATION)
    whole = generation.read_bytes()
    generation.write_bytes(spoil(whole))
    with pytest.raises(CollectionDamaged, match=r"cannot be told.*verify --repair"):
        open_store(path)
    generation.unlink()
    store = open_store(path)
    assert len(store) == 100
    store.close()


def test_what_cannot_be_read_is_not_available(path: Path, store: Store) -> None:
    store.close()
    path.with_name(GENERATION).unlink()
    path.with_name(GENERATION).mkdir()
    with pytest.raises(NotAvailable, match="cannot be read"):
        open_store(path)
