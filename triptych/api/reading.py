"""A request's body as the model that a route expects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel

from triptych.api.bodies import JSON, expect_type, parse_json, read_as, whole_body
from triptych.api.services import services_of, working
from triptych.errors import InvalidInput

M = TypeVar("M", bound=BaseModel)

_QUICK = 64 * 2**10  # bytes that are parsed sooner than another thread is woken


async def json_body(request: Request, model: type[M], *, small: bool = False) -> M:
    """Return the JSON body as `model`; raises ApiError and InvalidInput.

    `small` is for what holds neither pictures nor items.
    """
    expect_type(request, JSON)
    limits = services_of(request).config.limits
    most = limits.small_body_bytes if small else limits.body_bytes
    data = await whole_body(request, most=most)
    if len(data) <= _QUICK:
        return read_as(model, data, limits.json_depth)
    return await working(request, read_as, model, data, limits.json_depth)


def parsed(data: str, depth: int, *, name: str) -> Any:
    """Return the JSON of the field of a form, or of an address, that has this name."""
    return parse_json(data, depth=depth, what=f"The field {name}")


def check_named(files: Iterable[str], value: Any) -> None:
    """Raise InvalidInput for a file of a form that nothing in `value` names: it would be lost."""
    named = set(_strings(value))
    for name in files:
        if f"part:{name}" not in named:
            raise InvalidInput(
                f"Nothing in the form names the file {name[:80]!r}.",
                hint="Call the part image, or write part:NAME where a picture may be.",
            )


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            yield from _strings(one)
