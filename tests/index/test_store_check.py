"""What `check` finds, and what `salvaging` saves around the damage."""

from __future__ import annotations

import random
from pathlib import Path

import apsw
import numpy as np
import pytest

from triptych.errors import CollectionDamaged
from triptych.index.sqlite.pages import CHECKED, PAGE, damaged_pages
from triptych.index.sqlite.records import Entry, FileState
from triptych.index.sqlite.salvage import salvaging
from triptych.index.sqlite.store import Store

DIM, COUNT = 64, 600


def items() -> list[Entry]:
    vectors_NM = np.random.default_rng(0).standard_normal((COUNT, DIM))
    vectors_NM /= np.linalg.norm(vectors_NM, axis=1, keepdims=True)
    return [
        Entry(
            id=f"id{at}",
            modality="text",
            vector=vector,
            text=f"hello w{at % 50} world {at}",
            metadata={"n": at, "list": [1, {"c": "x"}]},
            thumbnail=b"j" * 3000 if at % 3 == 0 else None,
            file=FileState(root="/r", size=at, mtime_ns=2**60 + at) if at % 2 else None,
            content=f"hash{at}",
        )
        for at, vector in enumerate(vectors_NM.astype(np.float32))
    ]


def open_store(path: Path) -> Store:
    return Store.open(path, model="m", fingerprint="f" * 64, dim=DIM)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "store.sqlite"
    store = open_store(path)
    store.write(items(), replace=False)
    store.delete([f"id{at}" for at in range(100, 200)])
    assert store.check() == []
    store.close()
    return path.read_bytes()


@pytest.fixture
def path(tmp_path: Path, whole: bytes) -> Path:
    path = tmp_path / "store.sqlite"
    path.write_bytes(whole)
    return path


def test_what_was_written_since_an_earlier_check_is_no_damage(path: Path) -> None:
    store = open_store(path)
    assert store.check() == []
    store.delete([f"id{at}" for at in range(COUNT - 10)])
    assert store.check() == []
    store.write(items(), replace=True)
    assert store.check() == []
    store.close()


def edit(path: Path, statement: str) -> None:
    connection = apsw.Connection(str(path), vfs=CHECKED)
    connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "part", "id"),
    [
        ("UPDATE items SET text = 'other' WHERE id = 'id7'", "items", "id7"),
        ("UPDATE items SET checksum = x'00' WHERE id = 'id7'", "vectors", "id7"),
        ("UPDATE vectors_1 SET vector = zeroblob(256) WHERE row = 8", "vectors", "id7"),
        ("DELETE FROM vectors_1 WHERE row = 8", "vectors", "id7"),
        ("DELETE FROM items WHERE row = 8", "vectors", None),
        ("UPDATE thumbnails SET jpeg = x'00' WHERE row = 1", "thumbnails", "id0"),
        ("INSERT INTO thumbnails VALUES (10000, x'00', x'00')", "thumbnails", None),
        ("UPDATE meta SET value = 3 WHERE key = 'count'", "counts", None),
        ("UPDATE meta SET value = 3 WHERE key = 'last_row'", "counts", None),
        ("DELETE FROM facts WHERE row = 8", "facts", None),
        ("INSERT INTO facts SELECT field, value, 150 FROM facts LIMIT 1", "facts", None),
        ("DELETE FROM words WHERE rowid = 8", "words", None),
        ("DELETE FROM words_data WHERE id > 100", "words", None),
    ],
)
def test_check_finds(path: Path, statement: str, part: str, id: str | None) -> None:
    edit(path, statement)
    store = open_store(path)
    found = store.check()
    assert (part, id) in [(one.part, one.id) for one in found]
    store.close()


def test_check_names_the_page(path: Path, whole: bytes) -> None:
    page = len(whole) // PAGE // 2
    path.write_bytes(whole[: page * PAGE] + b"\x55" * PAGE + whole[(page + 1) * PAGE :])
    assert list(damaged_pages(path)) == [page + 1]
    store = open_store(path)
    assert store.check()[0].message.startswith(f"Page {page + 1} of ")
    store.close()


def saved(path: Path) -> tuple[dict[str, Entry], list[str | None], list[str]]:
    with salvaging(path) as salvage:
        found = {entry.id: entry for batch in salvage.entries() for entry in batch}
        assert salvage.meta.dim == DIM
    return found, [lost.id for lost in salvage.lost], salvage.without_thumbnail


def same(a: Entry, b: Entry) -> bool:
    names = ("id", "modality", "text", "uri", "metadata", "content", "file")
    alike = all(getattr(a, name) == getattr(b, name) for name in names)
    return alike and bool((a.vector == b.vector).all())


