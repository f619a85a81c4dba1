"""The log of queries, answers that are ready, and what is tidied up after a change."""

from __future__ import annotations

import json
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.redis_server import RedisServer
from tests.retrieval.fakes import RED, CountingModel, picture
from triptych.cache.circuit_breaker import CircuitBreakerConfig
from triptych.cache.memory import MemoryCache
from triptych.cache.redis import RedisCache, RedisConfig
from triptych.cache.tiered import TieredCache
from triptych.retrieval.answering.answer_cache import AnswerCache, AnswerCacheConfig
from triptych.retrieval.answering.near import NearQueries
from triptych.retrieval.answering.query_log import QueryLog
from triptych.retrieval.answering.questions import ids_in
from triptych.retrieval.answering.upkeep import Upkeep, UpkeepConfig
from triptych.retrieval.collection import Collection
from triptych.types import Part

ITEMS = [
    {"id": f"{colour} {thing}", "text": f"{colour} {thing}", "metadata": {"thing": thing}}
    for colour in ("red", "green", "blue")
    for thing in ("car", "dog", "hat")
]


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    with Collection.open(tmp_path / "c", embedder=CountingModel()) as made:
        made.add(ITEMS)
        yield made


def test_the_log_counts_and_survives(tmp_path: Path) -> None:
    log = QueryLog(tmp_path / "q.json")
    for times, question in ((3, "a"), (5, "b"), (1, "c")):
        for _ in range(times):
            log.note(question)
    assert log.top(2) == ["b", "a"]
    log.save()
    other = QueryLog(tmp_path / "q.json")  # another process
    for _ in range(3):
        other.note("a")
    other.save()
    log.note("c")
    log.save()
    assert QueryLog(tmp_path / "q.json").top(9) == ["a", "b", "c"]
    assert stat.S_IMODE((tmp_path / "q.json").stat().st_mode) == 0o600
    log.drop(lambda question: question == "b")
    assert log.top(9) == ["a", "c"]
    log.clear()
    log.clear()
    assert log.top(9) == [] and list(tmp_path.iterdir()) == []


def test_the_log_is_capped_and_says_when_to_save(tmp_path: Path) -> None:
    log = QueryLog(tmp_path / "q.json", most=10)
    due = 0
    for at in range(1_000):
        if log.note("often" if at % 2 else str(at)):
            due += 1
            log.save()
    assert due == 3
    assert len(json.loads((tmp_path / "q.json").read_text())["queries"]) == 10
    assert log.top(1) == ["often"]
    log.save()
    assert len(log.top(100)) == 10


ENDLESS = b'{"version":1,"queries":[["x",1e999]]}'


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff", b'{"version":2}', ENDLESS])
def test_a_damaged_log_says_nothing(body: bytes, tmp_path: Path) -> None:
    (tmp_path / "q.json").write_bytes(body)
    log = QueryLog(tmp_path / "q.json")
    assert log.top(9) == []
    log.note("x")
    log.save()
    assert QueryLog(tmp_path / "q.json").top(9) == ["x"]


def test_what_is_no_question_is_left_out_and_dropped(
    collection: Collection, tmp_path: Path
) -> None:
    log = QueryLog(tmp_path / "q.json")
    upkeep = Upkeep(AnswerCache(collection, cache=MemoryCache(10**6)).attach(), log=log)
    for broken in ("{", "[]", "{}", '{"parts": [1]}', "null"):
        log.note(broken)
    assert upkeep.warm() == 0
    upkeep.tidy()
    assert log.top(9) == []


def test_a_log_that_cannot_be_written_harms_nobody(tmp_path: Path) -> None:
    log = QueryLog(tmp_path / "missing" / "q.json")
    log.note("x")
    log.save()
    log.drop(lambda question: True)
    assert log.top(9) == ["x"]
    for at in range(3_000):
        if log.note(f"{at}"):
            log.note("x")
            log.save()
    assert log.top(1) == ["x"]
    assert len(log.top(9_999)) < 2_500


QUESTIONS: list[dict[str, Any]] = [
    {"query": "red car"},
    {"query": [Part(text="red dog"), Part(text="hat", weight=-0.5)], "limit": 2, "offset": 1},
    {"query": "hat", "filter": {"thing": {"$in": ["hat", "dog"]}}, "diversity": 0.3},
    {"like": "red car", "threshold": 0.1, "group_by": "thing", "group_size": 2},
    {"query": "blue hat", "hybrid": True},
]


