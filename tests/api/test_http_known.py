"""Answers that are known: the same bytes sooner, never an old one, never somebody else's."""

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from tests.api.live import Live, serving, told
from tests.redis_server import RedisServer
from triptych.cache.base import CacheHit
from triptych.cache.config import CacheConfig
from triptych.cache.keys import answer_prefix
from triptych.cache.redis import RedisCache

JSON = "application/json"
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


BODIES: list[Any] = [
    {"query": "word3", "limit": 2},
    {"query": "word3", "limit": 2, "explain": True},
    {"query": "x", "hybrid": 0.3, "filter": "shop = 'none'", "diversity": 0.2},
    {"like": "1"},
    {"like": "nobody"},
    {"query": ""},
    {},
    [],
    {"query": "x", "limit": 0},
    {"query": "x", "limit": 10**9},
    {"query": "x", "unknown": 1},
    {"vector": [1.0, 2.0]},
    {"image": "https://example.org/a.png"},
    {"image": "data:image/png;base64,AAAA"},
    {"query": "x", "filter": "a ="},
    {"query": "x", "rerank": 5},
    {"parts": [{}]},
]


@pytest.mark.parametrize("body", BODIES, ids=json.dumps)
@pytest.mark.parametrize("name", ["photos", "nowhere"])
def test_ahead_of_the_routes_all_is_as_behind_them(running: Live, body: Any, name: str) -> None:
    """A media type with a parameter is left to the routes."""

    def replied(content: bytes, media: str) -> Any:
        headers = {"content-type": media, "x-request-id": "same"}
        reply = running.client.post(
            f"/v1/collections/{name}/search", content=content, headers=headers
        )
        varies = ("date", "server-timing", "content-length")  # with the milliseconds that it took
        said = {k: v for k, v in reply.headers.items() if k not in varies}
        return reply.status_code, said, shape(reply.json())

    def shape(value: Any) -> Any:
        if isinstance(value, dict) and "stages_ms" in value:
            return {**value, "stages_ms": sorted(value["stages_ms"])}
        return {k: shape(v) for k, v in value.items()} if isinstance(value, dict) else value

    ahead = replied(json.dumps(body).encode(), "application/json")
    # not the same bytes, or the second would be known
    behind = replied(json.dumps(body).encode() + b" ", "application/json; charset=utf-8")
    if ahead[0] == 200 and ahead[1]["x-triptych-tier"] != behind[1]["x-triptych-tier"]:
        assert behind[1].pop("x-triptych-tier") == "process"  # the first left it there
        del ahead[1]["x-triptych-tier"]
    assert ahead == behind


MARKED = b'\xef\xbb\xbf{"query": "a"}'


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"query": "a", "query": "b"}', b"[" * 500, MARKED]
)
def test_what_is_no_json_is_refused_ahead_as_behind(running: Live, body: bytes) -> None:
    replies = [
        running.client.post(SEARCH, content=body, headers={"content-type": media})
        for media in ("application/json", "application/json; charset=utf-8")
    ]
    assert replies[0].status_code == replies[1].status_code >= 400
    assert replies[0].content == replies[1].content


def test_a_byte_order_mark_is_called_so(running: Live) -> None:
    reply = running.client.post(SEARCH, content=MARKED, headers={"content-type": JSON})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "bad_json")
    assert "byte order mark" in reply.json()["error"]["message"]


def test_two_media_types_are_none(running: Live) -> None:
    """Ahead of the routes the last one counted, behind it the first."""
    body = b'{"query": "word1"}'
    for media in ((JSON, "text/plain"), ("text/plain", JSON), (JSON, JSON)):
        headers = [("content-type", one) for one in media]
        reply = running.client.post(SEARCH, content=body, headers=headers)
        assert told(reply) == (400, "bad_request")


def test_a_deadline_holds_ahead_of_the_routes(
    running: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(*_: Any, **__: Any) -> None:
        time.sleep(0.3)

    monkeypatch.setattr(running.services.searches, "search", slow)
    told = running.error("POST", SEARCH, {"query": "late"}, headers={"X-Timeout-Ms": "50"})
    assert told == (503, "timed_out")


def test_an_error_of_ours_ahead_of_the_routes_says_nothing_but_its_id(
    running: Live, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(running.services.searches, "search", broken)
    reply = running.client.post(SEARCH, json={"query": "x"}, headers={"x-request-id": "id-7"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "internal")
    assert "secret" not in reply.text and "id-7" in reply.text
    assert any(record.message == "request failed" for record in caplog.records)


@pytest.mark.parametrize("name", ["a/b", "a%2Fb", "A", "x" * 65])
def test_what_looks_like_a_search_and_is_none_is_left_to_the_routes(
    running: Live, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(running.services.fast_path, "answer", None)  # a call would be a 500
    told = running.error("POST", f"/v1/collections/{name}/search", {"query": "x"})
    assert told == (404, "not_found")


def numbers(server: Live) -> dict[str, float]:
    """Return what /metrics says of the tiers."""
    lines = server.client.get("/metrics").text.splitlines()
    said = [line.rsplit(" ", 1) for line in lines if line.startswith("triptych_cache_")]
    return {name.removeprefix("triptych_cache_"): float(number) for name, number in said}


def test_numbers_tell_how_the_tiers_do(tmp_path: Any, redis_server: RedisServer) -> None:
    cache = CacheConfig(redis_url=redis_server.url)
    with serving(tmp_path / "data", cache=cache) as server:
        server.json("POST", "/v1/collections", {"name": "photos"})
        for query in ("one", "one", "two"):
            ask(server, {"query": query})
        said = numbers(server)
        assert said['lookups_total{outcome="hit",tier="process"}'] >= 1
        assert said['lookups_total{outcome="miss",tier="redis"}'] >= 2
        assert said['errors_total{tier="redis"}'] == said['left_aside{tier="redis"}'] == 0
        redis_server.stop()
        try:
            for at in range(6):
                ask(server, {"query": f"more {at}"})
            said = numbers(server)
        finally:
            redis_server.start()
        assert said['errors_total{tier="redis"}'] >= 3 and said['left_aside{tier="redis"}'] == 1
        assert said['left_aside{tier="process"}'] == 0


def test_a_miss_asks_redis_once(
    tmp_path: Any, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bytes] = []
    far, get_many = RedisCache.far, RedisCache.get_many

    async def noted(self: RedisCache, key: bytes) -> CacheHit | None:
        asked.append(key)
        return await far(self, key)

    def noted_too(self: RedisCache, keys: Sequence[bytes]) -> list[bytes | None]:
        asked.extend(keys)
        return get_many(self, keys)

    monkeypatch.setattr(RedisCache, "far", noted)
    monkeypatch.setattr(RedisCache, "get_many", noted_too)
    cache = CacheConfig(redis_url=redis_server.url)
    with serving(tmp_path / "data", cache=cache) as live:
        live.json("POST", "/v1/collections", {"name": "photos"})
        live.json("PUT", "/v1/collections/photos/items", {"items": [{"id": "a", "text": "shoe"}]})
        for body in ({"query": "never asked"}, {"like": "a"}, {"vector": [1.0] * 64}):
            asked.clear()
            assert ask(live, body)[0] == "index"
            answers = [key for key in asked if key.startswith(answer_prefix("default", "photos"))]
            assert len(answers) == 1, answers
            assert ask(live, body)[0] == "process"
