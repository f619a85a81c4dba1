"""Whatever happens to Redis: no wrong answer, no long wait, and it heals by itself."""

from __future__ import annotations

import asyncio
import os
import statistics
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.fault_proxy import (
    Fault,
    FaultProxy,
    Swapping,
    cut,
    honest,
    late,
    lying,
    silent,
    trickling,
)
from tests.redis_server import RedisServer
from triptych.cache.base import CacheHit
from triptych.cache.circuit_breaker import CircuitBreakerConfig
from triptych.cache.keys import answer_prefix, digest
from triptych.cache.redis import RedisCache, RedisConfig

pytestmark = pytest.mark.alone  # a Redis that is slow is told from one that waits for a core

KEYS = [answer_prefix("t", "c") + b"g:" + digest(at) for at in range(4)]
VALUES = [b"value %d" % at for at in range(4)]

# the real one in all but the pause: the tests are to be quick
QUICK = RedisConfig(breaker=CircuitBreakerConfig(first_pause=0.05, longest_pause=0.2))
PATIENT = RedisConfig(timeout=5.0, breaker=CircuitBreakerConfig(slow=5.0))

FAULTS: dict[str, Callable[[], Fault]] = {
    "late": lambda: late(0.5),
    "dragging": lambda: late(0.03),
    "silent": lambda: silent,
    "trickling": lambda: trickling,
    "cut": lambda: cut,
    "garbage": lambda: lying(b"\xff\x00HTTP/1.1 200 OK\r\n\r\n"),
    "no protocol": lambda: lying(b"*4\r\n$999999999\r\n"),
    "an error": lambda: lying(b"-LOADING Redis is loading the dataset in memory\r\n"),
}


@pytest.fixture
def proxy(redis_server: RedisServer) -> Iterator[FaultProxy]:
    with FaultProxy(redis_server.socket) as proxy:
        yield proxy


@pytest.fixture
def cache(proxy: FaultProxy) -> Iterator[RedisCache]:
    cache = RedisCache(proxy.url, config=QUICK)
    yield cache
    cache.close()


def is_open(cache: RedisCache) -> bool:
    return cache.stats()["redis"].open


def soon(condition: Callable[[], bool], *, within: float = 10.0) -> None:
    until = time.monotonic() + within
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def fill(cache: RedisCache) -> None:
    """Put the values; what is slow for a moment, because the tests run beside, is put again."""

    def is_there() -> bool:
        cache.put_many(list(zip(KEYS, VALUES, strict=True)))
        return cache.get_many(KEYS) == VALUES

    soon(is_there)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_opens_the_breaker_and_it_heals(
    name: str, proxy: FaultProxy, cache: RedisCache
) -> None:
    fill(cache)
    proxy.fault = FAULTS[name]()
    took = []
    for _ in range(500):
        start = time.perf_counter()
        values = cache.get_many(KEYS)
        took.append(time.perf_counter() - start)
        assert all(got in (want, None) for got, want in zip(values, VALUES, strict=True))
        if is_open(cache):
            break
    assert is_open(cache) and len(took) < 100
    assert max(took) < 1.0 and statistics.median(took) < 0.2
    start = time.perf_counter()
    for _ in range(200):
        assert cache.get_many(KEYS) == [None] * 4
    assert (time.perf_counter() - start) / 200 < 0.005
    proxy.fault = honest
    soon(lambda: not is_open(cache))
    fill(cache)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_holds_up_no_event_loop(name: str, proxy: FaultProxy, cache: RedisCache) -> None:
    fill(cache)

    async def ask() -> float:
        start = time.perf_counter()
        found = await asyncio.gather(*map(cache.far, KEYS))
        for got, want in zip(found, VALUES, strict=True):
            assert got in (CacheHit(want, "redis"), None)
        return time.perf_counter() - start

    async def run() -> None:
        await ask()
        proxy.fault = FAULTS[name]()
        took = [await ask() for _ in range(50)]
        assert max(took) < 1.0 and sum(took) < 3.0
        assert is_open(cache) or name == "cut"
        proxy.fault = honest
        await asyncio.to_thread(soon, lambda: not is_open(cache))
        await asyncio.to_thread(fill, cache)
        while await cache.far(KEYS[0]) is None:
            await asyncio.sleep(0.01)

    _loop(run(), cache)


