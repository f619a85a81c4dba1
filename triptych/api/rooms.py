"""What a server is made of, and how a handler comes by it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar, cast

from fastapi import Depends, Request

from triptych.api.access import Caller
from triptych.api.asking import Asking
from triptych.api.call import KEY, Call
from triptych.api.catalog import Catalog
from triptych.api.config import ServerConfig
from triptych.api.embedding import Embedding
from triptych.api.errors import ApiError
from triptych.api.health import Health
from triptych.api.jobs import Jobs
from triptych.api.metrics import Metrics
from triptych.api.pool import Pool
from triptych.api.shortcut import Shortcut
from triptych.api.writing import Writing
from triptych.keys import Role

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Rooms:
    """The built parts of one server."""

    config: ServerConfig
    catalog: Catalog
    pool: Pool
    metrics: Metrics
    health: Health
    jobs: Jobs
    asking: Asking
    writing: Writing
    embedding: Embedding
    shortcut: Shortcut


def call_of(request: Request) -> Call:
    """Return what is known of the request."""
    return cast(Call, request.scope[KEY])


def rooms_of(request: Request) -> Rooms:
    """Return the parts of the server."""
    return cast(Rooms, request.app.state.rooms)


async def _server(request: Request) -> Rooms:
    return rooms_of(request)


def _requires(role: Role) -> Callable[[Request], Awaitable[Caller]]:
    async def caller(request: Request) -> Caller:
        found = call_of(request).caller
        if found is None:  # the edge lets nobody through to here; if it did, nothing would open
            raise ApiError(401, "unauthorized", "This needs a key.")
        found.require(role)
        config = rooms_of(request).config
        if role != "read" and (config.read_only or config.follow):
            raise ApiError(
                403,
                "read_only",
                "This server only reads.",
                hint="Write to the server that it follows." if config.follow else None,
            )
        return found

    return caller


# coroutines all of them: what is none, FastAPI hands to a thread, and waits for it
Server: TypeAlias = Annotated[Rooms, Depends(_server)]
Reader: TypeAlias = Annotated[Caller, Depends(_requires("read"))]
Writer: TypeAlias = Annotated[Caller, Depends(_requires("write"))]
Admin: TypeAlias = Annotated[Caller, Depends(_requires("admin"))]


async def working(request: Request, work: Callable[..., T], *args: Any) -> T:
    """Run `work` off the event loop, within the request's deadline."""
    return await rooms_of(request).pool.run(call_of(request).deadline, work, *args)
