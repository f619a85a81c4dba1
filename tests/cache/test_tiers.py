"""Tiers behind each other, and what the settings make of them."""

from __future__ import annotations

import asyncio
import sys

import pytest

from tests.redis_server import RedisServer
from triptych.cache.base import CacheHit
from triptych.cache.config import CacheConfig
from triptych.cache.memory import MemoryCache
from triptych.cache.redis import RedisCache
from triptych.cache.tiered import TieredCache
from triptych.errors import InvalidInput, NotAvailable


def test_what_a_farther_tier_has_is_carried_near() -> None:
    near, far = MemoryCache(10_000), MemoryCache(10_000)
    both = TieredCache([near, far])
    far.put_many([(b"a", b"1"), (b"b", b"2")])
    assert both.get_many([b"x", b"a", b"b", b"a"]) == [None, b"1", b"2", b"1"]
    assert near.get_many([b"a", b"b"]) == [b"1", b"2"]
    far.put_many([(b"c", b"3")])
    assert both.find(b"c") is not None and near.near(b"c") == b"3"


def test_what_an_event_loop_found_far_is_near_then(redis_server: RedisServer) -> None:
    near, far = MemoryCache(10_000), RedisCache(redis_server.url)
    both = TieredCache([near, far])
    far.put_many([(b"a", b"1")])

    async def ask() -> None:
        assert await both.far(b"a") == CacheHit(b"1", "redis")
        assert near.near(b"a") == b"1"
        both.close()
        await asyncio.sleep(0.01)

    asyncio.run(ask())


def test_what_was_carried_does_not_stay_for_longer_than_it_may() -> None:
    now = [0.0]
    near, far = (MemoryCache(10_000, ttl=100.0, clock=lambda: now[0]) for _ in range(2))
    both = TieredCache([near, far], carried=5.0)
    far.put_many([(b"a", b"1")])
    assert both.get_many([b"a"]) == [b"1"]
    now[0] = 5.0
    assert near.near(b"a") is None and far.near(b"a") == b"1"


def test_what_is_dropped_is_dropped_everywhere() -> None:
    tiers = [MemoryCache(10_000), MemoryCache(10_000)]
    both = TieredCache(tiers)
    both.put_many([(b"p:a", b"1"), (b"p:b", b"2"), (b"q:a", b"3")])
    both.delete_many([b"p:a"])
    assert [tier.near(b"p:a") for tier in tiers] == [None, None]
    assert both.purge(b"p:") == 2
    assert [tier.near(b"q:a") for tier in tiers] == [b"3", b"3"]


def test_the_environment_names_the_tiers(redis_server: RedisServer) -> None:
    config = CacheConfig.from_env(
        {
            "TRIPTYCH_REDIS_URL": redis_server.url,
            "TRIPTYCH_CACHE_MB": "1",
            "TRIPTYCH_CACHE_TTL": "9",
        }
    )
    assert config.answers_ttl == 9
    cache = config.open()
    assert cache.stats().keys() == {"memory", "redis"}
    cache.close()
    assert CacheConfig.from_env({}).open().stats().keys() == {"memory"}
    assert CacheConfig(memory_mb=0).open().stats() == {}
    only = CacheConfig(memory_mb=0, redis_url="redis://localhost:1").open()
    assert only.stats().keys() == {"redis"}
    only.close()


def test_a_secret_or_a_password_is_never_shown() -> None:
    config = CacheConfig(redis_url="redis://:hidden@localhost", secret=b"hidden")
    assert "hidden" not in repr(config)
    with pytest.raises(InvalidInput) as error:
        CacheConfig(redis_url="http://:hidden@localhost").open()
    assert "hidden" not in str(error.value)


@pytest.mark.parametrize("key", ["TRIPTYCH_CACHE_MB", "TRIPTYCH_CACHE_TTL"])
def test_a_number_that_is_none_is_named(key: str) -> None:
    with pytest.raises(InvalidInput, match=key):
        CacheConfig.from_env({key: "1.5h"})


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "redis"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "triptych.cache.redis", raising=False)
    monkeypatch.delitem(sys.modules, "triptych.cache.connections", raising=False)
    with pytest.raises(NotAvailable, match=r"triptych\[redis\]"):
        CacheConfig(redis_url="redis://localhost").open()