def test_a_redis_that_has_every_answer_and_is_slow_is_left_aside(
    proxy: FaultProxy, cache: RedisCache
) -> None:
    """How long an event loop waits counts too: a hit was never slow, and each cost 30 ms."""
    fill(cache)

    async def run() -> None:
        await cache.far(KEYS[0])
        for at in range(100):
            proxy.fault = late((0.03, 0.045)[at % 2])
            if await cache.far(KEYS[at % 4]) is None:
                break
        assert is_open(cache)
        start = time.perf_counter()
        assert [await cache.far(KEYS[0]) for _ in range(100)] == [None] * 100
        assert time.perf_counter() - start < 0.5
        proxy.fault = honest
        await asyncio.to_thread(soon, lambda: not is_open(cache))

    _loop(run(), cache)


@pytest.mark.parametrize("held", [0.012, 0.018, 0.022, 0.03])
def test_an_event_loop_that_is_held_up_all_the_time_blames_nobody(
    held: float, redis_server: RedisServer
) -> None:
    cache = RedisCache(redis_server.url, config=RedisConfig(timeout=5.0))
    cache.put_many([(KEYS[0], VALUES[0])])

    async def run() -> None:
        await cache.far(KEYS[0])
        for _ in range(30):
            asked = asyncio.create_task(cache.far(KEYS[0]))
            await asyncio.sleep(0)
            time.sleep(held)
            assert await asked == CacheHit(VALUES[0], "redis")

    _loop(run(), cache)
    assert not is_open(cache)


def test_an_event_loop_that_was_held_up_blames_nobody(redis_server: RedisServer) -> None:
    cache, patient = RedisCache(redis_server.url), RedisCache(redis_server.url, config=PATIENT)
    fill(patient)
    patient.close()

    async def run() -> None:
        await cache.far(KEYS[0])
        for _ in range(5):
            asked = asyncio.create_task(cache.far(KEYS[0]))
            await asyncio.sleep(0)
            time.sleep(0.2)  # longer than Redis may take
            assert await asked == CacheHit(VALUES[0], "redis")

    _loop(run(), cache)
    assert cache.stats()["redis"].errors == 0


def test_who_gives_up_takes_no_answer_from_others(redis_server: RedisServer) -> None:
    cache = RedisCache(redis_server.url, config=PATIENT)
    cache.put_many(list(zip(KEYS, VALUES, strict=True)))

    async def run() -> None:
        for _ in range(20):
            asked = [asyncio.create_task(cache.far(key)) for key in KEYS]
            await asyncio.sleep(0)
            asked[1].cancel()
            others = await asyncio.gather(asked[0], asked[2], asked[3])
            assert [one and one.value for one in others] == [VALUES[0], *VALUES[2:]]

    _loop(run(), cache)


def _loop(work: Coroutine[Any, Any, None], cache: RedisCache) -> None:
    """Run in an event loop that ends as a server's does, after the cache."""

    async def run() -> None:
        try:
            await work
        finally:
            cache.close()
            await asyncio.sleep(0.01)

    asyncio.run(run())


def test_refused_at_the_start_and_in_the_middle(proxy: FaultProxy) -> None:
    proxy.refuse()
    cache = RedisCache(proxy.url, config=QUICK)
    start = time.perf_counter()
    for _ in range(5):
        assert cache.get_many(KEYS) == [None] * 4
        cache.put_many([(KEYS[0], VALUES[0])])
    assert time.perf_counter() - start < 0.5
    assert is_open(cache)
    proxy.accept()
    soon(lambda: not is_open(cache))
    fill(cache)
    proxy.refuse()
    soon(lambda: cache.get_many(KEYS) == [None] * 4 and is_open(cache))
    proxy.accept()
    soon(lambda: not is_open(cache))
    fill(cache)
    cache.close()


def test_an_address_that_nobody_knows_costs_no_more_than_the_deadline() -> None:
    cache = RedisCache("redis://no-such-host.invalid:1/0", config=QUICK)
    start = time.perf_counter()
    for _ in range(10):
        assert cache.get_many(KEYS) == [None] * 4
    assert time.perf_counter() - start < 1.0
    cache.close()


def test_an_answer_to_another_question_is_a_miss(redis_server: RedisServer) -> None:
    """The checksum holds the key, so even a connection that is one answer behind is harmless."""
    with FaultProxy(redis_server.socket) as proxy:
        cache = RedisCache(proxy.url, config=PATIENT)
        cache.put_many(list(zip(KEYS, VALUES, strict=True)))
        proxy.fault = Swapping()
        for _ in range(3):
            for key, value in zip(KEYS, VALUES, strict=True):
                assert cache.get_many([key]) in ([value], [None])
        cache.close()


