"""A copy that is brought up to date by what has changed is what a new copy would be."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.retrieval.fakes import DIM, RED, encoded, unit_vectors
from triptych.encoders.hashing import HashingEncoder
from triptych.encoders.vectors import CallerVectors
from triptych.errors import CollectionDamaged, InvalidInput, ModelMismatch
from triptych.retrieval.collection import Collection
from triptych.retrieval.folder import open_store
from triptych.retrieval.maintenance import increments
from triptych.retrieval.maintenance.increments import (
    Increment,
    Mark,
    apply_increment,
    export_increment,
)
from triptych.retrieval.maintenance.portable import import_collection

MODEL = CallerVectors("own", DIM)


def changed(folder: Path, path: Path, since: Mark | None = None) -> Increment:
    path.unlink(missing_ok=True)
    store = open_store(folder)
    try:
        return export_increment(store, path, since)
    finally:
        store.close()


def contents(folder: Path) -> list[Any]:
    store = open_store(folder)
    try:
        with store.view() as view:
            return [
                (e.id, e.text, e.metadata, e.vector.tolist(), e.picture and e.picture.sha256)
                for part in view.entries()
                for e in part
            ]
    finally:
        store.close()


def item(id: int, word: str) -> dict[str, Any]:
    return {
        "id": f"i{id}",
        "text": f"{word} {id}",
        "metadata": {"word": word},
        "vector": unit_vectors(1, seed=id)[0],
    }


def opened(folder: Path) -> Collection:
    return Collection.open(folder, embedder=MODEL)


def test_any_writes_are_followed(tmp_path: Path) -> None:
    chance, archive = random.Random(3), tmp_path / "a.tar"
    with opened(tmp_path / "origin") as origin:
        origin.add(item(id, "first") for id in range(40))
        mark = changed(tmp_path / "origin", archive).mark
        import_collection(archive, tmp_path / "copy")
        with opened(tmp_path / "copy") as copy:
            for round_ in range(25):
                for _ in range(chance.randrange(4)):
                    ids = chance.sample(range(60), chance.randrange(1, 9))
                    if chance.random() < 0.4:
                        origin.delete([f"i{id}" for id in ids])
                    else:
                        origin.upsert(item(id, f"round{round_}") for id in ids)
                if chance.random() < 0.2:
                    origin.compact()
                found = changed(tmp_path / "origin", archive, mark)
                assert found.gone is not None and found.num_items == len(origin)
                before = copy.copying.sequence
                apply_increment(copy, archive, found.gone, found.num_items)
                assert copy.copying.sequence <= before + 1, "more than one transaction"
                mark = found.mark
                assert mark.generation == origin.generation
                assert contents(tmp_path / "copy") == contents(tmp_path / "origin")
                query = unit_vectors(1, seed=7)[0]
                assert [(hit.id, hit.score) for hit in copy.search(vector=query)] == [
                    (hit.id, hit.score) for hit in origin.search(vector=query)
                ]


def test_what_is_sent_is_what_is_new(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with opened(tmp_path / "origin") as origin:
        origin.add(item(id, "first") for id in range(2_000))
        mark = changed(tmp_path / "origin", archive).mark
        whole = archive.stat().st_size
        origin.upsert([item(7, "new")])
        found = changed(tmp_path / "origin", archive, mark)
        assert found.gone == [7]
        assert archive.stat().st_size < whole / 5


def test_pictures_come_along_and_go(tmp_path: Path) -> None:
    archive, picture = tmp_path / "a.tar", encoded(RED)
    with opened(tmp_path / "origin") as origin:
        origin.add([item(1, "plain")])
        mark = changed(tmp_path / "origin", archive).mark
        import_collection(archive, tmp_path / "copy")
        with opened(tmp_path / "copy") as copy:
            origin.add([{**item(2, "red"), "image": picture}])
            found = changed(tmp_path / "origin", archive, mark)
            apply_increment(copy, archive, found.gone or [], found.num_items)
            assert copy.picture("i2") == origin.picture("i2") == picture
            origin.delete(["i2"])
            found = changed(tmp_path / "origin", archive, found.mark)
            apply_increment(copy, archive, found.gone or [], found.num_items)
            assert list((tmp_path / "copy" / "pictures").rglob("*.*")) == []


def test_what_comes_without_a_picture_follows_what_has_one(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with opened(tmp_path / "origin") as origin:
        origin.add([{**item(1, "red"), "image": encoded(RED)}])
        mark = changed(tmp_path / "origin", archive).mark
        import_collection(archive, tmp_path / "copy")
        origin.add([item(2, "plain")])
        found = changed(tmp_path / "origin", archive, mark)
        with opened(tmp_path / "copy") as copy:
            apply_increment(copy, archive, found.gone or [], found.num_items)
        assert contents(tmp_path / "copy") == contents(tmp_path / "origin")


def test_a_copy_reranks_as_the_collection_does(tmp_path: Path) -> None:
    archive, model = tmp_path / "a.tar", HashingEncoder(dim=DIM)

    def found(collection: Collection) -> list[tuple[str, float, str]]:
        hits = collection.search("red boat at night", rerank=10)
        return [(hit.id, hit.score, hit.found) for hit in hits]

    with Collection.open(tmp_path / "origin", embedder=model, tokens=True) as origin:
        origin.add({"id": str(id), "text": f"boat {id} at night"} for id in range(5))
        mark = changed(tmp_path / "origin", archive).mark
        import_collection(archive, tmp_path / "copy")
        with Collection.open(tmp_path / "copy", embedder=model) as copy:
            assert found(copy) == found(origin)
            origin.upsert([{"id": "3", "text": "red boat"}, {"id": "9", "text": "a red night"}])
            told = changed(tmp_path / "origin", archive, mark)
            apply_increment(copy, archive, told.gone or [], told.num_items)
            assert found(copy) == found(origin)


def test_a_restored_backup_is_another_history(tmp_path: Path) -> None:
    archive, folder = tmp_path / "a.tar", tmp_path / "origin"
    with opened(folder) as origin:
        origin.add(item(id, "first") for id in range(5))
    early = changed(folder, archive).mark
    shutil.copytree(folder, tmp_path / "backup")
    with opened(folder) as origin:
        origin.delete(["i1"])
        origin.delete(["i2"])
    late = changed(folder, archive, early)
    assert late.gone == [1, 2]
    shutil.rmtree(folder)
    shutil.copytree(tmp_path / "backup", folder)
    assert changed(folder, archive, late.mark).gone is None  # before anybody wrote to it
    with opened(folder) as origin:
        origin.delete(["i3"])
        origin.delete(["i4"])
        again = changed(folder, archive, late.mark)
        assert again.mark.sequence == late.mark.sequence
        assert again.gone is None and again.num_items == 3
        # who stood where the backup was made can go on from there
        assert changed(folder, archive, early).gone == [3, 4]


def test_a_collection_made_anew_is_no_later_state(tmp_path: Path) -> None:
    archive, folder = tmp_path / "a.tar", tmp_path / "origin"
    marks = []
    for _ in range(2):
        shutil.rmtree(folder, ignore_errors=True)
        with opened(folder) as origin:
            origin.add([item(1, "one")])
            marks.append(changed(folder, archive).mark)
            origin.add([item(2, "two")])
        assert changed(folder, archive, marks[0]).gone == ([] if len(marks) == 1 else None)


def test_too_much_or_what_is_forgotten_is_sent_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, folder = tmp_path / "a.tar", tmp_path / "origin"
    with opened(folder) as origin:
        origin.add(item(id, "first") for id in range(5))
        mark = changed(folder, archive).mark
        origin.upsert(item(id, "second") for id in range(5))
    for name, most in (("_MOST_ROWS", 4), ("_MOST_BYTES", 100)):
        with monkeypatch.context() as patched:
            patched.setattr(increments, name, most)
            assert changed(folder, archive, mark).gone is None
    assert changed(folder, archive, mark).gone == [0, 1, 2, 3, 4]
    store = open_store(folder)
    store.forget(mark.sequence + 1)
    store.close()
    assert changed(folder, archive, mark).gone is None


def test_what_is_no_copy_is_left_as_it_is(tmp_path: Path) -> None:
    archive, folder = tmp_path / "a.tar", tmp_path / "origin"
    with opened(folder) as origin:
        origin.add(item(id, "first") for id in range(5))
        mark = changed(folder, archive).mark
        import_collection(archive, tmp_path / "copy")
        origin.upsert([item(1, "second"), item(9, "new")])
        found = changed(folder, archive, mark)
    with opened(tmp_path / "copy") as copy:
        before = contents(tmp_path / "copy")
        for gone, count in (([2], 6), ([1], 7), ([1, 99], 5), ([-1], 6)):
            with pytest.raises(CollectionDamaged, match="not of the state"):
                apply_increment(copy, archive, gone, count)
        assert contents(tmp_path / "copy") == before
        apply_increment(copy, archive, found.gone or [], found.num_items)
    other = CallerVectors("another", DIM)
    with (
        Collection.open(tmp_path / "other", embedder=other) as stranger,
        pytest.raises(ModelMismatch),
    ):
        apply_increment(stranger, archive, [], 2)


def test_a_mark_is_read_as_it_was_written() -> None:
    mark = Mark("c" * 32, "e", 12, 40, 1)
    assert Mark.of(str(mark)) == mark
    for wrong in ("", "a:b", "a:b:c:d:e", "a:b:1:2:3:4"):
        with pytest.raises(InvalidInput, match="no state"):
            Mark.of(wrong)
