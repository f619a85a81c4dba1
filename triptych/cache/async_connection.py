"""One connection to a Redis for an event loop: no thread is woken, no answer waited for before the
next question is sent, and what is asked in one turn of the loop is one question.

The deadline is for a question and its answer, connecting included, as it is in `connections`.
redis-py reads the address; what is said over the wire is hiredis's, and the protocol asyncio's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeAlias

import hiredis
from redis.asyncio import ConnectionPool, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as TooLate

from triptych.cache.connections import CONNECT, Reply

_TURNS = 4  # of a loop, in which it reads what came while it was held up
_LOOKS = 4  # at whether an answer is there, until it is slow
_LATE = 0.005  # seconds after which a loop that was to look was held up itself

Failed: TypeAlias = Callable[[Exception], None]
Answered: TypeAlias = Callable[[bool], None]


class AsyncConnection:
    """At most one connection to `url`, made when it is first wanted. For one event loop.

    `failed` is told of each time that questions were left without an answer, and why; `answered` of
    each answer, whether it took more than `slow` seconds, where that can be told.
    """

    def __init__(
        self, url: str, *, timeout: float, slow: float, failed: Failed, answered: Answered
    ) -> None:
        pool = ConnectionPool.from_url(url)
        self._address: Any = pool.connection_class(**pool.connection_kwargs)
        self._timeout, self._failed = timeout, failed
        self._slow, self._answered = slow, answered
        self._wire: _Wire | None = None
        self._connecting: asyncio.Task[None] | None = None

    async def get(self, key: bytes) -> Reply:
        """Return what lies under the key, None where nothing does or it cannot be had.

        What is no reply to `MGET` is whatever it is.
        """
        if self._wire is None or self._wire.is_lost:
            await self._connected()
        if self._wire is None or self._wire.is_lost:
            return None
        return await self._wire.get(key, self._timeout)

    def close(self) -> None:
        """Let go of the connection."""
        if self._wire is not None:
            self._wire.give_up(None)
        if self._connecting is not None:
            self._connecting.cancel()

    async def _connected(self) -> None:
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect())
        # it may take longer than who waits for it now may
        await asyncio.wait([self._connecting], timeout=self._timeout)
        if self._wire is None or self._wire.is_lost:
            self._failed(TooLate("No connection in time."))

    async def _connect(self) -> None:
        wire = _Wire()
        try:
            async with asyncio.timeout(CONNECT):
                await self._open(wire)
                for command in _greeting(self._address):
                    reply = await wire.ask(command, CONNECT)
                    if reply != b"OK":
                        raise NoConnection(f"It says {reply!r} to {command[0].decode()}.")
            wire.failed = self._failed
            wire.watch = partial(_Watch, slow=self._slow, answered=self._answered)
            self._wire = wire
        # a loop raises what it likes for an address that leads nowhere
        except Exception as error:
            self._failed(error)
        finally:
            if self._wire is not wire:
                wire.give_up(None)
            self._connecting = None

    async def _open(self, wire: _Wire) -> None:
        loop, address = asyncio.get_running_loop(), self._address
        if isinstance(address, UnixDomainSocketConnection):
            await loop.create_unix_connection(lambda: wire, address.path)
        else:
            tls = address.ssl_context.get() if isinstance(address, SSLConnection) else None
            await loop.create_connection(lambda: wire, address.host, address.port, ssl=tls)


class _Wire(asyncio.Protocol):
    """A connection from its making to its end: answers come in the order of the questions."""

    def __init__(self) -> None:
        self.is_lost = False
        self.failed: Failed | None = None
        self.watch: Callable[[asyncio.Future[Reply]], object] | None = None
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader(replyError=ResponseError)
        self._transport: asyncio.Transport | None = None
        self._asked: deque[_Asked] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._wanted: list[_Wanted] = []  # in this turn

    def get(self, key: bytes, timeout: float) -> asyncio.Future[Reply]:
        """Ask for a key at the end of the loop's turn, with all the others."""
        wanted = _Wanted(key, self._loop.create_future())
        if not self._wanted:
            self._loop.call_soon(self._ask_for_all, timeout)
        self._wanted.append(wanted)
        return wanted.value

    def ask(self, command: Sequence[bytes], timeout: float) -> asyncio.Future[Reply]:
        """Send a command; the reply is None where it does not come in `timeout` seconds."""
        asked = _Asked(self._loop.time() + timeout, self._loop.create_future())
        if self.is_lost or self._transport is None:
            asked.answer.set_result(None)
            return asked.answer
        self._asked.append(asked)
        self._transport.write(hiredis.pack_command(tuple(command)))  # type: ignore[arg-type]
        if self._timer is None:
            self._timer = self._loop.call_at(asked.until, self._look)
        return asked.answer

    def give_up(self, error: Exception | None) -> None:
        """Drop the connection, and answer nothing to who waits."""
        self.is_lost = True
        if self._transport is not None:
            self._transport.abort()
        if self._timer is not None:
            self._timer.cancel()
        asked, self._asked = self._asked, deque()
        for one in asked:
            if not one.answer.done():  # who shook hands has cancelled it
                one.answer.set_result(None)
        if asked and error is not None and self.failed is not None:
            self.failed(error)

    def connection_made(self, transport: Any) -> None:  # uvloop's is no asyncio.Transport
        self._transport = transport
        if self.is_lost:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not False:
                self._asked.popleft().answer.set_result(reply)
        # no protocol of Redis, or an answer to nobody: the parser raises what it likes
        except Exception as error:
            self.give_up(error)

    def connection_lost(self, exc: Exception | None) -> None:
        self.give_up(exc or NoConnection("It was closed from the other end."))

    def _ask_for_all(self, timeout: float) -> None:
        wanted, self._wanted = self._wanted, []
        reply = self.ask([b"MGET", *[one.key for one in wanted]], timeout)
        if self.watch is not None:
            self.watch(reply)
        reply.add_done_callback(partial(self._hand_out, wanted))

    def _hand_out(self, wanted: list[_Wanted], answer: asyncio.Future[Reply]) -> None:
        reply = answer.result()
        if isinstance(reply, ResponseError):
            if self.failed is not None:
                self.failed(reply)
            reply = None
        fits = isinstance(reply, list) and len(reply) == len(wanted)
        for one, value in zip(wanted, reply if fits else [reply] * len(wanted), strict=True):
            if not one.value.done():  # who gave up has cancelled it
                one.value.set_result(value)

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
            self.give_up(TooLate("No answer in time."))


