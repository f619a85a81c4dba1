"""Bodies: counted while they come, parsed strictly, off the event loop."""

from __future__ import annotations

import json
import math
import re
from collections.abc import AsyncIterator
from typing import Any, NoReturn, TypeAlias, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from triptych.api.call import KEY
from triptych.api.config import Limits
from triptych.api.errors import ApiError, too_large
from triptych.api.fields import invalid
from triptych.errors import InvalidInput

M = TypeVar("M", bound=BaseModel)
Files: TypeAlias = dict[str, list[bytes]]
"""The uploads of a form by the names of their parts."""

JSON = "application/json"
FORM = "multipart/form-data"
LINES = "application/x-ndjson"

_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_LONGEST_NUMBER = 400  # digits
_TAIL = 64  # bytes at the end of a form that are looked at


def content_type(request: Request) -> str:
    """Return the media type of the body without its parameters, in small letters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def expect_type(request: Request, *allowed: str) -> str:
    """Return the media type; raises ApiError, 415, for one that the route does not take."""
    given = content_type(request)
    if given not in allowed:
        raise ApiError(
            415,
            "unsupported_media_type",
            f"Got {f'the content type {given[:80]!r}' if given else 'no content type'}, "
            f"expected {' or '.join(allowed)}.",
        )
    return given


async def chunks(request: Request, *, most: int) -> AsyncIterator[bytes]:
    """Yield the body as it comes; raises ApiError beyond `most` bytes.

    The time for the answer begins when all of it is here.
    """
    declared = request.headers.get("content-length", "")
    if declared.isascii() and declared.isdigit() and int(declared[:19]) > most:
        raise too_large(f"The body has {int(declared[:19]):,} bytes", most=most)
    read = 0
    try:
        async for chunk in request.stream():
            read += len(chunk)
            if read > most:
                raise too_large(f"The body has {read:,} bytes or more", most=most)
            yield chunk
    except ClientDisconnect:
        raise ApiError(400, "bad_request", "The connection ended before the body did.") from None
    request.scope[KEY].renew()


async def whole_body(request: Request, *, most: int) -> bytes:
    """Return the body; raises ApiError beyond `most` bytes."""
    return b"".join([chunk async for chunk in chunks(request, most=most)])


async def form(request: Request, *, limits: Limits) -> tuple[dict[str, str], Files]:
    """Return the fields and the files of a multipart body; nothing is kept under a sent name."""
    stream = _FormStream(request, most=limits.body_bytes)
    try:
        parts = await Request(request.scope, stream).form(
            max_files=limits.form_parts,
            max_fields=limits.form_parts,
            max_part_size=limits.field_bytes,
        )
    except HTTPException as error:
        raise stream.refused or ApiError(
            400, "bad_multipart", f"The form is not sound: {error.detail}"
        ) from None
    request.scope[KEY].renew()
    try:
        return await _sorted_parts(parts)
    finally:
        await parts.close()


async def _sorted_parts(parts: FormData) -> tuple[dict[str, str], Files]:
    fields: dict[str, str] = {}
    files: Files = {}
    for name, value in parts.multi_items():
        if isinstance(value, str):
            if name in fields:
                raise ApiError(400, "bad_multipart", f"The field {name[:80]!r} is there twice.")
            fields[name] = value
        else:
            files.setdefault(name, []).append(await value.read())
    return fields, files


class _FormStream:
    """Receives a form, within a limit and up to its end.

    What is wrong is raised as the parser's own error: only then does it let go of its files.
    """

    def __init__(self, request: Request, *, most: int) -> None:
        self.refused: ApiError | None = None
        self._receive, self._most = request.receive, most
        self._read, self._tail = 0, b""

    async def __call__(self) -> Message:
        message = await self._receive()
        body = message.get("body", b"")
        self._read += len(body)
        self._tail = (self._tail + body)[-_TAIL:]
        if self._read > self._most:
            self.refused = too_large(f"The body has {self._read:,} bytes or more", most=self._most)
            raise MultiPartException("too large")
        if message["type"] == "http.disconnect" or (
            not message.get("more_body") and not self._tail.rstrip().endswith(b"--")
        ):
            raise MultiPartException("it ends before its last boundary")
        return message


def parse_json(data: bytes | str, *, depth: int, what: str = "The body") -> Any:
    """Return the value; raises ApiError, bad_json, or InvalidInput for what JSON itself permits.

    `what` names the text in the error.

    Refused besides: NaN and infinity, a key twice in one object, a lone surrogate, numbers that
    no computer holds, and nesting deeper than `depth`.
    """
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
    except UnicodeDecodeError as error:
        raise _bad_json(what, f"it is not UTF-8 at byte {error.start}") from None
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise _bad_json(what, _why(text, error)) from None
    except RecursionError:
        raise _too_deep(depth) from None
    if text.count("[") + text.count("{") > depth and _is_deeper(value, depth):
        raise _too_deep(depth)
    if _has_infinity(value):
        raise InvalidInput("The JSON holds a number that is too large, expected finite ones.")
    if _SURROGATE.search(text) and _has_surrogate(value):
        raise InvalidInput("The JSON holds half a surrogate pair: that is no text.")
    return value


def read_as(model: type[M], data: bytes | str, depth: int) -> M:
    """Return JSON as `model`; raises ApiError and InvalidInput."""
    return validated(model, parse_json(data, depth=depth))


def validated(model: type[M], value: Any) -> M:
    """Return the value as `model`; raises InvalidInput that names the first wrong fields."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise invalid(
            error.errors(include_url=False), body=value, known=model.model_fields
        ) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InvalidInput(f"The JSON names {twice[:80]!r} twice in one object.")
    return found


def _no_constant(name: str) -> NoReturn:
    raise InvalidInput(f"The JSON holds {name}, expected finite numbers.")


def _int(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise InvalidInput(f"The JSON holds a number of over {_LONGEST_NUMBER} digits.")
    return int(digits)


# made once: json.loads makes one for each body
_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_no_constant, parse_int=_int)


def _is_deeper(value: Any, depth: int) -> bool:
    level = [value]
    for _ in range(depth):
        level = [
            inner
            for one in level
            if isinstance(one, dict | list)
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return False
    return any(isinstance(one, dict | list) for one in level)


def _has_infinity(value: Any) -> bool:
    """Whether a number was too large to be held; a list of numbers is gone through by `in`."""
    if isinstance(value, dict):
        return any(_has_infinity(one) for one in value.values())
    if isinstance(value, list):
        if math.inf in value or -math.inf in value:
            return True
        return not {dict, list}.isdisjoint(map(type, value)) and any(map(_has_infinity, value))
    return isinstance(value, float) and math.isinf(value)


def _has_surrogate(value: Any) -> bool:
    if isinstance(value, str):
        return any("\ud800" <= letter <= "\udfff" for letter in value)
    if isinstance(value, dict):
        return any(_has_surrogate(key) or _has_surrogate(one) for key, one in value.items())
    return isinstance(value, list) and any(_has_surrogate(one) for one in value)


def _why(text: str, error: json.JSONDecodeError) -> str:
    if text.startswith("\ufeff"):  # nobody sees it in an editor
        return "it begins with a byte order mark (the bytes EF BB BF); send it without"
    return f"{error.msg} at character {error.pos + 1}" if text.strip() else "it is empty"


def _bad_json(what: str, why: str) -> ApiError:
    return ApiError(400, "bad_json", f"{what} is no JSON: {why}.")


def _too_deep(depth: int) -> InvalidInput:
    return InvalidInput(f"The JSON is nested more than {depth} deep.")