def test_what_was_asked_most_is_ready_at_the_next_start(
    collection: Collection, tmp_path: Path
) -> None:
    log = QueryLog(tmp_path / "q.json")
    Upkeep(AnswerCache(collection, cache=MemoryCache(10**6)).attach(), log=log)
    for question in QUESTIONS:
        for _ in range(2):
            collection.search(**question)
    collection.search(image=picture(RED))  # no picture and no vector is kept
    collection.search(vector=np.eye(1, 32)[0])
    log.save()

    fresh = AnswerCache(collection, cache=MemoryCache(10**6)).attach()
    upkeep = Upkeep(fresh, log=QueryLog(tmp_path / "q.json"))
    assert upkeep.warm() == len(QUESTIONS)
    searched = []
    look = collection._hits
    collection._hits = lambda *asked: searched.append(asked) or look(*asked)  # type: ignore[method-assign,func-returns-value]
    for question in QUESTIONS:
        collection.search(**question)
    assert not searched
    collection.search("unknown")
    assert len(searched) == 1
    counts = QueryLog(tmp_path / "q.json")._read()
    assert set(counts.values()) == {2}, "asking again is not being asked"
    upkeep.close()
    upkeep.close()


def timers() -> set[threading.Thread]:
    return {one for one in threading.enumerate() if isinstance(one, threading.Timer)}


def test_a_delete_reaches_the_log_and_redis(
    collection: Collection, tmp_path: Path, redis_server: RedisServer
) -> None:
    before = timers()  # whoever opened a collection elsewhere in this process may have some
    patient = RedisConfig(timeout=5.0, breaker=CircuitBreakerConfig(slow=5.0))
    cache = TieredCache([MemoryCache(10**6), RedisCache(redis_server.url, config=patient)])
    answers = AnswerCache(collection, cache=cache).attach()
    log = QueryLog(tmp_path / "q.json")
    upkeep = Upkeep(answers, log=log, config=UpkeepConfig(pause=0.05))
    other = AnswerCache(collection, cache=cache, name="other")
    other.put(other.key("x", 1), b"another collection's")
    for question in ({"query": "green hat"}, {"like": "green dog"}, {"like": "red dog"}):
        collection.search(**question)
    with redis_server.client() as client:

        def holds() -> bool:
            return any(b"green dog" in (client.get(key) or b"") for key in client.scan_iter())

        assert holds()
        collection.delete("green dog")
        fresh = collection.search("green hat")  # the answer of now stays
        until = time.monotonic() + 10
        while holds() or len(log.top(9)) > 2:
            assert time.monotonic() < until
            time.sleep(0.01)
        assert client.dbsize() == 2
    assert [ids_in(question) for question in log.top(9)] == [[], ["red dog"]]
    assert collection.search("green hat") == fresh
    assert other.find(other.key("x", 1)) is None  # it has another generation as well
    upkeep.close()
    collection.delete("red dog")
    collection.search("green hat")
    assert timers() <= before
    cache.close()


def test_a_near_query_is_answered_only_where_that_is_wanted(collection: Collection) -> None:
    cache = MemoryCache(10**6)
    wants = AnswerCache(collection, cache=cache, config=AnswerCacheConfig(near=0.7))
    plain = collection.search("red car car dog")
    wants.attach()
    first = collection.search("red car car")
    assert not any(hit.found.endswith("+near") for hit in first)
    near = collection.search("red car car dog")
    assert [hit.id for hit in near] == [hit.id for hit in first]
    assert [hit.score for hit in near] == [hit.score for hit in first]
    assert all(hit.found == "flat+near" for hit in near)
    # other options, and what is far, are other questions
    assert not any(
        hit.found.endswith("+near") for hit in collection.search("red car car dog", limit=3)
    )
    assert not any(hit.found.endswith("+near") for hit in collection.search("blue hat"))
    # nothing finds itself, and words are not vectors
    assert "red car" not in [hit.id for hit in collection.search(like="red car")]
    assert not any(
        hit.found.endswith("+near")
        for query in ("red car car", "red car car dog")
        for hit in collection.search(query, hybrid=True)
    )
    # who shares the cache and did not ask for it never gets it
    AnswerCache(collection, cache=cache).attach()
    assert collection.search("red car car dog") == plain
    collection.upsert([{"id": "new", "text": "red car car dog"}])
    wants.attach()
    assert collection.search("red car car dog")[0].id == "new"


def test_near_queries_forget_the_oldest() -> None:
    near: NearQueries[int] = NearQueries(most=40)
    rows = np.eye(100, dtype=np.float32)
    for at in range(100):
        near.add("a", rows[at], at)
    assert [near.find("a", rows[at], least=0.99) for at in (59, 60, 80, 99)] == [None, 60, 80, 99]
    assert near.find("b", rows[99], least=0.99) is None
    for scope in range(20):
        near.add(scope, rows[0], scope)
    assert near.find("a", rows[99], least=0.99) is None