class _Watch:
    """Tells whether an answer is slow to come.

    Not by how long it took: that tells of a loop that was held up as much as of Redis. It is slow
    where the loop looked for it in time, again and again, and it was not there. Where the loop was
    late itself nothing is told.
    """

    def __init__(self, answer: asyncio.Future[Reply], *, slow: float, answered: Answered) -> None:
        self._slow, self._answered = slow, answered
        self._loop = answer.get_loop()
        self._since = self._loop.time()
        self._is_slow: bool | None = False
        self._plan(1)
        answer.add_done_callback(self._end)

    def _plan(self, step: int) -> None:
        """Look at parts of the time, and for some turns at its end."""
        due = self._since + self._slow * min(step / _LOOKS, 1.0)
        self._timer = self._loop.call_at(due, self._look, step, due + _LATE)

    def _look(self, step: int, late: float) -> None:
        if self._loop.time() > late:
            self._is_slow = None
        elif step < _LOOKS + _TURNS:
            self._plan(step + 1)
        else:
            self._is_slow = True

    def _end(self, answer: asyncio.Future[Reply]) -> None:
        self._timer.cancel()
        if isinstance(answer.result(), list) and self._is_slow is not None:
            self._answered(self._is_slow)


class _Asked(NamedTuple):
    until: float  # by the loop's clock
    answer: asyncio.Future[Reply]


class _Wanted(NamedTuple):
    key: bytes
    value: asyncio.Future[Reply]


def _greeting(address: Any) -> list[tuple[bytes, ...]]:
    """Return what a connection begins with: who we are, and which database is meant."""
    commands = []
    if address.password is not None:
        who = [part.encode() for part in (address.username, address.password) if part]
        commands.append((b"AUTH", *who))
    if address.db:
        commands.append((b"SELECT", b"%d" % int(address.db)))
    return commands
