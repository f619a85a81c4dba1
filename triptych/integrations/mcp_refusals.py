"""Refusals in sentences: what the protocol's library answers with a code alone, or not at all."""

from __future__ import annotations

from typing import Any, Final

import anyio
from mcp.shared.exceptions import MCPError
from mcp.shared.message import SessionMessage
from mcp_types import INVALID_PARAMS, PARSE_ERROR, ErrorData, JSONRPCError
from pydantic import ValidationError

_GARBAGE: Final = (
    "That was no message: expected one JSON object on one line, JSON-RPC 2.0, "
    'such as {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}.'
)
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
    error = ErrorData(code=PARSE_ERROR, message=_GARBAGE)
    refusal = SessionMessage(JSONRPCError(jsonrpc="2.0", id=None, error=error))
    async with onward:
        async for message in coming:
            is_garbage = isinstance(message, Exception)
            try:
                await (going.send(refusal) if is_garbage else onward.send(message))
            except (anyio.ClosedResourceError, anyio.BrokenResourceError):
                return


def _wrong(method: str, error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    places = [".".join(str(part) for part in one["loc"]) or "all of it" for one in found]
    said = "; ".join(f"{place}: {one['msg']}" for place, one in zip(places, found, strict=True))
    return f"The parameters of {method:.80} cannot be used: {said:.400}."
