"""Answers that are ready before they are asked for, and answers of near queries: only if wanted."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.api.live import Live, serving
from tests.redis_server import RedisServer
from triptych.cache.config import CacheConfig
from triptych.retrieval.answering.upkeep import UpkeepConfig

SEARCH = "/v1/collections/photos/search"
LOGGED = CacheConfig(query_log=True)
SOON = UpkeepConfig(pause=0.05)


def fill(live: Live) -> None:
    live.json("POST", "/v1/collections", {"name": "photos"})
    items = [{"id": f"{colour} shoe", "text": f"{colour} shoe"} for colour in ("red", "green")]
    live.json("PUT", "/v1/collections/photos/items", {"items": items})


def ask(live: Live, **body: Any) -> tuple[str, Any]:
    reply = live.client.post(SEARCH, json=body)
    assert reply.status_code == 200, reply.text
    return reply.headers["x-triptych-tier"], reply.json()


def soon(is_so: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not is_so():
        assert time.monotonic() < until
        time.sleep(0.01)


def log_of(data: Path) -> Path:
    return data / "default" / "photos" / "queries.json"


def test_what_was_asked_most_is_ready_at_the_next_start(data: Path) -> None:
    with serving(data, cache=LOGGED) as live:
        fill(live)
        for _ in range(3):  # the fast path's answers count as well
            ask(live, query="red", filter={"shop": None})
        ask(live, parts=[{"text": "green", "weight": 2.0}], minus="red", limit=3)
        ask(live, vector=[1.0] * 64)
        live.json("POST", "/v1/collections/photos/recommend", {"positive": ["red shoe"]})
    found = json.loads(log_of(data).read_text())["queries"]
    assert [count for _, count in found] == [3, 1, 1]
    with serving(data, cache=LOGGED) as live:
        soon(lambda: live.services.catalog.num_open == 1)
        cache = live.services.catalog.cache
        soon(lambda: cache.stats()["memory"].items >= 3)
        assert ask(live, query="red", filter={"shop": None})[0] == "process"
        asked = {"parts": [{"text": "green", "weight": 2.0}], "minus": "red", "limit": 3}
        assert ask(live, **asked)[0] == "process"
        assert ask(live, query="blue")[0] == "index"
        live.json("DELETE", "/v1/collections/photos")
        assert not log_of(data).exists()


def test_nothing_is_logged_unless_that_is_said(data: Path) -> None:
    with serving(data) as live:
        fill(live)
        ask(live, query="red")
    assert not log_of(data).exists()


def test_a_delete_reaches_the_log_and_redis(data: Path, redis_server: RedisServer) -> None:
    cache = replace(LOGGED, redis_url=redis_server.url)
    with serving(data, cache=cache, upkeep=SOON) as live, redis_server.client() as client:
        fill(live)
        ask(live, query="shoe")
        ask(live, like="green shoe")

        def holds() -> bool:
            return any(b"green shoe" in (client.get(key) or b"") for key in client.scan_iter())

        soon(holds)
        live.json("DELETE", "/v1/collections/photos/items/green%20shoe")
        assert ask(live, query="shoe")[0] == "index"
        soon(lambda: not holds())
        soon(lambda: log_of(data).exists())
        assert "green shoe" not in log_of(data).read_text()
        # and a collection that goes away leaves nothing of itself
        live.json("DELETE", "/v1/collections/photos")
        assert not any(b"red shoe" in (client.get(key) or b"") for key in client.scan_iter())


def test_a_near_query_has_the_answer_of_the_other_only_where_that_is_asked(data: Path) -> None:
    with serving(data) as live:
        fill(live)
        tier, first = ask(live, query="red shoe shoe", near=0.5)
        assert tier == "index"
        tier, near = ask(live, query="red shoe shoe green", near=0.5)
        assert tier == "near"
        assert all(hit["found"].endswith("+near") for hit in near["hits"])
        assert [hit["score"] for hit in near["hits"]] == [hit["score"] for hit in first["hits"]]
        # who does not ask for it never gets it, be it remembered or not
        for _ in range(2):
            _, exact = ask(live, query="red shoe shoe green")
            assert not any(hit["found"].endswith("+near") for hit in exact["hits"])
        assert ask(live, query="red shoe shoe green", near=1.0)[0] == "index"
        assert ask(live, query="red shoe shoe green", near=0.5, limit=1)[0] == "index"
        assert ask(live, query="red shoe shoe green", near=0.5)[0] == "process"
        for wrong in (0, 1.5, "x"):
            assert live.error("POST", SEARCH, {"query": "a", "near": wrong})[0] == 422


def test_the_server_may_be_told_that_near_will_do(data: Path) -> None:
    with serving(data, near=0.5) as live:
        fill(live)
        ask(live, query="red shoe shoe")
        assert ask(live, query="red shoe shoe green")[0] == "near"


@pytest.mark.parametrize("spelling", [{"parts": [{"text": "red"}]}, {"query": "red", "limit": 10}])
def test_one_question_has_one_answer_however_it_is_put(spelling: Any, live: Live) -> None:
    live.client.post(SEARCH, json={"query": "red"})
    assert live.client.post(SEARCH, json=spelling).headers["x-triptych-tier"] == "process"