def test_an_undamaged_store_is_saved_whole(path: Path, tmp_path: Path) -> None:
    found, lost, bare = saved(path)
    given = {one.id: one for one in items() if not 100 <= int(one.id[2:]) < 200}
    assert not lost and not bare and found.keys() == given.keys()
    assert all(same(found[id], given[id]) for id in given)
    assert all(found[id].thumbnail == given[id].thumbnail for id in given)
    copy = open_store(tmp_path / "copy.sqlite")
    copy.write(list(found.values()), replace=False)
    assert copy.check() == [] and len(copy) == len(given)
    copy.close()


def test_one_wrong_bit_loses_nothing(path: Path, whole: bytes) -> None:
    rng = random.Random(4)
    for _ in range(40):
        raw, bit = bytearray(whole), rng.randrange(8 * len(whole))
        raw[bit // 8] ^= 1 << bit % 8
        path.write_bytes(raw)
        found, lost, bare = saved(path)
        assert (len(found), lost, bare) == (COUNT - 100, [], [])


def test_a_lost_page_loses_what_was_on_it_and_names_it(path: Path, whole: bytes) -> None:
    given = {one.id: one for one in items() if not 100 <= int(one.id[2:]) < 200}
    pages = len(whole) // PAGE
    rng = random.Random(5)
    unreadable = 0
    for page in range(pages):
        noise = rng.randbytes(PAGE)
        path.write_bytes(whole[: page * PAGE] + noise + whole[(page + 1) * PAGE :])
        try:
            found, lost, bare = saved(path)
        except CollectionDamaged:
            unreadable += 1
            continue
        assert all(same(found[id], given[id]) for id in found)
        assert set(lost) == given.keys() - found.keys()
        assert all(found[id].thumbnail == given[id].thumbnail for id in found.keys() - set(bare))
    # the schema, the meta and the spaces; the root of the items is the way to all of them
    assert unreadable <= 6


def test_an_item_whose_vector_is_gone_keeps_its_record(path: Path) -> None:
    edit(path, "UPDATE vectors_1 SET vector = zeroblob(256) WHERE row = 8")
    edit(path, "UPDATE items SET text = 'other' WHERE row = 9")
    edit(path, "UPDATE thumbnails SET jpeg = x'00' WHERE row = 1")
    with salvaging(path) as salvage:
        found = [entry.id for batch in salvage.entries() for entry in batch]
    lost = {one.id: one.record for one in salvage.lost}
    assert lost.keys() == {"id7", "id8"} and len(found) == COUNT - 102
    assert lost["id7"] is not None and lost["id7"].text == "hello w7 world 7"
    assert lost["id8"] is None and salvage.without_thumbnail == ["id0"]


def test_a_damaged_item_can_be_deleted_and_written_again(path: Path) -> None:
    edit(path, "UPDATE items SET metadata = '{' WHERE id IN ('id7', 'id8')")
    store = open_store(path)
    assert len(store.delete(["id7"]).removed_N) == 1
    store.write([items()[8]], replace=True)
    assert store.check() == []
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE meta SET value = 3 WHERE key = 'count'",
        "UPDATE meta SET value = 3 WHERE key = 'last_row'",
        "DELETE FROM facts WHERE row = 8",
        "DELETE FROM fields",
        "INSERT INTO facts SELECT field, value, 150 FROM facts LIMIT 1",
        "DELETE FROM words WHERE rowid = 8",
        "DELETE FROM words_data WHERE id > 100",
        "DELETE FROM words_docsize",
    ],
)
def test_what_follows_from_the_items_is_worked_out_again(path: Path, statement: str) -> None:
    edit(path, statement)
    store = open_store(path)
    assert store.check()
    store.work_out_again()
    assert store.check() == [] and len(store) == COUNT - 100
    assert len(store.words("w7", 100)[0]) == COUNT // 50 - 2
    store.close()


def test_a_view_gives_the_items_as_they_were_written(path: Path) -> None:
    store = open_store(path)
    with store.view() as view:
        found = [entry for batch in view.entries(100) for entry in batch]
    given = [one for one in items() if not 100 <= int(one.id[2:]) < 200]
    assert all(same(*pair) for pair in zip(found, given, strict=True))
    assert [one.thumbnail for one in found] == [one.thumbnail for one in given]
    store.close()
    edit(path, "UPDATE thumbnails SET jpeg = x'00' WHERE row = 1")
    store = open_store(path)
    with store.view() as view, pytest.raises(CollectionDamaged, match="'id0'"):
        list(view.entries())
    store.close()
