"""Refusals in sentences: what the protocol's library answers with a code alone, or not at all."""

from __future__ import annotations

from typing import Any, Final

import anyio
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from mcp_types import (
    INVALID_PARAMS,
    INVALID_REQUEST,
    PARSE_ERROR,
    ErrorData,
    JSONRPCError,
    JSONRPCNotification,
    jsonrpc_message_adapter,
)
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from triptych.api.bodies import whole_body
from triptych.api.edge import Asgi, Receive, Scope, Send, send_error
from triptych.api.errors import ApiError
from triptych.api.fast_path import replayed

_GARBAGE: Final = (
    "That was no message: expected one JSON object, JSON-RPC 2.0, on one line, "
    'such as {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}.'
)
_NO_ID: Final = "A request needs an id, a text or a whole number. Only notifications/... have none."
_NO_SESSION: Final = "Send a message with POST. There are no sessions, and nothing is sent unasked."
_FIRST: Final = "Send initialize first, then notifications/initialized."


async def say_what_is_wrong(ctx: Any, call_next: Any) -> Any:
    """Go on with a message; where its parameters are refused, say which and why."""
    try:
        return await call_next(ctx)
    except ValidationError as error:
        raise MCPError(code=INVALID_PARAMS, message=_wrong(ctx.method, error)) from None
    except MCPError as error:
        if error.error.code != INVALID_PARAMS or error.error.data:
            raise
        raise MCPError(code=INVALID_PARAMS, message=_FIRST) from None


async def relay(coming: Any, going: Any, onward: Any) -> None:
    """Hand messages on; what is none is answered, without an id, for none can be read in it."""
    async with onward:
        async for message in coming:
            refusal = _GARBLED if isinstance(message, Exception) else _refusal(message.message)
            try:
                await (going.send(SessionMessage(refusal)) if refusal else onward.send(message))
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                return


class Gate:
    """Stands before the library over HTTP, and answers there what `relay` answers on a pipe."""

    def __init__(self, app: Asgi, *, path: str, most_bytes: int) -> None:
        self._app, self._path, self._most = app, path, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != self._path:
            await self._app(scope, receive, send)
            return
        try:
            if scope["method"] != "POST":
                raise ApiError(405, "method_not_allowed", _NO_SESSION, headers={"Allow": "POST"})
            body = await whole_body(Request(scope, receive), most=self._most)
        except ApiError as error:
            await send_error(send, error)
            return
        refusal = _refusal_of(body)
        if refusal is None:
            await self._app(scope, replayed({"type": "http.request", "body": body}, receive), send)
            return
        said = refusal.model_dump_json(by_alias=True)
        await Response(said, status_code=400, media_type="application/json")(scope, receive, send)


def _refusal_of(body: bytes) -> JSONRPCError | None:
    try:
        return _refusal(jsonrpc_message_adapter.validate_json(body, by_name=False))
    except ValidationError:
        return _GARBLED


def _refusal(message: Any) -> JSONRPCError | None:
    """Return what to say to a request whose id is none: the library takes it for a notification."""
    is_notification = isinstance(message, JSONRPCNotification)
    if is_notification and not message.method.startswith("notifications/"):
        return _error(INVALID_REQUEST, _NO_ID)
    return None


def _error(code: int, sentence: str) -> JSONRPCError:
    return JSONRPCError(jsonrpc="2.0", id=None, error=ErrorData(code=code, message=sentence))


_GARBLED: Final = _error(PARSE_ERROR, _GARBAGE)


def _wrong(method: str, error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    places = [".".join(str(part) for part in one["loc"]) or "all of it" for one in found]
    said = "; ".join(f"{place}: {one['msg']}" for place, one in zip(places, found, strict=True))
    return f"The parameters of {method:.80} cannot be used: {said:.400}."
