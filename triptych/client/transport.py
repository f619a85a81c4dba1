"""Sends calls over HTTP, and again where that is safe; one transport waits, one awaits."""

from __future__ import annotations

import asyncio
import os
import ssl
import time
from collections.abc import Generator
from dataclasses import dataclass, field
from functools import cache
from types import TracebackType
from typing import Any, Self, TypeVar

from triptych.client.call import Call, Reply
from triptych.client.failures import retry_after
from triptych.errors import InvalidInput, NotAvailable, RemoteError
from triptych.keys import check_sendable
from triptych.retrieval.arguments import whole

try:
    import httpx2
except ModuleNotFoundError:
    raise NotAvailable(
        "Calling a server needs httpx2, which is not installed.",
        hint='Install it: pip install "triptych[client]"',
    ) from None

T = TypeVar("T")
C = TypeVar("C", httpx2.Client, httpx2.AsyncClient)

_LONGEST = 86_400.0  # seconds
_NOT_SENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where the server is, who asks, and how patient he is."""

    url: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 60.0  # seconds without a byte; to connect, at most 5
    retries: int = 3  # after the first try
    most_wait: float = 30.0  # seconds before any of them

    def __post_init__(self) -> None:
        if not _is_address(self.url):
            raise InvalidInput(
                f"Got the address {self.url!r}, expected http://... or https://...",
                hint="For a folder use triptych.open(path).",
            )
        if self.key is not None:
            check_sendable(self.key)
        if not isinstance(self.timeout, int | float) or not 0 < self.timeout <= _LONGEST:
            raise InvalidInput(f"timeout is seconds, more than 0, got {self.timeout!r}.")
        whole("retries", self.retries, least=0)

    def client(self, kind: type[C]) -> C:
        """Return a new one of httpx2's clients; raises NotAvailable for a proxy that is none."""
        try:
            return kind(
                base_url=self.url.rstrip("/"),
                headers={} if self.key is None else {"Authorization": f"Bearer {self.key}"},
                timeout=httpx2.Timeout(self.timeout, connect=min(self.timeout, 5.0)),
                verify=_authorities(),
            )
        except (ImportError, ValueError):
            raise NotAvailable(
                "The proxy that the environment names (ALL_PROXY and the like) cannot be used.",
                hint="For socks5:// do: pip install socksio; or go without: NO_PROXY='*'.",
            ) from None

    def conversation(self, call: Call[T]) -> Generator[float, Reply | httpx2.HTTPError, T]:
        """Yield the seconds to wait before each try, take in what it brought, return the result.

        Sent again is what never arrived, what the server had no room for, and after a lost reply
        only what does twice what it does once.
        """
        wait = 0.0
        for left in range(self.retries, -1, -1):
            got = yield wait
            backoff = 0.2 * 2 ** (self.retries - left)
            if isinstance(got, Reply):
                asked = retry_after(got.headers)
                wait = backoff if asked is None else asked
                again = got.status == 429 or (got.status == 503 and call.repeatable)
                if not left or not again or wait > self.most_wait:
                    return call.result(got)
            elif not left or not (call.repeatable or isinstance(got, _NOT_SENT)):
                shown = httpx2.URL(self.url).copy_with(userinfo=b"")  # no password in a log
                raise RemoteError(
                    "no_reply",
                    f"No answer from {shown} ({type(got).__name__}).",
                    hint="Is the server running, and is this its address?",
                ) from got
            else:
                wait = backoff
        raise AssertionError("the last try returns or raises")


class Waiting:
    """Calls that return when they are answered. Threads may share it, and forked processes."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._client, self._process = address.client(httpx2.Client), os.getpid()

    def send(self, call: Call[T]) -> T:
        """Return the call's result; raises the server's errors and RemoteError."""
        talk = self.address.conversation(call)
        wait = next(talk)
        while True:
            time.sleep(wait)
            try:
                wait = talk.send(self._once(call))
            except StopIteration as done:
                result: T = done.value
                return result

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def _once(self, call: Call[Any]) -> Reply | httpx2.HTTPError:
        try:
            return _reply(self._own().request(**_request(call)))
        except httpx2.HTTPError as error:
            return error

    def _own(self) -> httpx2.Client:
        # over its parent's connections a forked child would read what the parent is answered
        if self._process != os.getpid():
            self._client = self.address.client(httpx2.Client)
            self._process = os.getpid()
        return _open(self._client)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Awaiting:
    """Calls to await. Tasks of one event loop may share it, and loops that run one by one."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self._client: httpx2.AsyncClient | None = None
        self._home: tuple[int, asyncio.AbstractEventLoop] | None = None

    async def send(self, call: Call[T]) -> T:
        """Return the call's result; raises the server's errors and RemoteError."""
        talk = self.address.conversation(call)
        wait = next(talk)
        while True:
            await asyncio.sleep(wait)
            try:
                wait = talk.send(await self._once(call))
            except StopIteration as done:
                result: T = done.value
                return result

    async def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None and self._home == _here():
            await self._client.aclose()

    async def _once(self, call: Call[Any]) -> Reply | httpx2.HTTPError:
        try:
            return _reply(await self._own().request(**_request(call)))
        except httpx2.HTTPError as error:
            return error

    def _own(self) -> httpx2.AsyncClient:
        # connections of a loop that is over, or of a parent's, are of no use here
        if self._client is None or self._home != _here():
            self._client, self._home = self.address.client(httpx2.AsyncClient), _here()
        return _open(self._client)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()


def _is_address(url: str) -> bool:
    try:
        parsed = httpx2.URL(url)
    except (httpx2.InvalidURL, TypeError):
        return False
    return parsed.scheme in ("http", "https") and bool(parsed.host)


def _open(client: C) -> C:
    if client.is_closed:
        raise NotAvailable("This connection is closed.", hint="Connect again.")
    return client


def _here() -> tuple[int, asyncio.AbstractEventLoop]:
    return os.getpid(), asyncio.get_running_loop()


@cache
def _authorities() -> ssl.SSLContext:
    # reading the certificates takes most of the time that a client takes to make
    return httpx2.create_ssl_context()


def _request(call: Call[Any]) -> dict[str, Any]:
    headers = {} if call.body is None else {"Content-Type": call.content_type}
    return {"method": call.method, "url": call.path, "content": call.body, "headers": headers}


def _reply(response: httpx2.Response) -> Reply:
    return Reply(response.status_code, response.headers, response.content)
