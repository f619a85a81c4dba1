from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import apsw
import pytest

from tests.retrieval.fakes import DIM, RED, CountingModel, encoded, unit_vectors
from triptych.encoders.vectors import CallerVectors
from triptych.errors import CollectionBusy, CollectionDamaged, NotAvailable, NotFound
from triptych.index.manifest import State
from triptych.index.segments import Base, Knobs
from triptych.index.snapshot import Snapshots
from triptych.index.sqlite.generation import NAME as GENERATION
from triptych.index.sqlite.generation import Seen, read_generation, write_generation
from triptych.index.sqlite.pages import CHECKED, PAGE
from triptych.retrieval.builder import build_index
from triptych.retrieval.collection import Collection
from triptych.retrieval.folder import INDEX, STORE, open_store
from triptych.retrieval.live import identity_of
from triptych.retrieval.maintenance.migrate import migrate
from triptych.retrieval.maintenance.repair import repair
from triptych.retrieval.maintenance.verify import verify
from triptych.types import Item

MODEL = CallerVectors("own", DIM)
COUNT = 400
VECTORS = unit_vectors(COUNT)


def item(at: int) -> Item:
    return Item(id=f"id{at}", vector=VECTORS[at], text=f"hello w{at % 50}", metadata={"n": at})


@pytest.fixture(scope="module", autouse=True)
def any_kind_is_good_enough() -> Iterator[None]:
    """Of so few vectors a scan is often faster: then there would be no graph to damage."""

    def fit(base: Base, **_: Any) -> tuple[Knobs, float]:
        return Knobs(effort=64, refine=1), 1.0

    with mock.patch("triptych.retrieval.builder.fit", fit):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole") / "collection"
    with Collection.open(folder, embedder=MODEL, index="hnsw") as collection:
        collection.add(item(at) for at in range(COUNT))
        collection.delete([f"id{at}" for at in range(50)])
        collection.compact()
        collection.delete("id50")
        collection.upsert(item(51))
    assert verify(folder).ok
    return folder


@pytest.fixture
def folder(tmp_path: Path, whole: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "collection"))


def edit(folder: Path, statement: str) -> None:
    connection = apsw.Connection(str(folder / STORE), vfs=CHECKED)
    connection.execute(statement)
    connection.close()


def wrong(folder: Path) -> set[str]:
    return set(verify(folder).wrong())


def check_answers(folder: Path, *, without: set[str] = frozenset()) -> None:
    """Every item that is not lost is found, by its own vector and by its words."""
    expected = {f"id{at}" for at in range(51, COUNT)} - without
    with Collection.open(folder, embedder=MODEL) as collection:
        assert len(collection) == len(expected)
        for at in range(51, COUNT, 9):
            if f"id{at}" in expected:
                (hit,) = collection.search(vector=VECTORS[at], limit=1)
                assert hit.id == f"id{at}" and hit.metadata == {"n": at}
                assert hit.text == f"hello w{at % 50}"
        assert collection.count({"n": {"$gte": 0}}) == len(expected)


def test_all_is_well(folder: Path) -> None:
    found = verify(folder)
    assert found.ok and found.checked["index"] == f"hnsw of {COUNT - 50}"
    assert found.checked["items"] == f"{COUNT - 51}"


def test_it_can_be_written_to_meanwhile(folder: Path) -> None:
    with Collection.open(folder, embedder=MODEL) as collection:
        collection.delete("id60")
        collection.upsert(item(0))
        assert verify(folder).ok
        with pytest.raises(CollectionBusy):
            edit_index(folder)
            repair(verify(folder))


def edit_index(folder: Path, name: str = "rows") -> None:
    (path,) = (folder / INDEX).glob(f"*/{name}")
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)


@pytest.mark.parametrize(
    ("statement", "part"),
    [
        ("UPDATE meta SET value = 3 WHERE key = 'count'", "counts"),
        ("DELETE FROM facts WHERE row = 80", "facts"),
        ("DELETE FROM fields", "facts"),
        ("DELETE FROM words WHERE rowid = 80", "words"),
        ("DELETE FROM words_docsize", "words"),
    ],
)
def test_what_follows_from_the_items_is_worked_out_again(
    folder: Path, statement: str, part: str
) -> None:
    edit(folder, statement)
    assert part in wrong(folder)
    done = repair(verify(folder))
    assert done.complete and done.kept is None and verify(folder).ok
    check_answers(folder)


