"""A remembered answer is the answer."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.retrieval.fakes import BLUE, RED, CountingModel, encoded, paint, picture
from triptych.cache.memory import MemoryCache
from triptych.errors import InvalidInput, PictureError, TriptychError
from triptych.retrieval.answering import answer_cache_async
from triptych.retrieval.answering.answer_cache import SEARCH, AnswerCache, AnswerCacheConfig
from triptych.retrieval.collection import Collection
from triptych.types import Part

ITEMS: list[dict[str, Any]] = [
    {
        "id": f"{at:02}",
        "text": f"{colour} {thing}",
        "metadata": {"at": at, "of": [colour, {"t": thing}]},
    }
    for at, (colour, thing) in enumerate(
        (colour, thing)
        for colour in ("red", "green", "blue")
        for thing in ("car", "dog", "hat", "cup")
    )
]


class Asked:
    """A collection, the same behind an answer cache, and how often it really searched."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = MemoryCache(10**7)
        self.collection = Collection.open(folder, embedder=CountingModel())
        self.plain = Collection.open(folder, embedder=CountingModel())
        self.collection.add(ITEMS)
        self.searched = 0
        hits = self.collection._hits

        def counted(*asked: Any) -> Any:
            self.searched += 1
            return hits(*asked)

        self.collection._hits = counted  # type: ignore[method-assign]
        self.answers = AnswerCache(self.collection, cache=self.cache).attach()

    def check(self, *args: Any, **options: Any) -> None:
        """Search twice; both are right, and the second costs nothing."""
        expected = self.plain.search(*args, **options)
        assert self.collection.search(*args, **options) == expected
        before = self.searched
        assert self.collection.search(*args, **options) == expected
        assert self.searched == before


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Asked]:
    made = Asked(tmp_path / "c")
    yield made
    made.collection.close()
    made.plain.close()


QUESTIONS: list[tuple[tuple[Any, ...], dict[str, Any]]] = [
    (("red car",), {}),
    (("red car",), {"limit": 3}),
    (("red car",), {"limit": 3, "offset": 1}),
    (("red car",), {"filter": {"at": {"$lt": 5}}}),
    (("red car",), {"filter": {"at": {"$lt": 6}}}),
    (("red car",), {"threshold": 0.1}),
    (("red car",), {"hybrid": True}),
    (("red car",), {"hybrid": 1}),
    (("red car",), {"diversity": 0.5}),
    (("red car",), {"diversity": 1}),
    (("red car",), {"group_by": "of"}),
    (("red car",), {"group_by": "of", "group_size": 2}),
    (("red car",), {"minus": "dog"}),
    (("red car dog",), {}),
    (([Part(text="red car"), Part(text="dog", weight=-1.0)],), {"limit": 4}),
    (([Part(text="red car"), Part(text="dog", weight=-0.5)],), {"limit": 4}),
    ((), {"like": "03"}),
    (("03",), {}),
    ((), {"vector": np.eye(1, 32)[0]}),
    ((), {"vector": np.eye(1, 32)[0].tolist()}),
    ((), {"vector": np.eye(1, 32, 1)[0]}),
    ((), {"image": picture(RED)}),
    ((), {"image": encoded(RED)}),
    ((), {"image": picture(BLUE)}),
    (("red",), {"image": picture(BLUE)}),
]


def test_every_question_has_an_answer_of_its_own(asked: Asked) -> None:
    for _ in range(2):
        for args, options in QUESTIONS:
            asked.check(*args, **options)


def test_equal_questions_said_otherwise_are_one(asked: Asked) -> None:
    asked.check("red car", limit=5)
    before = asked.searched
    asked.collection.search(Part(text="red car"), top_k=5, hybrid=0.0, filter={})
    assert asked.searched == before


def test_the_hits_are_the_callers_own(asked: Asked) -> None:
    for _ in range(3):
        for hit in asked.collection.search("red car"):
            hit.metadata["at"] = "spoiled"  # type: ignore[index]
            hit.metadata["of"][1]["t"] = "spoiled"
    asked.check("red car")


def test_a_write_of_anybody_ends_what_was_remembered(asked: Asked) -> None:
    asked.check("red car")
    asked.collection.upsert([{"id": "new", "text": "red car"}])
    asked.check("red car")
    assert "new" in [hit.id for hit in asked.collection.search("red car")]
    asked.plain.delete("new")  # over the socket: by the writer's process, for another
    asked.check("red car")
    code = (
        "import sys; from triptych.retrieval.collection import Collection\n"
        "from tests.retrieval.fakes import CountingModel\n"
        "with Collection.open(sys.argv[1], embedder=CountingModel()) as c:\n"
        "    c.upsert([{'id': 'other', 'text': 'red car'}])\n"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, str(asked.folder)], check=True)
        asked.check("red car")
        assert "other" in [hit.id for hit in asked.collection.search("red car")]
        asked.collection.close()  # now the other process writes by itself
        asked.plain.close()
        asked.plain = Collection.open(asked.folder, embedder=CountingModel())
        asked.collection = Collection.open(asked.folder, embedder=CountingModel())
        asked.answers = AnswerCache(asked.collection, cache=asked.cache).attach()
        asked.check("red car")


