"""A running Redis, for every test that wants one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.redis_server import RedisServer


@pytest.fixture(scope="session")
def running_redis() -> Iterator[RedisServer]:
    server = RedisServer()
    server.start()
    yield server
    server.remove()


@pytest.fixture
def redis_server(running_redis: RedisServer) -> RedisServer:
    """A Redis that is empty."""
    with running_redis.client() as client:
        client.flushall()
        client.config_set("maxmemory", 0)
    return running_redis
