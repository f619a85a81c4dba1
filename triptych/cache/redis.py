"""Tier 2: a Redis that several processes and machines share.

Whatever happens to it, the answers stay right: a value that is not what was put under its key is a
miss. And they stay quick: where it fails or drags a breaker opens, and every question is a miss at
once until a thread of its own has found it well again.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import re
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from math import inf
from typing import TypeVar

from redis.exceptions import ResponseError

from triptych.cache.async_connection import AsyncConnection
from triptych.cache.base import CacheHit, TierStats
from triptych.cache.circuit_breaker import DEFAULT as BREAKER
from triptych.cache.circuit_breaker import CircuitBreaker, CircuitBreakerConfig
from triptych.cache.connections import Command, Connections, Reply
from triptych.cache.keys import VERSION
from triptych.cache.sealed import Seal
from triptych.spans import span

logger = logging.getLogger(__name__)

T = TypeVar("T")

NAME = "redis"

_BATCH = 256  # keys in one command
_SCAN = 1000
_PURGE = 2.0  # seconds for each step of a purge, which nobody waits for
_PROBES = 3  # answers in a row that show that it is well
_PROBE = VERSION + b":probe"  # nothing lies there


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisConfig:
    ttl: float = 24 * 3600.0  # seconds, where the caller names none
    timeout: float = 0.05  # seconds for one exchange, all of it
    per_key: float = 0.0002  # seconds more for each key of it
    most_bytes: int = 4 * 2**20  # of one value; a longer one is not kept here
    connections: int = 16
    breaker: CircuitBreakerConfig = BREAKER


DEFAULT = RedisConfig()


class RedisCache:
    """Values under `url` (redis://, rediss://, unix://), sealed with `secret`."""

    def __init__(self, url: str, *, secret: bytes = b"", config: RedisConfig = DEFAULT) -> None:
        self._connections = Connections(url, most=config.connections, late=self._put)
        self._url = url
        self._of_loops: dict[asyncio.AbstractEventLoop, AsyncConnection] = {}
        self._config = config
        self._seal = Seal(secret)
        self._breaker = CircuitBreaker(config.breaker)
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._stats = TierStats()
        _all.add(self)

    @property
    def has_far(self) -> bool:
        return not self._is_left_aside()

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        values: list[bytes | None] = []
        with span("cache redis get") as seen:
            for part in _batches(keys):
                values += self._opened(part, self._asked([("MGET", *part)], len(part), vital=True))
            hits = sum(value is not None for value in values)
            seen.set_attribute("hits", hits)
        self._count(hits=hits, misses=len(values) - hits)
        return values

    def find(self, key: bytes) -> CacheHit | None:
        (value,) = self.get_many([key])
        return None if value is None else CacheHit(value, NAME)

    def near(self, key: bytes) -> bytes | None:
        return None

    async def far(self, key: bytes) -> CacheHit | None:
        if self._is_left_aside():
            return None
        with span("cache redis get") as seen:
            connection = self._connection_of_loop()
            sealed = await connection.get(key)
            value = self._seal.open(key, sealed)
            seen.set_attribute("hits", int(value is not None))
        is_foreign = sealed is not None and value is None
        self._count(hits=value is not None, misses=value is None, errors=is_foreign)
        if is_foreign:
            connection.close()  # it may be an answer to another question
            await asyncio.to_thread(self.delete_many, [key])
        return None if value is None else CacheHit(value, NAME)

    def put_many(self, items: Sequence[tuple[bytes, bytes]], *, ttl: float | None = None) -> None:
        ttl_ms = max(1, round(1000 * (self._config.ttl if ttl is None else ttl)))
        fitting = [pair for pair in items if len(pair[1]) <= self._config.most_bytes]
        with span("cache redis put"):
            for part in _batches(fitting):
                self._told(
                    [("SET", key, self._seal.close(key, at), "PX", ttl_ms) for key, at in part]
                )

    def delete_many(self, keys: Sequence[bytes]) -> None:
        for part in _batches(keys):
            self._asked([("UNLINK", *part)], len(part))

    def purge(self, prefix: bytes, *, keep: bytes | None = None) -> int:
        gone, cursor = 0, b"0"
        pattern = _literal(prefix) + b"*"
        while True:
            command: Command = ("SCAN", cursor, "MATCH", pattern, "COUNT", _SCAN)
            (reply,) = self._asked([command], 0, timeout=_PURGE) or (None,)
            if not isinstance(reply, list) or len(reply) != 2:
                return gone
            cursor, found = reply
            keys = [key for key in found if not (keep and key.startswith(keep))]
            if keys:
                (number,) = self._asked([("UNLINK", *keys)], 0, timeout=_PURGE) or (None,)
                gone += number if isinstance(number, int) else 0
            if cursor == b"0":
                return gone

    def stats(self) -> Mapping[str, TierStats]:
        with self._lock:
            return {NAME: replace(self._stats, open=self._breaker.is_open)}

    def close(self) -> None:
        self._closed.set()
        self._connections.close()
        with self._lock:
            of_loops, self._of_loops = self._of_loops, {}
        for loop, connection in of_loops.items():
            with suppress(RuntimeError):  # it is closed
                loop.call_soon_threadsafe(connection.close)

    def _connection_of_loop(self) -> AsyncConnection:
        """Return the connection of the running event loop; those of loops that ended are let go."""
        loop = asyncio.get_running_loop()
        known = self._of_loops.get(loop)
        if known is None:
            timeout = self._config.timeout + self._config.per_key
            known = AsyncConnection(
                self._url,
                timeout=timeout,
                slow=self._config.breaker.slow,
                failed=self._failed,
                answered=self._answered,
            )
            with self._lock:
                going = {at: one for at, one in self._of_loops.items() if not at.is_closed()}
                self._of_loops = {**going, loop: known}
        return known

    def _forget_inherited(self) -> None:
        """Begin anew in a forked child: the thread that would find Redis well is the parent's."""
        self._lock = threading.Lock()
        self._of_loops = {}
        self._breaker = CircuitBreaker(self._config.breaker)

    def _opened(self, keys: Sequence[bytes], replies: list[Reply] | None) -> list[bytes | None]:
        sealed = replies[0] if replies else None
        if not isinstance(sealed, list) or len(sealed) != len(keys):
            self._count(errors=replies is not None)
            return [None] * len(keys)
        values = [self._seal.open(key, one) for key, one in zip(keys, sealed, strict=True)]
        foreign = [
            key
            for key, one, value in zip(keys, sealed, values, strict=True)
            if one is not None and value is None
        ]
        if foreign:
            self._count(errors=len(foreign))
            self.delete_many(foreign)
        return values

    def _asked(
        self,
        commands: list[Command],
        num_keys: int,
        *,
        timeout: float | None = None,
        vital: bool = False,
    ) -> list[Reply] | None:
        """Return the replies, None where the tier is given up or failed just now.

        To refuse what is `vital` is to fail: who takes no writes can still be read.
        """
        if self._is_left_aside():
            return None
        start = time.perf_counter()
        try:
            allowed = timeout or self._config.timeout + num_keys * self._config.per_key
            replies = self._connections.exchange(commands, timeout=allowed)
            if vital and isinstance(replies[0], ResponseError):
                raise replies[0]
        # a server that sends garbage makes the parser raise anything
        except Exception as error:
            self._count(seconds=time.perf_counter() - start)
            self._failed(error)
            return None
        took = time.perf_counter() - start
        self._count(seconds=took)
        slow_for = took - num_keys * self._config.per_key
        if timeout is None and self._breaker.succeeded(slow_for):
            self._give_up(TimeoutError(f"its last answers took {1000 * took:.0f} ms and the like"))
        return replies

    def _told(self, commands: list[Command]) -> None:
        """Send what nobody waits for; where that fails it is no miss of anybody."""
        if self._is_left_aside():
            return
        start = time.perf_counter()
        try:
            allowed = self._config.timeout + len(commands) * self._config.per_key
            self._connections.send(commands, timeout=allowed)
        # as in _asked
        except Exception as error:
            self._failed(error)
        self._count(seconds=time.perf_counter() - start)

    def _put(self, replies: list[Reply]) -> None:
        refused = sum(isinstance(reply, ResponseError) for reply in replies)
        self._count(puts=len(replies) - refused, errors=refused)

    def _is_left_aside(self) -> bool:
        return self._breaker.is_open or self._closed.is_set()

    def _failed(self, error: Exception) -> None:
        self._count(errors=1)
        if self._breaker.failed():
            self._give_up(error)

    def _answered(self, is_slow: bool) -> None:
        slow = self._config.breaker.slow
        if self._breaker.succeeded(inf if is_slow else 0.0):
            self._give_up(TimeoutError(f"its last answers took more than {1000 * slow:.0f} ms"))

    def _give_up(self, error: Exception) -> None:
        logger.warning("Redis is left aside, searching goes on without it: %s", error)
        threading.Thread(target=self._wait_until_well, name="triptych-heal", daemon=True).start()

    def _wait_until_well(self) -> None:
        # at random, so that many processes do not come back at once
        while not self._closed.wait(self._breaker.pause() * random.uniform(0.75, 1.0)):  # noqa: S311
            if self._is_well():
                self._breaker.heal()
                logger.warning("Redis is well again.")
                return

    def _is_well(self) -> bool:
        took = []
        for _ in range(_PROBES):
            start = time.perf_counter()
            try:
                # no PING: who may not read is allowed it, and one whose disk is full refuses it
                command: Command = ("MGET", _PROBE)
                (reply,) = self._connections.exchange([command], timeout=self._config.timeout)
            # as in _asked
            except Exception:
                return False
            if reply != [None]:
                return False
            took.append(time.perf_counter() - start)
        return min(took) <= self._config.breaker.slow  # the first may have connected

    def _count(
        self,
        *,
        hits: int = 0,
        misses: int = 0,
        puts: int = 0,
        errors: int = 0,
        seconds: float = 0.0,
    ) -> None:
        with self._lock:
            self._stats.hits += hits
            self._stats.misses += misses
            self._stats.puts += puts
            self._stats.errors += errors
            self._stats.seconds += seconds


def _batches(things: Sequence[T]) -> Iterator[Sequence[T]]:
    for start in range(0, len(things), _BATCH):
        yield things[start : start + _BATCH]


def _literal(prefix: bytes) -> bytes:
    """Return a pattern of Redis that matches just this."""
    return re.sub(rb"([\\*?\[\]^-])", rb"\\\1", prefix)


_all: weakref.WeakSet[RedisCache] = weakref.WeakSet()


def _forget_inherited() -> None:
    for one in list(_all):
        one._forget_inherited()


os.register_at_fork(after_in_child=_forget_inherited)