def test_a_reader_sees_what_another_process_wrote(asked: Asked) -> None:
    """The reader never searches in between: only the counter tells it."""
    answers = AnswerCache(asked.plain, cache=asked.cache)
    keys = {answers.key("x", None)}
    for at in range(5):
        asked.collection.upsert([{"id": "new", "text": f"car {at}"}])
        keys.add(answers.key("x", None))
        assert answers.key("x", None) in keys
    assert len(keys) == 6


def test_a_dropped_collection_of_the_same_name_is_another(tmp_path: Path) -> None:
    cache = MemoryCache(10**6)
    found = []
    for name in ("a", "b"):
        with Collection.open(tmp_path / name, embedder=CountingModel()) as collection:
            AnswerCache(collection, cache=cache).attach()
            collection.add([{"id": name, "text": "red car"}])
            found.append(collection.search("red car")[0].id)
    assert found == ["a", "b"]


def test_a_thousand_equal_questions_cost_one(asked: Asked) -> None:
    begin = threading.Barrier(50)
    found = []

    def work() -> None:
        begin.wait()
        for _ in range(20):
            found.append([hit.id for hit in asked.collection.search("green hat")])

    threads = [threading.Thread(target=work) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1000 and all(ids == found[0] for ids in found)
    assert asked.searched == 1


def test_a_picture_that_changes_on_disk_is_another_question(asked: Asked, tmp_path: Path) -> None:
    path = paint(tmp_path / "x.png", RED)
    asked.check(image=path)
    paint(path, BLUE)
    asked.check(image=path)


@pytest.mark.parametrize(
    "options",
    [
        {"image": "missing.png"},
        {"image": b"no picture"},
        {"vector": "no vector"},
        {"vector": [1.0]},
        {"query": "red", "limit": 0},
        {"query": ""},
        {"like": "nobody"},
        {"query": "red", "filter": {"at": {"$no": 1}}},
    ],
)
def test_errors_are_the_same(options: dict[str, Any], asked: Asked) -> None:
    with pytest.raises((TriptychError, ValueError)) as expected:
        asked.plain.search(**options)
    for _ in range(2):
        with pytest.raises(type(expected.value)) as got:
            asked.collection.search(**options)
        assert str(got.value) == str(expected.value)


def test_what_lies_in_the_cache_and_is_no_answer_is_not_used(asked: Asked) -> None:
    asked.check("red car")
    for body in (b"", b"{}", b"[1]", b'[["id"]]', b"[[1,2,3,4,5,6,7,8]]", b"\x80\x04."):
        for key in list(asked.cache._held):
            asked.cache.put_many([(key, body)])
        asked.answers._unpacked.clear()
        asked.check("red car")


def test_serialised_answers(asked: Asked) -> None:
    calls = []

    def compute() -> bytes:
        calls.append(1)
        return b"body"

    key = asked.answers.key("http", {"query": "red", "limit": 10})
    assert asked.answers.near(key) is None
    assert asked.answers.get_or_compute(key, compute) == (b"body", SEARCH)
    assert asked.answers.get_or_compute(key, compute) == (b"body", "memory")
    assert asked.answers.near(key) == b"body"
    assert asked.answers.key("http", {"limit": 10, "query": "red"}) == key
    assert asked.answers.key("http", {"limit": 10.0, "query": "red"}) != key
    assert len(calls) == 1
    asked.collection.delete("00")
    again = asked.answers.key("http", {"query": "red", "limit": 10})
    assert again != key and asked.answers.near(again) is None
    with pytest.raises(TypeError):
        asked.answers.key("http", object())


def test_coroutines_and_threads_share_one_search(asked: Asked) -> None:
    calls = []

    async def compute() -> bytes:
        calls.append(1)
        await asyncio.sleep(0.05)
        return b"body"

    def slowly() -> bytes:
        calls.append(1)
        time.sleep(0.05)
        return b"body"

    async def all_at_once() -> list[Any]:
        key = asked.answers.key("http", "x")
        threads = [asyncio.to_thread(asked.answers.get_or_compute, key, slowly) for _ in range(4)]
        tasks = [answer_cache_async.get_or_compute(asked.answers, key, compute) for _ in range(100)]
        return await asyncio.gather(*threads, *tasks)

    found = asyncio.run(all_at_once())
    assert {answer.body for answer in found} == {b"body"} and len(calls) == 1


def test_an_error_reaches_all_that_wait_and_is_not_remembered(asked: Asked) -> None:
    key = asked.answers.key("http", "x")

    def fail() -> bytes:
        raise InvalidInput("no")

    for _ in range(2):
        with pytest.raises(InvalidInput):
            asked.answers.get_or_compute(key, fail)
    assert asked.answers.get_or_compute(key, lambda: b"yes").body == b"yes"


def test_pictures_errors_name_the_file(asked: Asked, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(encoded(RED)[:60])
    with pytest.raises(PictureError, match=r"broken\.png"):
        asked.collection.search(image=broken)


def test_an_answer_is_kept_for_its_time(asked: Asked) -> None:
    cache = MemoryCache(10**6)
    AnswerCache(asked.collection, cache=cache, config=AnswerCacheConfig(ttl=0.2)).attach()
    asked.collection.search("red car")
    time.sleep(0.25)
    before = asked.searched
    asked.collection.search("red car")
    assert asked.searched == before + 1
