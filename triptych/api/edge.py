"""What stands before every route: ids, origins, keys, the log, and answers to short searches."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeAlias
from urllib.parse import unquote

from triptych.api.access import Access
from triptych.api.call import KEY, Call, request_id_of
from triptych.api.errors import (
    ApiError,
    body_of,
    headers_of,
    internal,
    shutting_down,
    status_of,
)
from triptych.api.fast_path import FastPath, Question
from triptych.api.health import Health
from triptych.api.logs import AccessLog
from triptych.api.metrics import Metrics
from triptych.api.origin import OriginCheck
from triptych.api.page.assets import assets
from triptych.cache.memory import NAME as MEMORY
from triptych.errors import TriptychError
from triptych.retrieval.answering.answer_cache import Answer

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
Asgi: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

logger = logging.getLogger(__name__)

PUBLIC = frozenset({"/livez", "/readyz", "/openapi.json", *assets()})
"""Answered without a key. Whatever is not in this list needs one."""

_ALWAYS = [
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
]
_SINGLE = frozenset(
    {b"host", b"authorization", b"x-api-key", b"content-length", b"content-type", b"origin"}
)
_JSON = (b"content-type", b"application/json")
_TIER = b"x-triptych-tier"
_SEARCH = "/v1/collections/{name}/search"


class Edge:
    """The outermost ASGI application."""

    def __init__(
        self,
        app: Asgi,
        *,
        access: Access,
        origins: OriginCheck,
        metrics: Metrics,
        log: AccessLog,
        health: Health,
        answer_time: float,
        fast_path: FastPath,
        secret: str,
    ) -> None:
        self._app, self._access, self._origins = app, access, origins
        self._metrics, self._log, self._fast_path = metrics, log, fast_path
        self._health, self._answer_time, self._secret = health, answer_time, secret
        # of what is known, looked up once: it is most of what a busy server answers
        self._known_seconds = metrics.seconds.labels(_SEARCH)
        self._known_tiers = {
            tier: (name.encode(), metrics.tiers.labels(name))
            for tier, name in ((MEMORY, "process"), ("redis", "redis"))
        }
        self._known_requests = metrics.requests.labels(_SEARCH, "POST", "200")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        started = time.monotonic()
        headers: dict[bytes, bytes] = dict(scope["headers"])
        client = scope.get("client")
        call = Call(
            request_id=request_id_of(headers),
            started=started,
            deadline=started + self._answer_time,
            seconds=self._answer_time,
            address=client[0] if client else "",
        )
        scope[KEY] = call
        try:
            await self._handle(scope, headers, call, receive, send)
        except asyncio.CancelledError:
            # the time to drain is over: uvicorn would answer in words of its own
            if call.status:
                raise
            await send_error(self._marked(scope, call, send), shutting_down())
        finally:
            self._note(scope, call)

    async def _handle(
        self, scope: Scope, headers: dict[bytes, bytes], call: Call, receive: Receive, send: Send
    ) -> None:
        marked = self._marked(scope, call, send)
        try:
            _check_single(scope["headers"], headers)
            origin = self._origins.check(headers)
            if origin is not None:
                _allow_origin(call, origin)
                if scope["method"] == "OPTIONS":
                    await _preflight(marked)
                    return
            call.shorten(headers)
            if scope["path"] not in PUBLIC:
                call.caller = self._access.caller(headers, call.address)
            _check_body(headers)
        except ApiError as error:
            self._metrics.refused.labels(error.code).inc()
            # the body is read and dropped: who still sends it would find the line cut, no answer
            await send_error(marked, error)
            return
        if self._fast_path.is_search(scope, headers):
            looked, receive = await self._fast_path.look(scope["path"], call, receive)
            if looked is not None:
                scope["triptych.route"] = _SEARCH
                if isinstance(looked, Answer):
                    await self._send_known(call, looked, send)
                else:
                    await self._answer(call, looked, marked)
                return
        await self._route(scope, call, receive, marked)

    async def _route(self, scope: Scope, call: Call, receive: Receive, send: Send) -> None:
        _keep_slashes(scope)
        if scope["method"] == "HEAD":
            scope, receive, send = _head_of_get(scope, receive, send)
        try:
            await self._app(scope, receive, send)
        except Exception:
            await self._send_internal(call, send)

    async def _answer(self, call: Call, question: Question, send: Send) -> None:
        try:
            found = await self._fast_path.answer(question, call.deadline)
        except TriptychError as error:
            await send_error(send, error, secret=self._secret)
        except Exception:
            await self._send_internal(call, send)
        else:
            self._metrics.count_answer(found.tier, found.stages)
            said = [(k.lower().encode(), v.encode()) for k, v in found.headers().items()]
            await _send(send, 200, found.body, said)

    async def _send_internal(self, call: Call, send: Send) -> None:
        logger.exception("request failed", extra={"request_id": call.request_id})
        if not call.status:
            await send_error(send, internal(call.request_id))

    async def _send_known(self, call: Call, known: Answer, send: Send) -> None:
        call.status, body = 200, known.body
        name, counter = self._known_tiers[known.tier]
        counter.inc()
        self._known_seconds.observe(time.monotonic() - call.started)
        headers = [
            _JSON,
            (_TIER, name),
            (b"content-length", b"%d" % len(body)),
            (b"x-request-id", call.request_id.encode("ascii")),
            *_ALWAYS,
            *call.headers,
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _marked(self, scope: Scope, call: Call, send: Send) -> Send:
        """Return `send`, with the headers that every reply has."""

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                call.status = message["status"]
                given = list(message.get("headers", ()))
                names = {name for name, _ in given}
                message["headers"] = [
                    *given,
                    (b"x-request-id", call.request_id.encode("ascii")),
                    *(pair for pair in _ALWAYS if pair[0] not in names),
                    *call.headers,
                ]
                self._metrics.seconds.labels(_route_of(scope)).observe(
                    time.monotonic() - call.started
                )
            await send(message)

        return marked

    def _note(self, scope: Scope, call: Call) -> None:
        status = call.refused or call.status or 499  # the caller hung up
        self._health.note(status)
        if scope.get("triptych.route") == _SEARCH and status == 200:
            self._known_requests.inc()
        else:
            self._metrics.requests.labels(_route_of(scope), _method(scope), str(status)).inc()
        self._log.note(
            call.request_id,
            scope["method"],
            scope["path"],
            status,
            time.monotonic() - call.started,
            call.caller.key.name if call.caller else None,
        )


async def send_error(send: Send, error: TriptychError, *, secret: str = "") -> None:
    """Answer with an error."""
    headers = [(k.lower().encode(), v.encode()) for k, v in headers_of(error).items()]
    await _send(send, status_of(error), body_of(error, secret=secret), headers)


async def _send(
    send: Send, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]]
) -> None:
    told = [_JSON, (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": body})


def _check_single(pairs: list[tuple[bytes, bytes]], headers: dict[bytes, bytes]) -> None:
    """Who sends two of these means that we and somebody else take different ones for true."""
    if len(pairs) == len(headers):
        return
    names = [name for name, _ in pairs]
    for name in _SINGLE:
        if names.count(name) > 1:
            raise ApiError(400, "bad_request", f"The header {name.decode()} is there twice.")


def _check_body(headers: dict[bytes, bytes]) -> None:
    encoding = headers.get(b"content-encoding")
    if encoding is not None and encoding.lower() != b"identity":
        raise ApiError(
            415, "unsupported_media_type", "A compressed body is not read.", hint="Send it plain."
        )


def _keep_slashes(scope: Scope) -> None:
    """Leave %2F in a path as it is: an id with a slash is one segment, not two."""
    raw = scope.get("raw_path") or b""
    if b"%2F" in raw or b"%2f" in raw:
        kept = raw.replace(b"%2F", b"%252F").replace(b"%2f", b"%252F")
        scope["path"] = unquote(kept.decode("ascii", "replace"))


def _head_of_get(scope: Scope, receive: Receive, send: Send) -> tuple[Scope, Receive, Send]:
    """Return a GET of which only the head is sent.

    Once it is, the caller is gone for the route: one that would go on sending stops.
    """
    routed, is_sent = {**scope, "method": "GET"}, False

    async def received() -> Message:
        return {"type": "http.disconnect"} if is_sent else await receive()

    async def sent(message: Message) -> None:
        nonlocal is_sent
        if message["type"] == "http.response.start":
            is_sent = True
            scope["route"] = routed.get("route")  # numbers and traces name it
            await send(message)
            await send({"type": "http.response.body", "body": b""})

    return routed, received, sent


def _allow_origin(call: Call, origin: str) -> None:
    call.headers += [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"vary", b"Origin"),
        (
            b"access-control-expose-headers",
            b"ETag, X-Request-Id, X-Triptych-Tier, Server-Timing, Retry-After",
        ),
    ]


async def _preflight(send: Send) -> None:
    headers = [
        (b"access-control-allow-methods", b"GET, POST, PUT, DELETE"),
        (
            b"access-control-allow-headers",
            b"Authorization, Content-Type, If-None-Match, X-Api-Key, X-Request-Id, X-Timeout-Ms",
        ),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _route_of(scope: Scope) -> str:
    return str(getattr(scope.get("route"), "path", None) or scope.get("triptych.route", "none"))


def _method(scope: Scope) -> str:
    known = ("GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH")
    return scope["method"] if scope["method"] in known else "other"
