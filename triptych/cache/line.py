"""One connection to a Redis for an event loop: no thread is woken, and no answer waited for before
the next question is sent.

The deadline is for a question and its answer, connecting included, as it is in `connections`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import hiredis
from redis.asyncio import ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as TooLate

from triptych.cache.connections import CONNECT, Reply

_TURNS = 4  # of a loop, in which it reads what came while it was held up


class _Asked(NamedTuple):
    until: float  # by the loop's clock
    answer: asyncio.Future[Reply]


class Line(asyncio.Protocol):
    """At most one connection to `url`, made when it is first wanted. For one event loop.

    `failed` is told of each time that questions were left without an answer, and why.
    """

    def __init__(self, url: str, *, timeout: float, failed: Callable[[Exception], None]) -> None:
        pool = ConnectionPool.from_url(
            url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=CONNECT,
            socket_timeout=CONNECT,  # for the handshake; afterwards deadlines are here
            health_check_interval=0,
            decode_responses=False,
        )
        self._make: Callable[[], Any] = lambda: pool.connection_class(**pool.connection_kwargs)
        self._timeout, self._failed = timeout, failed
        self._loop = asyncio.get_running_loop()
        self._writer: Any = None  # of redis-py's connection: it would close what is ours if it went
        self._connecting: asyncio.Task[None] | None = None
        self._transport: asyncio.Transport | None = None
        self._asked: deque[_Asked] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def ask(self, *command: bytes) -> Reply:
        """Return the reply, None where it cannot be had; a refusal replies with a ResponseError."""
        transport = self._transport or await self._connected()
        if transport is None:
            return None
        asked = _Asked(self._loop.time() + self._timeout, self._loop.create_future())
        self._asked.append(asked)
        transport.write(hiredis.pack_command(command))  # type: ignore[arg-type]
        if self._timer is None:
            self._timer = self._loop.call_at(asked.until, self._look)
        return await asked.answer

    def close(self) -> None:
        """Let go of the connection."""
        self._give_up(None)
        if self._connecting is not None:
            self._connecting.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                answer = self._asked.popleft().answer
                if not answer.done():  # who gave up has cancelled it
                    answer.set_result(reply)
        # no protocol of Redis, or an answer to nobody: the parser raises what it likes
        except Exception as error:
            self._give_up(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self._give_up(exc or NoConnection("It was closed from the other end."))

    def _look(self, turns: int = 0) -> None:
        """Give up where the oldest question has waited for too long."""
        self._timer = None
        if not self._asked:
            return
        oldest = self._asked[0]
        if oldest.until > self._loop.time():
            self._timer = self._loop.call_at(oldest.until, self._look)
        elif turns < _TURNS:
            self._timer = self._loop.call_later(0, self._look, turns + 1)
        else:
            self._give_up(TooLate("No answer in time."))

    def _give_up(self, error: Exception | None) -> None:
        """Drop the connection, and answer nothing to who waits."""
        transport, self._transport = self._transport, None
        asked, self._asked = self._asked, deque()
        if transport is not None:
            transport.abort()
        for one in asked:
            if not one.answer.done():
                one.answer.set_result(None)
        if asked and error is not None:
            self._failed(error)

    async def _connected(self) -> asyncio.Transport | None:
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
        # it may take longer than who waits for it now may
        await asyncio.wait([self._connecting], timeout=self._timeout)
        if self._transport is None:
            self._failed(TooLate("No connection in time."))
        return self._transport

    async def _connect(self) -> None:
        try:
            connection = self._make()
            async with asyncio.timeout(CONNECT):
                await connection.connect()
            self._writer, connection._writer = connection._writer, None
            self._reader = hiredis.Reader(replyError=ResponseError)
            self._writer.transport.set_protocol(self)
            self._transport = self._writer.transport
        # redis-py raises what it likes for an address or a server that is no Redis
        except Exception as error:
            self._failed(error)
        finally:
            self._connecting = None
