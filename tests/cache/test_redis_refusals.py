"""A Redis that answers at once, and refuses: to be read is all that it must not refuse."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tests.redis_server import RedisServer
from triptych.cache.base import CacheHit
from triptych.cache.circuit_breaker import CircuitBreakerConfig
from triptych.cache.redis import RedisCache, RedisConfig

KEY, VALUE = b"tr1:a:key", b"value"
# none of this is about slowness
PATIENT = RedisConfig(
    timeout=5.0, breaker=CircuitBreakerConfig(slow=5.0, first_pause=0.05, longest_pause=0.2)
)


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """A Redis that may be spoiled, and wants to save itself."""
    server = RedisServer("--save", "3600 1")
    server.start()
    yield server
    server.remove()


@pytest.fixture
def cache(server: RedisServer) -> Iterator[RedisCache]:
    """A cache that has found its value there."""
    cache = RedisCache(server.url, config=PATIENT)
    cache.put_many([(KEY, VALUE)])
    assert cache.get_many([KEY]) == [VALUE]
    yield cache
    cache.close()


def is_open(cache: RedisCache) -> bool:
    return cache.stats()["redis"].open


def soon(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def far(cache: RedisCache, times: int) -> CacheHit | None:
    """Ask from one event loop, again and again; return the last answer."""

    async def ask() -> CacheHit | None:
        found = None
        for _ in range(times):
            found = await cache.far(KEY)
        cache._connection_of_loop().close()  # a socket that outlives its loop is a warning
        await asyncio.sleep(0.01)
        return found

    return asyncio.run(ask())


def cut_off(client: Redis) -> None:
    client.config_set("replica-serve-stale-data", "no")
    client.slaveof("127.0.0.1", 1)


def forbid(client: Redis) -> None:
    client.execute_command("ACL", "SETUSER", "default", "-mget")


def lock(client: Redis) -> None:
    client.config_set("requirepass", "secret")
    client.execute_command("AUTH", "secret")
    client.client_kill_filter(skipme=True, _type="normal")


REFUSALS: dict[str, tuple[Callable[[Redis], object], Callable[[Redis], object]]] = {
    "MASTERDOWN": (cut_off, lambda client: client.slaveof()),
    "NOPERM": (forbid, lambda client: client.execute_command("ACL SETUSER", "default", "+mget")),
    "NOAUTH": (lock, lambda client: client.config_set("requirepass", "")),
}


@pytest.mark.parametrize("name", REFUSALS)
@pytest.mark.parametrize("by", ["thread", "event loop"])
def test_one_that_refuses_to_be_read_is_left_aside_until_it_does_not(
    name: str, by: str, server: RedisServer, cache: RedisCache
) -> None:
    spoil, mend = REFUSALS[name]
    with server.client() as client:
        spoil(client)
        if by == "thread":
            assert [cache.get_many([KEY]) for _ in range(5)] == [[None]] * 5
        else:
            assert far(cache, 5) is None
        assert is_open(cache) and cache.stats()["redis"].errors <= 4  # the end of a connection too
        time.sleep(0.3)  # it is looked at, a few times
        assert is_open(cache)
        mend(client)
        soon(lambda: not is_open(cache))
        soon(lambda: cache.get_many([KEY]) == [VALUE])
        assert far(cache, 1) == CacheHit(VALUE, "redis")


def test_what_many_asked_at_once_is_refused_once(server: RedisServer, cache: RedisCache) -> None:
    async def ask() -> None:
        assert await asyncio.gather(*(cache.far(KEY) for _ in range(8))) == [None] * 8
        cache._connection_of_loop().close()
        await asyncio.sleep(0.01)

    with server.client() as client:
        forbid(client)
        asyncio.run(ask())
    assert cache.stats()["redis"].errors == 1 and not is_open(cache)


def test_one_that_only_refuses_to_be_written_is_read_and_found_well(
    server: RedisServer, cache: RedisCache
) -> None:
    (server.folder / "dump.rdb").mkdir()  # where it wants to save itself: no disk to save on
    with server.client() as client:
        client.bgsave()
        soon(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
        with pytest.raises(ResponseError):
            client.ping()
        for _ in range(5):
            cache.put_many([(b"other", VALUE)])
            assert cache.get_many([KEY]) == [VALUE]
        assert not is_open(cache)
        while not is_open(cache):
            cache._failed(TimeoutError("for another reason"))
        soon(lambda: not is_open(cache))
        assert cache.get_many([KEY]) == [VALUE]
