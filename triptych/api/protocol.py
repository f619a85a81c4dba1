"""uvicorn's HTTP protocol with deadlines: a slow sender or reader cannot hold a connection.

uvicorn itself waits forever for the rest of a request. Here the head has a time, the whole body has
one that grows with what has come, a body that stands still is given up, and so is a client that
does not read its answer, by the same measure: a large answer may take its time on a slow line as a
large body may. One timer a connection looks at all of it; each byte costs nothing.

Who is answered before his body has come sends on: it is read, for else he would find the line cut
and no answer, but only so much of it. Where it may be more, the answer says that it ends the line:
a next request on it would be lost.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from http import HTTPStatus
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from triptych.api.call import KEY, Call
from triptych.api.config import Limits, Times
from triptych.api.errors import ApiError, body_of

CRLF = "\r\n"
_LOOK = 1.0  # seconds between two looks at a connection


class Connections:
    """How many connections there are, all together and by address."""

    def __init__(self, *, most: int, most_per_address: int) -> None:
        self._most, self._most_per_address = most, most_per_address
        self._open: dict[GuardedProtocol, str] = {}  # the oldest first
        self._by_address: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, protocol: GuardedProtocol, address: str) -> bool:
        """Let a connection in, in the place of one that is idle if need be."""
        rivals: Iterator[GuardedProtocol] = iter(())
        if self._by_address[address] >= self._most_per_address:
            rivals = (one for one, where in self._open.items() if where == address)
        elif len(self._open) >= self._most:
            rivals = iter(self._open)
        else:
            self._add(protocol, address)
            return True
        idle = next((one for one in rivals if one.is_waiting), None)
        if idle is None:
            return False
        idle.drop()
        self.leave(idle)
        self._add(protocol, address)
        return True

    def leave(self, protocol: GuardedProtocol) -> None:
        """Forget a connection; twice is harmless."""
        address = self._open.pop(protocol, None)
        if address is not None:
            self._by_address[address] -= 1
            if not self._by_address[address]:
                del self._by_address[address]

    def _add(self, protocol: GuardedProtocol, address: str) -> None:
        self._open[protocol] = address
        self._by_address[address] += 1


class GuardedProtocol(HttpToolsProtocol):
    """One connection; `guarded` binds the limits."""

    limits: Limits
    times: Times
    all_connections: Connections

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_since = time.monotonic()  # 0: no head is awaited
        self._head_bytes = 0
        self._body_since = 0.0  # 0: no body is awaited
        self._body_bytes = 0  # without what frames it: chunks' lengths, extensions and trailers ...
        self._frame_bytes = 0  # ... which is bounded by itself, between two pieces of the body
        self._vain_bytes = 0  # that came after the answer to their request
        self._is_parting = False  # once this body has come, for the answer said so
        self._last_byte = self._head_since
        self._unread_since = 0.0  # when more was written than the client has read; 0: it keeps up
        self._unread = 0  # bytes of what was written, at the last look
        self._read_bytes = 0  # of them, since then
        self._last_read = 0.0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether nothing is being answered on it: it may be dropped."""
        return self.cycle is None or self.cycle.response_complete or bool(self._body_since)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if not self.all_connections.enter(self, address):
            self._refuse(503, "overloaded", "Too many connections are open.")
            return
        self._timer = self.loop.call_later(_LOOK, self._look)

    def connection_lost(self, exc: Exception | None) -> None:
        self.all_connections.leave(self)
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._last_byte = time.monotonic()
        if self._body_since:
            self._frame_bytes += len(data)
            if self.cycle.response_complete:
                self._vain_bytes += len(data)
                if self._vain_bytes > self.limits.unread_bytes:
                    self.drop()
                    return
        else:
            if not self._head_since:
                self._head_since, self._head_bytes = self._last_byte, 0
            self._head_bytes += len(data)
        try:
            super().data_received(data)
        except (ValueError, UnicodeError):  # a path that is no ASCII, and the like
            self._refuse(400, "bad_request", "The request is no HTTP.")
            return
        if self._head_since and self._head_bytes > self.limits.head_bytes:
            self._refuse(431, "too_large", "The request's headers are too long.")
        elif self._body_since and self._frame_bytes > self.limits.head_bytes:
            self._refuse(431, "too_large", "The request's trailers, or a chunk's, are too long.")

    def on_headers_complete(self) -> None:
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > self.limits.head_bytes:
            self._head_bytes = size
            raise ValueError  # the parser says that the request is no good
        super().on_headers_complete()
        self._head_since = 0.0
        self._body_since = time.monotonic()
        self._body_bytes = self._frame_bytes = self._vain_bytes = 0
        if self._may_be_cut():
            self.cycle.send = cast(Any, self._parting(self.cycle))  # type: ignore[method-assign]

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._frame_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._body_since = 0.0
        if self._is_parting:
            self.cycle.keep_alive = False
            if self.cycle.response_complete:
                self.transport.close()

    def send_400_response(self, msg: str) -> None:
        if self._head_bytes > self.limits.head_bytes:
            self._refuse(431, "too_large", "The request's headers are too long.")
        else:
            self._refuse(400, "bad_request", "The request is no HTTP.")

    def pause_writing(self) -> None:
        self._watch_reader()
        super().pause_writing()

    def resume_writing(self) -> None:
        self._unread_since = 0.0
        super().resume_writing()

    def drop(self) -> None:
        """End the connection at once."""
        self.transport.abort()

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing in the log: whoever may connect would fill it, and nothing is missing."""

    def _look(self) -> None:
        self._timer = None
        now, times = time.monotonic(), self.times
        if self.transport.is_closing():
            if not self._unread_since:
                self._watch_reader()  # of what is left: it may be less than writing waits for
        elif self._head_since and now - self._head_since > times.head:
            self._refuse(408, "too_slow", "The request's headers took too long.")
        elif (
            self._body_since
            and not self.flow.read_paused
            and self._is_slow(now - self._body_since, self._body_bytes, now - self._last_byte)
        ):
            self._refuse(408, "too_slow", "The request's body took too long.")
        if self._unread_since:
            unread = self.transport.get_write_buffer_size()
            if unread < self._unread:
                self._read_bytes += self._unread - unread
                self._unread, self._last_read = unread, now
            if self._is_slow(now - self._unread_since, self._read_bytes, now - self._last_read):
                self.drop()
                return
        self._timer = self.loop.call_later(_LOOK, self._look)

    def _may_be_cut(self) -> bool:
        """Whether the body may be more than is read of one that is already answered."""
        declared = next((value for name, value in self.headers if name == b"content-length"), None)
        if declared is None:
            return any(name == b"transfer-encoding" for name, _ in self.headers)
        return int(declared) > self.limits.unread_bytes

    def _parting(self, cycle: RequestResponseCycle) -> Callable[[Any], Awaitable[None]]:
        """Return a `send` whose answer, ahead of its body, says that the line ends behind it."""
        send = cycle.send

        async def told(message: Any) -> None:
            is_early = message["type"] == "http.response.start" and bool(self._body_since)
            stays = cycle.keep_alive
            if is_early and self.cycle is cycle:
                self._is_parting = True
                message["headers"] = [*message.get("headers", ()), (b"connection", b"close")]
            await send(message)
            if self._is_parting and self._body_since:
                cycle.keep_alive = stays  # uvicorn would cut it now, and some would get no answer

        return told

    def _watch_reader(self) -> None:
        self._unread_since = self._last_read = time.monotonic()
        self._unread, self._read_bytes = self.transport.get_write_buffer_size(), 0

    def _is_slow(self, seconds: float, num_bytes: int, silent: float) -> bool:
        """Whether so many bytes, the last one `silent` seconds ago, are too few for `seconds`."""
        allowed = self.times.body + num_bytes / self.times.bytes_per_second
        return seconds > allowed or silent > self.times.stall

    def _refuse(self, status: int, code: str, message: str) -> None:
        """Say why and hang up; where an answer has begun, or was given, only hang up."""
        begun = self.cycle is not None and self.cycle.response_started
        if begun and (self._body_since or not self.cycle.response_complete):
            self.drop()
            return
        body = body_of(ApiError(status, code, message))
        more = f"retry-after: 1{CRLF}" if status == 503 else ""
        is_asked = self.cycle is not None and not self.cycle.response_complete
        call = cast(Call | None, self.cycle.scope.get(KEY) if is_asked else None)
        if call is not None:
            call.refused = status
            more += f"x-request-id: {call.request_id}{CRLF}"
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
            f"{more}connection: close\r\n\r\n"
        )
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.write(head.encode() + body)
        self.transport.close()


def guarded(
    *, limits: Limits, times: Times, connections: Connections
) -> Callable[..., GuardedProtocol] | type[GuardedProtocol]:
    """Return the protocol class of one server."""
    bound = {"limits": limits, "times": times, "all_connections": connections}
    return type("BoundProtocol", (GuardedProtocol,), bound)