def test_a_vector_is_taken_from_the_index(folder: Path) -> None:
    edit(folder, f"UPDATE vectors_1 SET vector = zeroblob({4 * DIM}) WHERE row < 90")
    assert wrong(folder) == {"vectors"}
    done = repair(verify(folder))
    assert done.complete and done.kept == folder / f"{STORE}.damaged-1" and done.kept.exists()
    assert verify(folder).ok
    check_answers(folder)


def test_what_is_lost_is_named(folder: Path) -> None:
    shutil.rmtree(folder / INDEX)
    edit(folder, f"UPDATE vectors_1 SET vector = zeroblob({4 * DIM}) WHERE row = 81")
    edit(folder, "UPDATE items SET text = 'other' WHERE row = 91")
    done = repair(verify(folder))
    assert not done.complete and [lost.id for lost in done.lost] == ["id80", "id90"]
    assert done.lost[0].record is not None and done.lost[0].record.text == "hello w30"
    assert verify(folder).ok
    check_answers(folder, without={"id80", "id90"})


def test_thumbnails_are_checked(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    with Collection.open(folder, embedder=CountingModel()) as collection:
        collection.add([{"id": "red", "image": encoded(RED)}])
    edit(folder, "UPDATE thumbnails SET jpeg = x'00'")
    assert wrong(folder) == {"thumbnails"}
    done = repair(verify(folder))
    assert done.without_thumbnail == ["red"] and not done.complete and verify(folder).ok


def test_what_is_not_searched_is_carried_over(tmp_path: Path) -> None:
    folder = tmp_path / "c"
    old, new = CountingModel(), CountingModel(dim=16)
    with Collection.open(folder, embedder=old) as collection:
        collection.add({"id": f"{at}", "text": f"apple {at}"} for at in range(20))
        expected = [collection.search("apple 7", limit=20), collection.search("apple 11", limit=20)]
        migrate(collection, new)
        migrate(collection, CountingModel(dim=8))
        collection.upsert([{"id": "3", "text": "apple 3"}])
    edit(folder, "UPDATE items SET text = 'other' WHERE id = '4'")
    edit(folder, "UPDATE vectors_1 SET vector = zeroblob(128) WHERE row < 4")
    done = repair(verify(folder))
    assert done.done[:2] == [
        "carried over what is not searched: 15 of 19 vectors of hashing:32",
        "carried over what is not searched: 18 of 19 vectors of hashing:16",
    ]
    assert verify(folder).ok and [lost.id for lost in done.lost] == ["4"]
    with Collection.open(folder, embedder=CountingModel(dim=8)) as collection:
        collection.add([{"id": "4", "text": "apple 4"}])
        assert migrate(collection, new).embedded == 2
        assert migrate(collection, old).embedded == 5
        assert [collection.search(f"apple {at}", limit=20) for at in (7, 11)] == expected


def test_a_page_of_noise_is_found_and_repaired(folder: Path, whole: Path) -> None:
    raw = (whole / STORE).read_bytes()
    rng = random.Random(3)
    hopeless = []
    for page in range(0, len(raw) // PAGE, 5):
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        noise = rng.randbytes(PAGE)
        (folder / STORE).write_bytes(raw[: page * PAGE] + noise + raw[(page + 1) * PAGE :])
        found = verify(folder)
        assert not found.ok
        try:
            done = repair(found)
        except CollectionDamaged as error:
            assert "Restore" in str(error)
            hopeless.append(page)
            continue
        assert verify(folder).ok
        check_answers(folder, without={str(lost.id) for lost in done.lost})
    assert 0 in hopeless and len(hopeless) < 5


@pytest.mark.parametrize("with_log", [False, True], ids=["closed", "with a log"])
def test_the_root_of_the_items_is_made_again(folder: Path, tmp_path: Path, with_log: bool) -> None:
    with Collection.open(folder, embedder=MODEL) as collection:
        collection.upsert(item(51))
        if with_log:
            no_socket = shutil.ignore_patterns("*.sock")
            folder = Path(shutil.copytree(folder, tmp_path / "left", ignore=no_socket))
    connection = apsw.Connection(str(folder / STORE), vfs=CHECKED)
    query = "SELECT rootpage FROM sqlite_schema WHERE name = 'items'"
    root = connection.execute(query).get
    connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(with_log))
    connection.close()
    assert not with_log or (folder / f"{STORE}-wal").stat().st_size
    with (folder / STORE).open("r+b") as file:
        file.seek((root - 1) * PAGE)
        file.write(bytes(PAGE // 2))
    done = repair(verify(folder))
    assert done.complete and done.kept is not None
    assert verify(folder).ok
    check_answers(folder)


def test_one_wrong_bit_of_the_store_loses_nothing(folder: Path, whole: Path) -> None:
    raw = (whole / STORE).read_bytes()
    rng = random.Random(4)
    for _ in range(12):
        bit = rng.randrange(8 * len(raw))
        damaged = bytearray(raw)
        damaged[bit // 8] ^= 1 << bit % 8
        shutil.rmtree(folder)
        shutil.copytree(whole, folder)
        (folder / STORE).write_bytes(damaged)
        found = verify(folder)
        assert not found.ok or not any(raw[bit // 8 // PAGE * PAGE :][:PAGE])
        if not found.ok:
            assert repair(found).complete
        assert verify(folder).ok
        check_answers(folder)


@pytest.mark.parametrize("name", ["rows", "ann"])
@pytest.mark.parametrize("how", ["flipped", "cut", "missing", "empty"])
def test_a_damaged_index_is_built_anew(folder: Path, name: str, how: str) -> None:
    (path,) = (folder / INDEX).glob(f"*/{name}")
    if how == "flipped":
        edit_index(folder, name)
    elif how == "cut":
        path.write_bytes(path.read_bytes()[:-1])
    elif how == "missing":
        path.unlink()
    else:
        path.write_bytes(b"")
    assert wrong(folder) == {"index"}
    assert repair(verify(folder)).complete
    found = verify(folder)
    assert found.ok and found.checked["index"] == f"hnsw of {COUNT - 51}"
    check_answers(folder)


@pytest.mark.parametrize("content", ["", "{", '{"format": 1}', '{"format": 99}', "[]"])
def test_a_damaged_manifest_is_no_index(folder: Path, content: str) -> None:
    (folder / INDEX / "manifest.json").write_text(content)
    assert wrong(folder) == {"index"}
    assert repair(verify(folder)).complete and verify(folder).ok
    check_answers(folder)


def test_a_missing_index_is_no_damage_and_is_built(folder: Path) -> None:
    shutil.rmtree(folder / INDEX)
    found = verify(folder)
    assert found.ok and found.checked["index"] == "none is saved"
    assert repair(found).complete
    assert verify(folder).checked["index"] == f"flat of {COUNT - 51}"


def test_an_index_of_other_items_is_found(folder: Path) -> None:
    edit(folder, "DELETE FROM items WHERE row = 100")
    edit(folder, "DELETE FROM vectors_1 WHERE row = 100")
    found = verify(folder)
    assert {"index", "counts"} <= set(found.wrong())
    assert "1 should not be there" in str([one.message for one in found.findings])
    repair(found)
    assert verify(folder).ok


def test_an_index_of_other_vectors_is_found(folder: Path) -> None:
    store = open_store(folder)
    store.lock()
    build_index(store, Snapshots(folder / INDEX), ("flat",))
    with store.view() as view:
        chunks = [(part.rows_N, part.vectors_NM[::-1]) for part in view.chunks()]
        state = State(epoch=view.epoch, sequence=view.sequence, last_row=view.last_row)
    snapshots = Snapshots(folder / INDEX)
    staged = snapshots.build(
        chunks, kinds=(), tune=lambda base: None, identity=identity_of(store), state=state
    )
    assert staged is not None
    snapshots.publish(staged)
    store.close()
    found = verify(folder)
    assert [one.message for one in found.findings] == [
        f"{COUNT - 52} of its vectors are not those of the store."
    ]
    repair(found)
    check_answers(folder)


def test_lost_writes_are_told_and_gone_on_from(folder: Path) -> None:
    seen = read_generation(folder / GENERATION)
    assert seen is not None
    write_generation(folder / GENERATION, Seen(seen.sequence + 2, seen.collection))
    with pytest.raises(CollectionDamaged, match=r"last 2 writes.*verify --repair -c"):
        Collection.open(folder, embedder=MODEL)
    assert wrong(folder) == {"log"}
    done = repair(verify(folder))
    assert done.lost_writes and not done.complete and verify(folder).ok
    check_answers(folder)


def test_what_was_seen_of_the_store_is_lost_itself(folder: Path) -> None:
    (folder / GENERATION).write_bytes(b"?")
    with pytest.raises(CollectionDamaged, match=r"cannot be told.*verify --repair -c"):
        Collection.open(folder, embedder=MODEL)
    assert wrong(folder) == {"log"}
    repair(verify(folder))
    assert verify(folder).ok
    check_answers(folder)


def test_a_log_cut_off_is_found(folder: Path) -> None:
    kept = folder.with_name("killed")
    with Collection.open(folder, embedder=MODEL) as collection:
        collection.upsert(item(0))
        collection.upsert(item(1))
        shutil.copytree(folder, kept, ignore=shutil.ignore_patterns("*.sock"))
    log = kept / f"{STORE}-wal"
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
    assert wrong(kept) >= {"log"}
    assert repair(verify(kept)).lost_writes
    assert verify(kept).ok
    with Collection.open(kept, embedder=MODEL) as collection:
        assert len(collection) >= COUNT - 51


def test_the_store_of_another_collection_is_left_alone(folder: Path, tmp_path: Path) -> None:
    with Collection.open(tmp_path / "other", embedder=MODEL) as other:
        other.add([item(0)])
    shutil.copy(tmp_path / "other" / STORE, folder / STORE)
    before = (folder / STORE).read_bytes()
    assert "identity" in wrong(folder)
    with pytest.raises(CollectionDamaged, match="another collection"):
        repair(verify(folder))
    assert (folder / STORE).read_bytes() == before


@pytest.mark.parametrize("content", [None, b""])
def test_without_a_store_nothing_can_be_saved(folder: Path, content: bytes | None) -> None:
    (folder / STORE).unlink()
    if content is not None:
        (folder / STORE).write_bytes(content)
    assert wrong(folder) == {"missing"}
    with pytest.raises(CollectionDamaged, match="Restore a backup"):
        repair(verify(folder))


def test_no_collection_and_a_newer_one(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        verify(tmp_path / "nothing")
    edit(folder, "UPDATE meta SET value = 99 WHERE key = 'format'")
    with pytest.raises(NotAvailable, match="format 99"):
        verify(folder)


@pytest.mark.slow
def test_a_repair_that_is_killed_loses_nothing(folder: Path, tmp_path: Path) -> None:
    edit(folder, f"UPDATE vectors_1 SET vector = zeroblob({4 * DIM}) WHERE row = 101")
    edit(folder, "UPDATE items SET text = 'other' WHERE row = 91")
    source, scratch = tmp_path / "source", tmp_path / "scratch"
    shutil.copytree(folder, source / "collection")
    scratch.mkdir()
    command = [sys.executable, "-m", "tests.retrieval.killing", "repair", source, scratch]
    kills = int(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    assert kills > 15
    for step in range(1, kills + 1):
        left = scratch / str(step) / "collection"
        found = verify(left)
        repair(found)
        assert verify(left).ok
        with Collection.open(left, embedder=MODEL) as collection:
            ids = {
                record.id for record in collection.get([f"id{at}" for at in range(COUNT)]) if record
            }
        assert {f"id{at}" for at in range(51, COUNT)} - ids == {"id90"}
        assert not list(left.glob("*.tmp"))


def test_whichever_page_of_a_small_store_is_lost_what_is_gone_is_named(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    with Collection.open(whole, embedder=MODEL) as collection:
        collection.add(item(at) for at in range(4))
    for page in range(1, (whole / STORE).stat().st_size // PAGE):
        folder = tmp_path / f"page {page}"
        shutil.copytree(whole, folder)
        with (folder / STORE).open("r+b") as file:
            file.seek(page * PAGE + PAGE // 2)
            file.write(b"not what was here")
        found = verify(folder)
        if found.ok:  # a page that nothing is on
            continue
        try:
            done = repair(found)
        except CollectionDamaged:
            continue
        with Collection.open(folder, embedder=MODEL) as collection:
            assert collection.count() + len(done.lost) >= 4
            assert {lost.id for lost in done.lost} <= {f"id{at}" for at in range(4)} | {None}
