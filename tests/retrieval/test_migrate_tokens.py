"""Another model for a collection that reranks: its token states come with its vectors."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import threading
import time
from collections import namedtuple
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.retrieval.fakes import CountingModel
from tests.retrieval.migrating import Turned, answers, migrate_there, open_here
from tests.retrieval.test_migrate import PROCESSES, words
from triptych.encoders.base import EmbeddingModel
from triptych.errors import InvalidInput, ModelMismatch, NotAvailable
from triptych.index.sqlite.records import Tokens
from triptych.retrieval.collection import Collection
from triptych.retrieval.folder import open_store
from triptych.retrieval.late import stored_tokens
from triptych.retrieval.maintenance.migrate import MigrateOptions, drop_old, migrate, previous
from triptych.retrieval.maintenance.portable import export_collection, import_collection
from triptych.retrieval.maintenance.repair import repair
from triptych.retrieval.maintenance.verify import verify
from triptych.types import Item, Matrix

reranked = partial(answers, rerank=40)


class Plain:
    """A model of another space, without token states."""

    name, fingerprint, dim = "plain:16", "plain" * 8, 16

    def __init__(self) -> None:
        self._model = CountingModel(dim=16)

    def embed(self, items: list[Item]) -> Matrix:
        return self._model.embed(items)


def opened(path: Path, **options: Any) -> Collection:
    return open_here(path, tokens=True, **options)


def anew(model: EmbeddingModel, items: list[dict[str, Any]]) -> Collection:
    collection = Collection.open(":memory:", embedder=model, tokens=True)
    collection.add(items)
    return collection


def states(collection: Collection) -> dict[str, Tokens]:
    """What is kept of each item in the space that is searched, bit for bit."""
    store = collection._store
    with store.view() as view:
        return {
            entry.id: entry.tokens
            for some in view.entries()
            for entry in some
            if entry.tokens is not None
        }


def same_as_fresh(collection: Collection, model: CountingModel) -> None:
    """Vectors and states are, bit for bit, those of a new collection with this model."""
    kept = states(collection)
    records = [record for record in collection.get(list(kept)) if record is not None]
    assert len(records) == len(collection)
    items = [{"id": record.id, "text": record.text} for record in records]
    with anew(model, items) as fresh:
        names = [record.id for record in records]
        assert np.array_equal(collection.vectors(names), fresh.vectors(names))
        expected = states(fresh)
    assert kept.keys() == expected.keys()
    assert all(np.array_equal(kept[id], expected[id]) for id in kept)


@pytest.mark.parametrize("model", [Turned(), CountingModel(dim=64)], ids=lambda model: model.name)
def test_states_come_with_the_vectors_and_go_back_with_them(
    tmp_path: Path, model: CountingModel
) -> None:
    with opened(tmp_path) as collection:
        collection.add(words(150))
        before, states_before = reranked(collection), states(collection)
        migrate(collection, model)
        same_as_fresh(collection, model)
        with anew(model, words(150)) as fresh:
            assert reranked(collection) == reranked(fresh) != before
        assert collection.info()["token_width"] == model.token_width
        assert [one["token_width"] for one in collection.info()["spaces"]] == [32, model.dim]
        assert migrate(collection, CountingModel()).embedded == 0
        assert reranked(collection) == before
        assert states(collection).keys() == states_before.keys()
        collection.upsert([{"id": "0001", "text": "changed"}, {"id": "new", "text": "a new one"}])
        collection.delete("0002")
        assert migrate(collection, model).embedded == 2
        same_as_fresh(collection, model)
    with open_here(tmp_path) as collection:
        same_as_fresh(collection, model)
        assert previous(collection).token_width == 32
    assert verify(tmp_path).ok


def test_dropped_with_the_old_vectors_nothing_of_them_stays(tmp_path: Path) -> None:
    with opened(tmp_path) as collection:
        collection.add(words(60))
        items = [Item(id=one["id"], text=str(one["text"])) for one in words(3)]
        old = stored_tokens(CountingModel(), items, 32)
        needles = [one.tobytes() for one in old if one is not None]
        migrate(collection, Turned())
        collection.compact()
        assert any(needle in all_bytes(tmp_path) for needle in needles)
        assert drop_old(collection) == 1
        same_as_fresh(collection, Turned())
    found = all_bytes(tmp_path)
    assert not any(re.search(re.escape(needle), found) for needle in needles)


def all_bytes(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


def test_a_deleted_item_leaves_every_space(tmp_path: Path) -> None:
    with opened(tmp_path) as collection:
        collection.add(words(30))
        migrate(collection, Turned())
        item = Item(id="0003", text=str(words(4)[3]["text"]))
        needles = [
            one.tobytes()
            for model in (CountingModel(), Turned())
            for one in stored_tokens(model, [item], 32)
            if one is not None
        ]
        assert all(needle in all_bytes(tmp_path) for needle in needles)
        collection.delete("0003")
        collection.compact()
    assert not any(needle in all_bytes(tmp_path) for needle in needles)


def test_a_model_without_states_is_refused_before_the_work(tmp_path: Path) -> None:
    plain = Plain()
    with opened(tmp_path) as collection:
        collection.add(words(20))
        before = reranked(collection)
        with pytest.raises(NotAvailable, match="plain:16 gives no token states") as error:
            migrate(collection, plain)
        assert "--drop-tokens" in str(error.value.hint)
        assert len(collection.info()["spaces"]) == 1 and reranked(collection) == before
        report = migrate(collection, plain, MigrateOptions(drop_tokens=True))
        assert report.embedded == 20
        assert "token_width" not in collection.info()
        with pytest.raises(InvalidInput, match="no token states"):
            collection.search("red", rerank=5)
        collection.add([{"id": "new", "text": "a red one"}])
        assert migrate(collection, CountingModel()).embedded == 1
        assert collection.info()["with_tokens"] == 21
        collection.delete("new")
        assert reranked(collection) == before


@pytest.mark.parametrize("handed_over", [False, True])
def test_the_model_that_is_searched_can_lose_its_states(
    tmp_path: Path, *, handed_over: bool
) -> None:
    items = [Item(id=one["id"], text=str(one["text"])) for one in words(3)]
    needles = [
        one.tobytes() for one in stored_tokens(CountingModel(), items, 32) if one is not None
    ]
    drop = MigrateOptions(drop_tokens=True)
    with opened(tmp_path) as collection, open_here(tmp_path) as follower:
        collection.add(words(60))
        collection.compact()
        assert all(needle in all_bytes(tmp_path) for needle in needles)
        before, generation = answers(follower), collection._store.generation
        model = CountingModel()
        report = migrate(follower if handed_over else collection, model, drop)
        assert (report.without_tokens, report.embedded, model.embedded) == (60, 0, [])
        assert collection._store.generation != generation
        assert not any(needle in all_bytes(tmp_path) for needle in needles)
        assert answers(collection) == answers(follower) == before
        for one in (collection, follower):
            assert "token_width" not in one.info() and len(one.info()["spaces"]) == 1
            with pytest.raises(InvalidInput, match="no token states"):
                one.search("red", rerank=5)
            one.upsert([{"id": "0001", "text": "changed"}])
        assert migrate(collection, CountingModel(), drop).without_tokens == 0
    with open_here(tmp_path) as collection:
        assert len(collection) == 60
    assert verify(tmp_path).ok


def test_the_choice_can_be_changed_halfway(tmp_path: Path) -> None:
    with opened(tmp_path) as collection:
        collection.add(words(300))
        model = Turned()
        model.left = 128
        with pytest.raises(KeyboardInterrupt):
            migrate(collection, model)
        assert migrate(collection, Turned(), MigrateOptions(drop_tokens=True)).embedded == 172
        assert "token_width" not in collection.info()
        assert migrate(collection, CountingModel()).embedded == 0
        # all of them lack states
        assert migrate(collection, Turned()).embedded == 300
        same_as_fresh(collection, Turned())


def test_an_interrupted_one_goes_on_where_it_was(tmp_path: Path) -> None:
    with opened(tmp_path) as collection:
        collection.add(words(300))
        before = reranked(collection)
        model = Turned()
        model.left = 150
        with pytest.raises(KeyboardInterrupt):
            migrate(collection, model)
        assert reranked(collection) == before
    with open_here(tmp_path) as collection:
        assert [one["vectors"] for one in collection.info()["spaces"]] == [300, 128]
        assert migrate(collection, Turned()).embedded == 300 - 128
        same_as_fresh(collection, Turned())


def test_every_order_meanwhile_is_the_old_one_or_the_new_one(tmp_path: Path) -> None:
    stop, seen = threading.Event(), []
    with (
        opened(tmp_path) as collection,
        open_here(tmp_path) as follower,
        anew(Turned(), words(300)) as fresh,
    ):
        collection.add(words(300))
        old, new = reranked(collection), reranked(fresh)

        def look(at: Collection) -> None:
            while not stop.is_set():
                try:
                    seen.extend(reranked(at))
                except Exception as error:
                    seen.append(repr(error))

        readers = [threading.Thread(target=look, args=(one,)) for one in (collection, follower)]
        for reader in readers:
            reader.start()
        # the follower hands its vectors and states over
        for migrating, goal in (
            (collection, Turned()), (follower, CountingModel()), (follower, Turned()),
        ):  # fmt: skip
            migrate(migrating, goal)
            time.sleep(0.1)
        stop.set()
        for reader in readers:
            reader.join()
        assert [one for one in seen if one not in (*old, *new)] == []
        assert set(old) | set(new) == set(seen)
        assert reranked(follower) == reranked(collection) == new


def test_another_process_hands_states_over_while_this_one_writes(tmp_path: Path) -> None:
    with opened(tmp_path) as collection:
        collection.add(words(200))
        child = PROCESSES.Process(target=migrate_there, args=(tmp_path, 0.005))
        child.start()
        turn = 0
        while child.is_alive():
            collection.upsert([{"id": f"{turn % 250:04}", "text": f"a red boat {turn}"}])
            turn += 1
        assert child.exitcode == 0
        collection.upsert([{"id": "last", "text": "a red boat"}])
        assert collection.embedder.fingerprint == Turned().fingerprint
        same_as_fresh(collection, Turned())
        assert collection.search("a red boat", limit=300, rerank=300)[0].found == "flat+rerank"


def test_states_made_before_a_choice_are_made_anew_after_it(tmp_path: Path) -> None:
    with opened(tmp_path) as collection, open_here(tmp_path) as other:
        collection.add(words(20))
        other.add([{"id": "x", "text": "red"}])
        entries = next(iter(view_entries(collection)))
        migrate(collection, Turned())
        migrate(collection, CountingModel(), MigrateOptions(drop_tokens=True))
        store, fingerprint = collection._store, CountingModel().fingerprint
        with pytest.raises(ModelMismatch, match="Token states are kept by now, or are not"):
            store.write(entries, replace=True, fingerprint=fingerprint)
        other.add([{"id": "y", "text": "red"}])
        assert "y" in {hit.id for hit in collection.search("red", limit=30)}


def view_entries(collection: Collection) -> list[Any]:
    with collection._store.view() as view:
        return list(view.entries())


def test_what_is_kept_after_it_travels_and_is_checked(tmp_path: Path) -> None:
    with opened(tmp_path / "c") as collection:
        collection.add(words(40))
        migrate(collection, CountingModel(dim=64))
        expected = reranked(collection)
    store = open_store(tmp_path / "c")
    export_collection(store, tmp_path / "file")
    store.close()
    assert import_collection(tmp_path / "file", tmp_path / "other").token_width == 64
    with open_here(tmp_path / "other") as again:
        assert reranked(again) == expected
    with open_here(tmp_path / "c") as collection, collection._store._changing() as connection:
        connection.execute("UPDATE tokens_2 SET states = zeroblob(length(states)) WHERE row = 2")
        connection.execute("UPDATE tokens SET states = zeroblob(length(states)) WHERE row = 3")
    found = verify(tmp_path / "c")
    assert {(one.part, one.id) for one in found.findings} == {
        ("tokens", "0001"), ("tokens", "0002"),
    }  # fmt: skip
    assert repair(found).without_tokens == ["0001"]
    assert verify(tmp_path / "c").ok
    with open_here(tmp_path / "c") as collection:
        assert collection.info()["with_tokens"] == 39
        spaces = collection.info()["spaces"]
        assert [(one["model"], one["vectors"]) for one in spaces] == [
            ("hashing:64", 39), ("hashing:32", 39),
        ]  # fmt: skip
        assert migrate(collection, CountingModel()).embedded == 1
        assert collection.info()["with_tokens"] == 40


def test_the_room_for_states_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with opened(tmp_path) as collection:
        collection.add([{"id": f"{n}", "text": "red " * 600} for n in range(150)])
        usage = namedtuple("usage", "total used free")
        needs = 150 * (2 * 4 * 32 + 64) + (32 << 20)
        monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, needs + (1 << 20)))
        with pytest.raises(NotAvailable, match=r"take .* MB"):
            migrate(collection, Turned())
        migrate(collection, Turned(), MigrateOptions(drop_tokens=True))


@pytest.mark.slow
@pytest.mark.parametrize("drop_tokens", [False, True])
def test_a_kill_at_any_moment(tmp_path: Path, drop_tokens: bool) -> None:
    path, rng = tmp_path / "c", random.Random(9)
    options = MigrateOptions(drop_tokens=drop_tokens)
    model = Turned()
    with opened(path) as collection:
        collection.add(words(300))
        old = reranked(collection)
    with anew(model, words(300)) as fresh:
        new = reranked(fresh)
    shutil.copytree(path, tmp_path / "whole")
    began = time.perf_counter()
    child = PROCESSES.Process(target=migrate_there, args=(tmp_path / "whole", 0.005, options))
    child.start()
    child.join()
    whole = time.perf_counter() - began
    num_switched = 0
    for kill in range(12):
        copy = tmp_path / f"c{kill}"
        shutil.copytree(path, copy)
        for _ in range(rng.randrange(1, 4)):
            child = PROCESSES.Process(target=migrate_there, args=(copy, 0.005, options))
            child.start()
            time.sleep(rng.uniform(0.0, 1.2 * whole))
            with suppress(ProcessLookupError):
                os.kill(child.pid or 0, signal.SIGKILL)
            child.join()
        assert verify(copy).ok
        with open_here(copy) as collection:
            is_new = collection.embedder.fingerprint == model.fingerprint
            num_switched += is_new
            if not (is_new and drop_tokens):
                assert reranked(collection) == (new if is_new else old)
            migrate(collection, Turned(), options)
            if not drop_tokens:
                assert reranked(collection) == new
                same_as_fresh(collection, Turned())
        shutil.rmtree(copy)
    assert 0 < num_switched < 12
