"""Every cache passes one suite."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conformance.cache_suite import CacheSuite
from tests.redis_server import RedisServer
from triptych.cache.base import Cache
from triptych.cache.circuit_breaker import CircuitBreakerConfig
from triptych.cache.memory import MemoryCache
from triptych.cache.redis import RedisCache, RedisConfig
from triptych.cache.tiered import TieredCache

# a machine that runs other tests beside is no sign of a slow Redis
PATIENT = RedisConfig(timeout=10.0, breaker=CircuitBreakerConfig(slow=10.0))


class TestMemory(CacheSuite):
    @pytest.fixture
    def cache(self) -> Cache:
        return MemoryCache(10**6)


class TestRedis(CacheSuite):
    @pytest.fixture
    def cache(self, redis_server: RedisServer) -> Iterator[Cache]:
        cache = RedisCache(redis_server.url, secret=b"s", config=PATIENT)
        yield cache
        cache.close()


class TestTiers(CacheSuite):
    @pytest.fixture
    def cache(self, redis_server: RedisServer) -> Iterator[Cache]:
        cache = TieredCache([MemoryCache(10**6), RedisCache(redis_server.url, config=PATIENT)])
        yield cache
        cache.close()