@pytest.mark.parametrize(
    "poison",
    [
        b"",
        b"TRC",
        b"x" * 100,
        b"TRC\x01" + b"\0" * 16 + b"value 0",
        b"TRC\x02" + b"\0" * 100,
        b"\x80\x04\x95",
    ],
)
def test_poisoned_values_are_misses_and_dropped(poison: bytes, redis_server: RedisServer) -> None:
    cache = RedisCache(redis_server.url, config=PATIENT)
    cache.put_many([(KEYS[0], VALUES[0]), (KEYS[1], VALUES[1])])
    with redis_server.client() as client:
        sealed = client.get(KEYS[1])
        client.set(KEYS[0], poison)
        assert cache.get_many(KEYS[:2]) == [None, VALUES[1]]
        assert client.get(KEYS[0]) is None
        client.set(KEYS[0], sealed)  # whole, and another key's
        assert cache.get_many(KEYS[:2]) == [None, VALUES[1]]
        client.rpush(KEYS[2], b"a list")
        assert cache.get_many(KEYS[2:]) == [None, None]
        assert cache.stats()["redis"].errors == 2
    cache.close()


def test_a_secret_tells_what_somebody_else_wrote(redis_server: RedisServer) -> None:
    ours, theirs, open_ = (
        RedisCache(redis_server.url, secret=secret, config=PATIENT)
        for secret in (b"ours", b"theirs", b"")
    )
    for other in (theirs, open_):
        other.put_many([(KEYS[0], VALUES[0])])
        assert ours.get_many(KEYS[:1]) == [None]
    ours.put_many([(KEYS[0], VALUES[0])])
    assert ours.get_many(KEYS[:1]) == [VALUES[0]]
    assert open_.get_many(KEYS[:1]) == [None]
    for cache in (ours, theirs, open_):
        cache.close()


def test_a_full_redis_answers_and_takes_nothing(redis_server: RedisServer) -> None:
    cache = RedisCache(redis_server.url, config=PATIENT)
    cache.put_many([(KEYS[0], VALUES[0])])
    with redis_server.client() as client:
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("maxmemory", 1)
        cache.put_many([(KEYS[1], VALUES[1])])
        assert cache.get_many(KEYS[:2]) == [VALUES[0], None]
        assert not is_open(cache) and cache.stats()["redis"].errors == 1
        client.config_set("maxmemory", 0)
        cache.put_many([(KEYS[1], VALUES[1])])
        assert cache.get_many(KEYS[:2]) == VALUES[:2]
    cache.close()


def test_flushed_or_with_a_value_too_long(redis_server: RedisServer) -> None:
    cache = RedisCache(redis_server.url, config=RedisConfig(most_bytes=100, timeout=5.0))
    cache.put_many([(KEYS[0], VALUES[0]), (KEYS[1], b"x" * 101)])
    assert cache.get_many(KEYS[:2]) == [VALUES[0], None]
    with redis_server.client() as client:
        assert 0 < client.ttl(KEYS[0]) <= 24 * 3600
        client.flushall()
    assert cache.get_many(KEYS[:1]) == [None]
    cache.close()


def test_a_restart_costs_no_more_than_what_was_kept() -> None:
    server = RedisServer()
    server.start()
    cache = RedisCache(server.url, config=QUICK)
    try:
        fill(cache)
        server.stop()
        server.start()  # every connection is dead, and nobody was told
        fill(cache)
        assert not is_open(cache)
    finally:
        cache.close()
        server.remove()


def test_a_restart_after_what_was_only_sent_is_a_miss_and_no_failure() -> None:
    server = RedisServer()
    server.start()
    cache = RedisCache(server.url, config=PATIENT)
    try:
        cache.put_many([(KEYS[0], VALUES[0])])  # nobody has read the reply
        server.stop()
        server.start()
        assert cache.get_many(KEYS[:1]) == [None]
        assert cache.stats()["redis"].errors == 0
    finally:
        cache.close()
        server.remove()


def test_what_was_sent_is_there_when_who_sent_it_has_closed(redis_server: RedisServer) -> None:
    for at in range(20):
        key, value = digest(at), b"x" * 200_000
        cache, other = (RedisCache(redis_server.url, config=PATIENT) for _ in range(2))
        cache.put_many([(key, value)])
        cache.close()
        assert cache.stats()["redis"].puts == 1
        assert other.get_many([key]) == [value]
        other.close()


