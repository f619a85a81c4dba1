"""Answers that are known: the same bytes sooner, never an old one, never somebody else's."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.live import Live, serving
from tests.redis_server import RedisServer
from triptych.cache.config import CacheConfig

SEARCH = "/v1/collections/photos/search"


@pytest.fixture
def running(tmp_path: Any) -> Iterator[Live]:
    with serving(tmp_path / "data") as live:
        live.json("POST", "/v1/collections", {"name": "photos"})
        items = [{"id": str(at), "text": f"word{at} shoe"} for at in range(5)]
        live.json("PUT", "/v1/collections/photos/items", {"items": items})
        yield live


def ask(live: Live, body: Any, **headers: str) -> tuple[str, bytes]:
    reply = live.client.post(
        SEARCH, content=json.dumps(body), headers={"content-type": "application/json", **headers}
    )
    assert reply.status_code == 200
    assert reply.headers["x-request-id"]
    assert reply.headers["x-content-type-options"] == "nosniff"
    return reply.headers["x-triptych-tier"], reply.content


def test_the_second_time_it_is_known(running: Live) -> None:
    first = ask(running, {"query": "word1"})
    assert first[0] == "index"
    assert ask(running, {"query": "word1"}) == ("process", first[1])
    # the same question in other bytes
    assert ask(running, {"limit": 10, "query": "word1"}) == ("process", first[1])
    assert ask(running, {"query": "word1", "limit": 3})[0] == "index"


def test_a_write_ends_what_was_known(running: Live) -> None:
    for at in range(5):
        before = ask(running, {"query": "fresh"})
        assert ask(running, {"query": "fresh"}) == ("process", before[1])
        item = {"id": "new", "text": f"fresh {at}"}
        running.json("PUT", "/v1/collections/photos/items", {"items": [item]})
        tier, after = ask(running, {"query": "fresh"})
        assert tier == "index"
        assert json.loads(after)["hits"][0]["text"] == f"fresh {at}"
    running.json("DELETE", "/v1/collections/photos/items/new")
    assert b"fresh" not in ask(running, {"query": "fresh"})[1]


def test_a_collection_of_the_same_name_is_another(running: Live) -> None:
    ask(running, {"query": "word1"})
    running.json("DELETE", "/v1/collections/photos")
    assert running.error("POST", SEARCH, {"query": "word1"}) == (404, "not_found")
    running.json("POST", "/v1/collections", {"name": "photos"})
    tier, body = ask(running, {"query": "word1"})
    assert (tier, json.loads(body)["hits"]) == ("index", [])


def test_what_another_server_was_asked_is_known(tmp_path: Any, redis_server: RedisServer) -> None:
    cache = CacheConfig(redis_url=redis_server.url)
    photos = "/v1/collections/photos"
    with (
        serving(tmp_path / "data", cache=cache) as one,
        serving(tmp_path / "data", cache=cache) as two,
        serving(tmp_path / "data", cache=cache, near=0.9) as lax,
    ):
        one.json("POST", "/v1/collections", {"name": "photos"})
        items = [{"id": str(at), "text": f"word{at} shoe"} for at in range(5)]
        one.json("PUT", f"{photos}/items", {"items": items})
        for server in (two, lax):
            server.json("GET", photos)  # it is open there
        for body in ({"query": "word1"}, {"like": "1"}, {"vector": [1.0] * 64, "limit": 2}):
            first = ask(one, body)
            assert first[0] == "index"
            # other bytes that mean the same
            other = dict(reversed({"threshold": None, **body}.items()))
            assert ask(two, other) == ("redis", first[1])
            assert ask(two, other) == ("process", first[1])
        assert ask(lax, {"query": "word1"})[0] == "index"  # near answers are others
        assert ask(two, {"query": "word1", "explain": True})[0] == "index"
        assert two.error("POST", SEARCH, {"query": "word1", "limit": -1})[0] == 422
        assert two.error("POST", SEARCH, {"like": "none"}) == (404, "not_found")
        one.json("DELETE", f"{photos}/items/1")
        tier, body = ask(two, {"query": "word1"})
        assert tier == "index" and b"word1" not in body
        one.json("DELETE", photos)
        one.json("POST", "/v1/collections", {"name": "photos"})
        one.json("PUT", f"{photos}/items", {"items": items[3:]})
        assert ask(two, {"query": "word1"})[0] == "index"


def test_an_error_is_not_remembered(running: Live) -> None:
    asked = {"like": "later"}
    assert running.error("POST", SEARCH, asked) == (404, "not_found")
    item = {"id": "later", "text": "word1"}
    running.json("PUT", "/v1/collections/photos/items", {"items": [item]})
    assert ask(running, asked)[0] == "index"


def test_what_explains_is_never_out_of_the_cache(running: Live) -> None:
    for _ in range(2):
        assert ask(running, {"query": "word1", "explain": True})[0] == "index"
