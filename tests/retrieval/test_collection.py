"""The collection as its users see it."""

from __future__ import annotations

import itertools
import logging
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest

from tests.retrieval.fakes import BLUE, DIM, RED, CountingModel, encoded, picture, unit_vectors
from triptych.encoders.vectors import CallerVectors
from triptych.errors import (
    CollectionDamaged,
    InvalidInput,
    ModelMismatch,
    NotAvailable,
    NotFound,
    PictureError,
)
from triptych.index import INDEXES
from triptych.index.sqlite.pages import CHECKED
from triptych.retrieval.collection import Collection
from triptych.types import Item, Part

WORDS = [{"id": word, "text": word} for word in ("red shoe", "red car", "blue sky", "green tree")]


def open_own(path: Path | str, *, dim: int = DIM, name: str = "mine") -> Collection:
    return Collection.open(path, embedder=CallerVectors(name, dim))


def with_vectors(num: int, *, seed: int = 0) -> list[dict[str, Any]]:
    return [{"id": f"{at:05}", "vector": v} for at, v in enumerate(unit_vectors(num, seed=seed))]


@pytest.fixture(params=["folder", ":memory:"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Collection]:
    path = tmp_path / "c" if request.param == "folder" else request.param
    with Collection.open(path, embedder=CountingModel()) as collection:
        yield collection


def test_finds_what_was_added(collection: Collection) -> None:
    assert collection.add(WORDS) == 4
    hits = collection.search("red shoe", limit=2)
    assert [hit.id for hit in hits] == ["red shoe", "red car"]
    assert hits[0].score == pytest.approx(1.0, abs=1e-6)
    assert (hits[0].text, hits[0].modality, hits[0].found) == ("red shoe", "text", "flat")


def test_a_clock_that_goes_backwards_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = itertools.count(1_700_000_000, -3_600)  # an hour back at each look
    monkeypatch.setattr(time, "time", lambda: float(next(seconds)))
    monkeypatch.setattr(time, "time_ns", lambda: next(seconds) * 10**9)
    for turn in range(3):
        with open_own(tmp_path / "c") as collection:
            names = [collection.generation]
            collection.upsert(with_vectors(40, seed=turn))
            names.append(collection.generation)
            collection.delete(f"{turn:05}")
            names.append(collection.generation)
            collection.compact()
            assert len(set(names)) == 3 and len(collection) == 39
            hits = collection.search(vector=unit_vectors(40, seed=turn)[20], limit=1)
            assert [hit.id for hit in hits] == ["00020"]
    with open_own(tmp_path / "c") as collection:
        assert len(collection) == 39 and collection.info()["damaged"] == []


def test_who_writes_sweeps_what_a_killed_repair_left(tmp_path: Path) -> None:
    left = tmp_path / "repair.tmp" / "store.sqlite"
    left.parent.mkdir()
    left.write_bytes(b"half a store")
    with open_own(tmp_path) as collection:
        assert left.exists()  # who only searches changes nothing
        collection.add(with_vectors(3))
        assert not left.parent.exists()


def test_an_empty_collection_finds_nothing(collection: Collection) -> None:
    assert collection.search("anything") == [] and collection.count() == 0
    assert collection.search(like="nobody") == []
    with pytest.raises(InvalidInput, match="empty"):
        collection.search()


def test_pictures_keep_a_thumbnail_and_meet_words(collection: Collection, tmp_path: Path) -> None:
    (tmp_path / "blue.png").write_bytes(encoded(BLUE))
    collection.add(
        [
            Item(id="bytes", image=encoded(RED)),
            Item(id="path", image=tmp_path / "blue.png"),
            Item(id="both", image=picture(BLUE), text="the sea"),
            Item(id="text", text="shoe"),
        ]
    )
    assert collection.search("red")[0].id == "bytes"
    hit = collection.search(image=tmp_path / "blue.png")[0]
    assert (hit.id, hit.uri) == ("path", str(tmp_path / "blue.png"))
    assert hit.score == pytest.approx(1.0, abs=1e-6)
    thumbnail = collection.thumbnail("path")
    assert thumbnail is not None and thumbnail.startswith(b"\xff\xd8")
    assert collection.thumbnail("text") is None and collection.thumbnail("nobody") is None
    assert [r and r.modality for r in collection.get(["both", "nobody"])] == ["both", None]


def test_a_bad_picture_is_named_and_nothing_of_its_batch_stays(collection: Collection) -> None:
    with pytest.raises(PictureError, match="'bad'") as caught:
        collection.add([{"id": "ok", "text": "x"}, {"id": "bad", "image": b"<svg></svg>"}])
    assert caught.value.code.startswith("picture_")
    assert collection.count() == 0


@pytest.mark.parametrize(
    "item",
    [
        {"text": "no id"},
        {"id": "x"},
        {"id": 3, "text": "t"},
        {"id": "x", "text": "t", "colour": "red"},
        {"id": "x", "text": 5},
        {"id": "x", "text": "  "},
        {"id": "x", "text": "t", "metadata": {"a": {1, 2}}},
        {"id": "x", "text": "t", "metadata": "m"},
        "x",
        None,
    ],
)
def test_an_unusable_item_is_a_sentence(collection: Collection, item: Any) -> None:
    with pytest.raises(InvalidInput, match=r"\."):
        collection.add([item])
    assert collection.count() == 0


def test_add_refuses_upsert_replaces(collection: Collection) -> None:
    collection.add(WORDS)
    with pytest.raises(InvalidInput, match=r"'red car'.*upsert"):
        collection.add([{"id": "red car", "text": "changed"}, {"id": "new", "text": "new"}])
    assert collection.get("new") == [None]
    assert collection.upsert([{"id": "red car", "text": "x"}, {"id": "red car", "text": "y"}]) == 1
    record = collection.get("red car")[0]
    assert record is not None and record.text == "y" and collection.count() == 4


@pytest.mark.parametrize("ids", [[1], [None], [b"a"], [["a"]]])
def test_ids_are_strings(collection: Collection, ids: Any) -> None:
    with pytest.raises(InvalidInput, match="An id is a string"):
        collection.get(ids)
    with pytest.raises(InvalidInput, match="An id is a string"):
        collection.delete(ids)


def test_delete_counts(collection: Collection) -> None:
    collection.add(WORDS)
    assert collection.delete(["red car", "nobody", "red car"]) == 1
    assert collection.delete("blue sky") == 1
    assert [hit.id for hit in collection.search("red car")] == ["red shoe", "green tree"]


def test_a_generator_is_durable_batch_by_batch(tmp_path: Path) -> None:
    def failing() -> Iterator[dict[str, Any]]:
        yield from ({"id": str(at), "text": f"word {at}"} for at in range(70))
        raise RuntimeError("the source broke")

    with Collection.open(tmp_path / "c", embedder=CountingModel()) as collection:
        with pytest.raises(RuntimeError, match="the source broke"):
            collection.add(failing())
        assert collection.count() == 64


def test_reopening_embeds_nothing(tmp_path: Path) -> None:
    with Collection.open(tmp_path / "c", embedder=CountingModel()) as collection:
        collection.add(WORDS)
        before = collection.search("red")
    model = CountingModel()
    with Collection.open(tmp_path / "c", embedder=model) as collection:
        assert model.embedded == []
        assert collection.search("red") == before


def test_minus_like_and_parts(collection: Collection) -> None:
    collection.add(WORDS)
    assert [hit.id for hit in collection.search(like="red shoe", limit=1)] == ["red car"]
    assert collection.search("red", minus="shoe")[0].id == "red car"
    parts = [Part(text="blue"), Part(weight=2, id="red car")]
    assert "red car" not in [hit.id for hit in collection.search(parts)]
    with pytest.raises(NotFound, match="'nobody'"):
        collection.search(like="nobody")


def test_what_it_is_can_be_seen(tmp_path: Path) -> None:
    with Collection.open(tmp_path / "c", embedder=CountingModel()) as collection:
        collection.add(WORDS)
        said = f"<Collection {tmp_path / 'c'}: 4 items, {collection.embedder.name}>"
        assert repr(collection) == said
    assert repr(collection) == said


def test_limit_offset_threshold(collection: Collection) -> None:
    collection.add(WORDS)
    everything = collection.search("red", limit=10**9)
    assert len(everything) == 4
    assert collection.search("red", limit=2, offset=1) == everything[1:3]
    assert collection.search("red", offset=99) == []
    assert collection.search("red", top_k=1) == collection.search("red", k=1) == everything[:1]
    assert collection.search("red", limit=1, k=1) == everything[:1]
    cut = everything[1].score
    assert collection.search("red", threshold=cut) == everything[:2]
    assert collection.search("red", threshold=np.float32(2)) == []


@pytest.mark.parametrize(
    "arguments",
    [
        {"limit": 0},
        {"limit": -1},
        {"limit": 2.5},
        {"limit": "3"},
        {"limit": None},
        {"limit": True},
        {"k": 0},
        {"top_k": 2, "k": 3},
        {"limit": 5, "k": 3},
        {"offset": -1},
        {"threshold": "high"},
        {"threshold": float("nan")},
        {"vector": [1.0, 2.0]},
        {"vector": [float("nan")] * DIM},
        {"vector": [0.0] * DIM},
    ],
    ids=str,
)
def test_unusable_arguments_are_sentences(collection: Collection, arguments: Any) -> None:
    collection.add(WORDS)
    with pytest.raises(InvalidInput, match=r"\.$|\. "):
        collection.search(None if "vector" in arguments else "red", **arguments)


@pytest.mark.parametrize("index", INDEXES.names())
def test_equal_scores_come_by_id_even_at_the_cut(tmp_path: Path, index: str) -> None:
    same = unit_vectors(1)[0]
    ids = [f"{at:03}" for at in np.random.default_rng(0).permutation(200)]
    with Collection.open(tmp_path, embedder=CallerVectors("mine", DIM), index=index) as collection:
        collection.add({"id": id, "vector": same} for id in ids)
        for limit in (1, 7, 50, 200):
            found = [hit.id for hit in collection.search(vector=same, limit=limit)]
            assert found == sorted(ids)[:limit]
        assert [hit.id for hit in collection.search(vector=same, limit=3, offset=5)] == [
            "005",
            "006",
            "007",
        ]


def test_another_model_is_refused_by_name(tmp_path: Path) -> None:
    with Collection.open(tmp_path, embedder=CountingModel()) as collection:
        collection.add(WORDS)
    with pytest.raises(ModelMismatch, match=r"hashing:32.*got hashing:64.*triptych migrate"):
        Collection.open(tmp_path, embedder=CountingModel(dim=64))
    with pytest.raises(ModelMismatch):
        open_own(tmp_path)
    meta = Collection.peek(tmp_path)
    assert meta is not None and meta.model == "hashing:32"


def test_an_empty_collection_takes_another_model(tmp_path: Path) -> None:
    Collection.open(tmp_path, embedder=CountingModel()).close()
    with Collection.open(tmp_path, embedder=CountingModel(dim=64)) as collection:
        collection.add(WORDS)
        assert collection.info()["dim"] == 64


def test_a_vector_never_enters_a_models_collection(collection: Collection) -> None:
    with pytest.raises(ModelMismatch, match=r"'v' brings a vector.*hashing:32.*another collection"):
        collection.add([{"id": "v", "vector": unit_vectors(1)[0]}])


def test_own_vectors(tmp_path: Path) -> None:
    with open_own(tmp_path) as collection:
        items = with_vectors(50)
        collection.add([{**item, "text": "kept", "metadata": {"a": 1}} for item in items])
        hit = collection.search(vector=items[7]["vector"] * 3)[0]
        assert (hit.id, hit.modality, hit.text, hit.metadata) == (
            "00007",
            "vector",
            "kept",
            {"a": 1},
        )
        assert collection.search(like="00007", limit=1)[0].id != "00007"
        with pytest.raises(NotAvailable, match="vector="):
            collection.search("words")
        with pytest.raises(ModelMismatch, match="no vector"):
            collection.add([{"id": "t", "text": "t"}])
        with pytest.raises(InvalidInput, match=r"\(3,\).*\(32,\)"):
            collection.add([{"id": "t", "vector": [1, 2, 3]}])
        with pytest.raises(InvalidInput, match="NaN"):
            collection.add([{"id": "t", "vector": [float("nan")] * DIM}])
        assert collection.count() == 50


@pytest.mark.parametrize(
    ("vector", "complaint"),
    [
        ([float("nan")] * DIM, "'bad': .*NaN"),
        ([float("inf")] * DIM, "'bad': .*infinity"),
        ([1e308] * DIM, "'bad': .*more than"),
        ([0] * DIM, "'bad': .*zero"),
        ("words", "'bad' is not a list of real numbers"),
        ([1j] * DIM, "'bad' is not a list of real numbers"),
        ([1, [2]] * (DIM // 2), "'bad' is not a list of real numbers"),
        ([1, None] * (DIM // 2), "'bad' is not a list of real numbers"),
    ],
    ids=["nan", "infinite", "huge", "zero", "text", "complex", "ragged", "none"],
)
@pytest.mark.filterwarnings("error")
def test_of_many_vectors_the_unusable_one_is_named(
    tmp_path: Path, vector: Any, complaint: str
) -> None:
    with open_own(tmp_path) as collection:
        with pytest.raises(InvalidInput, match=complaint):
            collection.add([*with_vectors(20), {"id": "bad", "vector": vector}])
        assert collection.count() == 0
        collection.add(with_vectors(20))
        with pytest.raises(
            InvalidInput, match=complaint.replace("'bad': ", "").replace("'bad'", "the query")
        ):
            collection.search(vector=vector)


def test_an_index_of_no_known_kind_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'hnws', known: auto, flat, hnsw"):
        Collection.open(tmp_path / "c", embedder=CallerVectors("mine", DIM), index="hnws")
    assert not (tmp_path / "c").exists()


def test_ids_that_are_none_are_refused(tmp_path: Path) -> None:
    with open_own(tmp_path) as collection, pytest.raises(InvalidInput, match="None, expected"):
        collection.delete(None)  # type: ignore[arg-type]


def test_damaged_rows_are_reported_and_never_found(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    vectors = unit_vectors(20)
    with open_own(tmp_path) as collection:
        collection.add(with_vectors(20))
    connection = apsw.Connection(str(tmp_path / "store.sqlite"), vfs=CHECKED)
    connection.execute("UPDATE items SET metadata = '{\"a\":2}' WHERE id = '00003'")
    connection.close()
    # the snapshot still has its vector; the payload is wrong all the same
    for _ in range(2):
        with open_own(tmp_path) as collection, caplog.at_level(logging.WARNING):
            found = collection.search(vector=vectors[3], limit=20)
            assert len(found) == 19 and "00003" not in [hit.id for hit in found]
            assert "'00003'" in caplog.text and collection.info()["damaged"] == ["00003"]
            with pytest.raises(CollectionDamaged, match="00003"):
                collection.get("00003")
    with open_own(tmp_path) as collection:
        collection.upsert([{"id": "00003", "vector": vectors[3]}])
        assert collection.search(vector=vectors[3])[0].id == "00003"
        assert collection.info()["damaged"] == []


def test_a_reader_follows_the_writer(tmp_path: Path) -> None:
    with open_own(tmp_path) as writer, open_own(tmp_path) as reader:
        items = with_vectors(30)
        writer.add(items[:20])
        assert len(reader.search(vector=items[0]["vector"], limit=99)) == 20
        writer.delete(["00000"])
        writer.upsert([{"id": "00001", "vector": items[25]["vector"]}])
        hits = reader.search(vector=items[25]["vector"], limit=99)
        assert len(hits) == 19 and hits[0].id == "00001"


def test_threads_search_while_one_writes(tmp_path: Path) -> None:
    vectors = unit_vectors(400)
    with open_own(tmp_path) as collection:
        collection.add(with_vectors(50))
        errors: list[BaseException] = []
        done = threading.Event()

        def search() -> None:
            try:
                for at in itertools.count():
                    if done.is_set():
                        return
                    hits = collection.search(vector=vectors[at % 400], limit=5)
                    assert len(hits) == 5 and len({hit.id for hit in hits}) == 5
                    assert hits == sorted(hits, key=lambda hit: (-hit.score, hit.id))
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=search) for _ in range(4)]
        for thread in threads:
            thread.start()
        for at in range(50, 400, 10):
            collection.upsert({"id": f"{n:05}", "vector": vectors[n]} for n in range(at, at + 10))
            collection.delete([f"{at:05}"])
        done.set()
        for thread in threads:
            thread.join()
        assert errors == [] and collection.count() == 365


def test_closing_twice_and_searching_after(tmp_path: Path) -> None:
    collection = open_own(tmp_path)
    collection.add(with_vectors(3))
    collection.close()
    collection.close()
    with pytest.raises(NotAvailable, match="closed"):
        collection.search(vector=unit_vectors(1)[0])


def test_who_goes_elsewhere_keeps_the_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with open_own("c") as collection:
        monkeypatch.chdir("/")
        collection.add(with_vectors(3))
        assert len(collection.search(vector=unit_vectors(1)[0])) == 3
    with open_own(tmp_path / "c") as collection:
        assert len(collection) == 3


def test_a_file_is_no_collection(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InvalidInput, match="is a file"):
        open_own(tmp_path / "file")
    with pytest.raises(NotAvailable):
        open_own(tmp_path / "file" / "below")


def test_a_store_that_is_gone_is_not_begun_anew(tmp_path: Path) -> None:
    with open_own(tmp_path) as collection:
        collection.add(with_vectors(3))
    (tmp_path / "store.sqlite").unlink()
    with pytest.raises(CollectionDamaged, match="missing or empty"):
        open_own(tmp_path)


@pytest.mark.parametrize("name", ["lock", "reserve", "generation", "writer.sock", "index"])
@pytest.mark.parametrize("is_folder", [False, True])
def test_what_somebody_else_keeps_under_a_name_of_ours_is_left_alone(
    tmp_path: Path, name: str, is_folder: bool
) -> None:
    own = tmp_path / name / "own" if is_folder else tmp_path / name
    own.parent.mkdir(exist_ok=True)
    own.write_text("7 doors")
    with pytest.raises(InvalidInput, match=f"holds a '{name}' that no collection made"):
        open_own(tmp_path)
    assert own.read_text() == "7 doors" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("torn", [b"", b"4", b"4711\n", b"\0\0\0\0\0"])
def test_a_lock_that_was_torn_is_ours_all_the_same(tmp_path: Path, torn: bytes) -> None:
    (tmp_path / "lock").write_bytes(torn)
    with open_own(tmp_path) as collection:
        assert collection.add(with_vectors(3)) == 3


def test_what_a_collection_left_is_no_hindrance(tmp_path: Path) -> None:
    with open_own(tmp_path) as collection:
        collection.add(with_vectors(3))
    for path in (tmp_path / "store.sqlite", tmp_path / "generation", *tmp_path.glob("index/*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    (tmp_path / "index").rmdir()
    assert (tmp_path / "lock").exists() and (tmp_path / "reserve").exists()
    with open_own(tmp_path) as collection:
        assert collection.add(with_vectors(3)) == 3


def test_compact_keeps_every_answer(tmp_path: Path) -> None:
    with open_own(tmp_path) as collection:
        collection.add(with_vectors(100))
        collection.delete([f"{at:05}" for at in range(50)])
        before = collection.search(vector=unit_vectors(1)[0], limit=100)
        collection.compact()
        assert (tmp_path / "store.sqlite-wal").stat().st_size < 65_536
        assert collection.search(vector=unit_vectors(1)[0], limit=100) == before
    with open_own(tmp_path) as collection:
        assert collection.search(vector=unit_vectors(1)[0], limit=100) == before


def test_an_interrupt_between_store_and_index_is_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    vectors = unit_vectors(6)
    with open_own(tmp_path) as collection:
        collection.add(with_vectors(5))
        with monkeypatch.context() as patch:
            patch.setattr("triptych.retrieval.live.LiveIndex.follow", interrupted)
            with pytest.raises(KeyboardInterrupt):
                collection.upsert([{"id": "00000", "vector": vectors[5]}])
        assert collection.search(vector=vectors[5], limit=1)[0].id == "00000"
        assert len(collection.search(vector=vectors[5], limit=9)) == 5


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("index", ["flat", "hnsw"])
def test_what_is_deleted_is_nowhere_after_compact(tmp_path: Path, index: str) -> None:
    vectors = unit_vectors(400)
    with Collection.open(tmp_path, embedder=CallerVectors("mine", DIM), index=index) as collection:
        collection.add(
            {
                "id": f"i{at}",
                "vector": v,
                "text": f"secret{at} kept",
                "metadata": {"m": f"mark{at}"},
            }
            for at, v in enumerate(vectors)
        )
        collection.optimize()
        collection.compact()
        traces = [b"secret7 ", b'mark7"', vectors[7].tobytes()]
        assert all(trace in everything_in(tmp_path) for trace in traces)
        collection.delete("i7")
        collection.upsert([{"id": "i8", "vector": vectors[8], "text": "another"}])
        collection.compact()
        content = everything_in(tmp_path)
        assert not [trace for trace in [*traces, b"secret8 ", b'mark8"'] if trace in content]
        assert b"secret9 " in content and vectors[9].tobytes() in content


def test_closing_a_store_that_is_mostly_free_gives_the_room_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triptych.index.sqlite.store._WORTH_COMPACTING", 100_000)
    with open_own(tmp_path) as collection:
        collection.add({**item, "text": "long " * 500} for item in with_vectors(400))
        collection.delete([f"{at:05}" for at in range(390)])
        before = (tmp_path / "store.sqlite").stat().st_size
    assert (tmp_path / "store.sqlite").stat().st_size < before / 4
    with open_own(tmp_path) as collection:
        assert (
            collection.count() == len(collection.search(vector=unit_vectors(1)[0], limit=99)) == 10
        )
