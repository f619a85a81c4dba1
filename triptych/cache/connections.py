"""Connections to one Redis under deadlines that hold.

redis-py waits five seconds by default and tries again ten times. Its timeouts are for one `recv`:
a server that sends a byte now and then is waited for without end, and so is a dead name server.
Here a deadline is for a whole exchange, nothing is tried twice, and connections are made by a
thread of its own, so that names, handshakes and TLS cost a request no more than its deadline.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeAlias

from redis import ConnectionPool
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as TooLate
from redis.retry import Retry

Command: TypeAlias = tuple[bytes | str | int, ...]
Reply: TypeAlias = Any

CONNECT = 2.0  # seconds for a connection, in the thread of its own
_TIMELY = 1e-4  # seconds left from which on nothing is begun
_CLOSING = 0.05  # seconds for what is still to be read
_IDLE = 30.0  # seconds without work after which the thread ends


class Link(Protocol):
    """What is used of a connection of redis-py, the deadline that ours has, and how many replies
    are still to come."""

    until: float
    owed: int

    def connect(self) -> None: ...
    def disconnect(self) -> None: ...
    def can_read(self, timeout: float) -> bool: ...
    def pack_commands(self, commands: Sequence[Command]) -> list[bytes]: ...
    def send_packed_command(self, command: list[bytes]) -> None: ...
    def read_response(self, *, disconnect_on_error: bool) -> Reply: ...


class Connections:
    """At most `most` connections, kept open. Threads and forks may share it."""

    def __init__(
        self, url: str, *, most: int = 16, late: Callable[[list[Reply]], None] | None = None
    ) -> None:
        """`late` is told the replies to what was only sent."""
        pool = ConnectionPool.from_url(
            url,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=CONNECT,
            socket_timeout=CONNECT,
            health_check_interval=0,
            decode_responses=False,
        )
        base = pool.connection_class
        self._make: Callable[..., Link] = type(f"Timed{base.__name__}", (_Timed, base), {})
        self._arguments = pool.connection_kwargs
        self._most = most
        self._late = late
        self._closed = False
        self._reset()
        _all.add(self)

    def exchange(self, commands: Sequence[Command], *, timeout: float) -> list[Reply]:
        """Return the reply to each command; one that was refused replies with a ResponseError.

        Raises RedisError or OSError where not all came in `timeout` seconds.
        """
        with self._sent(commands, timeout) as connection:
            return [_reply(connection) for _ in commands]

    def send(self, commands: Sequence[Command], *, timeout: float) -> None:
        """Send commands; who takes the connection next reads the replies, before his own.

        Raises RedisError or OSError where they could not be sent in `timeout` seconds.
        """
        with self._sent(commands, timeout) as connection:
            connection.owed = len(commands)

    def close(self) -> None:
        """Close what is idle now, and the rest when it comes back."""
        with self._changed:
            self._closed = True
            idle = list(self._idle)
            self._idle.clear()
            self._changed.notify_all()
        until = time.monotonic() + _CLOSING
        for connection in idle:
            self._is_settled(connection, until)  # else what was sent could be lost
            connection.disconnect()

    @contextmanager
    def _sent(self, commands: Sequence[Command], timeout: float) -> Iterator[Link]:
        until = time.monotonic() + timeout
        connection = self._take(until)
        try:
            connection.until = until
            connection.send_packed_command(connection.pack_commands(commands))
            yield connection
        except BaseException:
            self._drop(connection)
            raise
        self._give_back(connection)

    def _reset(self) -> None:
        self._changed = threading.Condition()
        self._idle: list[Link] = []
        self._open = 0  # idle, in use, or being made
        self._wanted = 0
        self._refused: tuple[int, Exception | None] = (0, None)  # how often, and why the last time
        self._thread: threading.Thread | None = None

    def _take(self, until: float) -> Link:
        while True:
            connection = self._first_idle(until)
            if self._is_settled(connection, until):
                return connection
            self._drop(connection)

    def _is_settled(self, connection: Link, until: float) -> bool:
        """Read what is owed; return whether nothing else waits to be read: no end, and no late
        answer to somebody else."""
        connection.until = until
        try:
            if connection.owed:
                replies = [_reply(connection) for _ in range(connection.owed)]
                connection.owed = 0
                if self._late is not None:
                    self._late(replies)
            return not connection.can_read(0)
        # as in _connect
        except Exception:
            return False

    def _first_idle(self, until: float) -> Link:
        with self._changed:
            refused = self._refused[0]
            has_asked = False
            while True:
                if self._closed:
                    raise NoConnection("It is closed.")
                if self._idle:
                    return self._idle.pop()
                if self._refused[0] != refused:
                    raise NoConnection(str(self._refused[1]))
                if not has_asked and self._open < self._most:
                    self._ask_for_one()
                    has_asked = True
                if not self._changed.wait(max(until - time.monotonic(), 0.0)):
                    raise TooLate("No connection in time.")

    def _ask_for_one(self) -> None:
        self._open += 1
        self._wanted += 1
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._connect, name="triptych-redis", daemon=True
            )
            self._thread.start()
        self._changed.notify_all()

    def _connect(self) -> None:
        while True:
            with self._changed:
                if not self._changed.wait_for(lambda: self._wanted or self._closed, _IDLE):
                    self._thread = None
                    return
                if self._closed:
                    return
                self._wanted -= 1
            try:
                connection: Link = self._make(**self._arguments)
                connection.until = time.monotonic() + CONNECT
                connection.connect()
            # redis-py raises what it likes for an address or a server that is no Redis
            except Exception as error:
                with self._changed:
                    self._open -= 1
                    self._refused = (self._refused[0] + 1, error)
                    self._changed.notify_all()
                continue
            self._give_back(connection)

    def _give_back(self, connection: Link) -> None:
        with self._changed:
            if not self._closed:
                self._idle.append(connection)
                self._changed.notify_all()  # not one: the thread that connects waits there too
                return
        connection.disconnect()

    def _drop(self, connection: Link) -> None:
        with suppress(Exception):
            connection.disconnect()
        with self._changed:
            self._open -= 1
            self._changed.notify_all()


class _Timed:
    """A connection with one deadline for all that is read and written until it is set anew."""

    until: float = 0.0
    owed: int = 0

    def _connect(self) -> _TimedSocket:
        return _TimedSocket(super()._connect(), self)  # type: ignore[misc]


class _TimedSocket:
    """A socket whose waiting ends at the deadline of its connection."""

    def __init__(self, inner: socket.socket, owner: _Timed) -> None:
        self._inner = inner
        # a cycle would keep sockets open until it is collected
        self._owner = weakref.proxy(owner)

    def recv_into(self, *buffer: Any) -> int:
        self._inner.settimeout(self._left())
        return self._inner.recv_into(*buffer)

    def sendall(self, data: Any) -> None:
        self._inner.settimeout(self._left())
        self._inner.sendall(data)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def _left(self) -> float:
        left: float = self._owner.until - time.monotonic()
        if left < _TIMELY:
            raise TimeoutError("The deadline has passed.")
        return left


def _reply(connection: Link) -> Reply:
    try:
        return connection.read_response(disconnect_on_error=False)
    except ResponseError as refusal:
        return refusal


_all: weakref.WeakSet[Connections] = weakref.WeakSet()


def _forget_inherited() -> None:
    for one in list(_all):
        one._reset()


# two processes that share a connection would read each other's answers
os.register_at_fork(after_in_child=_forget_inherited)