def test_a_forked_child_has_connections_of_its_own(redis_server: RedisServer) -> None:
    cache = RedisCache(redis_server.url, config=PATIENT)
    cache.put_many(list(zip(KEYS, VALUES, strict=True)))
    child = os.fork()
    if child == 0:
        right = all(
            cache.get_many([key]) == [value] for key, value in zip(KEYS, VALUES, strict=True)
        )
        os._exit(0 if right else 1)
    for _ in range(50):
        assert cache.get_many(KEYS) == VALUES
    assert os.waitpid(child, 0)[1] == 0
    cache.close()


def test_a_forked_child_asks_again_where_the_parent_had_given_up(
    redis_server: RedisServer,
) -> None:
    cache = RedisCache(redis_server.url, config=PATIENT)
    cache.put_many([(KEYS[0], VALUES[0])])
    while not cache._breaker.failed():
        pass
    assert not cache.has_far
    child = os.fork()
    if child == 0:
        os._exit(0 if cache.get_many(KEYS[:1]) == VALUES[:1] else 1)
    assert os.waitpid(child, 0)[1] == 0
    cache.close()


def test_event_loops_in_turn_and_at_once_have_a_connection_each(redis_server: RedisServer) -> None:
    cache = RedisCache(redis_server.url, config=PATIENT)
    cache.put_many(list(zip(KEYS, VALUES, strict=True)))
    assert cache.get_many(KEYS) == VALUES

    def num_connections() -> int:
        with redis_server.client() as client:
            return int(client.info("stats")["total_connections_received"])

    async def ask() -> list[CacheHit | None]:
        found = [await cache.far(key) for _ in range(20) for key in KEYS]
        cache._connection_of_loop().close()  # a socket that outlives its loop is a warning
        await asyncio.sleep(0.01)
        return found

    expected = [CacheHit(value, "redis") for _ in range(20) for value in VALUES]
    before = num_connections()
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(lambda _: asyncio.run(ask()), range(6)):
            assert found == expected
    assert num_connections() - before <= 6 + 1  # the client that counts
    assert len(cache._of_loops) <= 2
    cache.close()


def test_more_threads_than_connections(redis_server: RedisServer) -> None:
    cache = RedisCache(redis_server.url, config=RedisConfig(timeout=5.0, connections=2))
    cache.put_many(list(zip(KEYS, VALUES, strict=True)))
    wrong = []

    def work() -> None:
        for _ in range(30):
            if cache.get_many(KEYS) != VALUES:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with redis_server.client() as client:
        assert len(client.client_list()) <= 3
    assert not wrong
    cache.close()


def test_without_the_password_all_is_a_miss_and_few_commands_are_enough() -> None:
    server = RedisServer("--requirepass", "secret")
    server.start(password="secret")
    try:
        refused = RedisCache(server.url, config=QUICK)
        for _ in range(4):
            assert refused.get_many(KEYS) == [None] * 4
        assert is_open(refused)
        refused.close()
        with server.client(password="secret") as client:
            allowed = ["+mget", "+set", "+unlink", "+scan"]
            client.execute_command("ACL", "SETUSER", "little", "on", ">pass", "~*", *allowed)
        little = RedisCache(f"unix://little:pass@{server.socket}", config=PATIENT)
        little.put_many(list(zip(KEYS, VALUES, strict=True)))
        assert little.get_many(KEYS) == VALUES
        assert little.purge(KEYS[0]) == 1
        little.delete_many(KEYS[1:2])
        assert little.get_many(KEYS) == [None, None, *VALUES[2:]]
        little.close()
    finally:
        server.remove()


def test_a_replica_that_takes_no_writes_is_read(redis_server: RedisServer) -> None:
    cache = RedisCache(redis_server.url, config=PATIENT)
    cache.put_many([(KEYS[0], VALUES[0])])
    with redis_server.client() as client:
        client.config_set("replica-serve-stale-data", "yes")
        client.slaveof("127.0.0.1", 1)
        try:
            cache.put_many([(KEYS[1], VALUES[1])])
            assert cache.get_many(KEYS[:2]) == [VALUES[0], None]
            assert not is_open(cache)
        finally:
            client.slaveof()
    cache.close()
