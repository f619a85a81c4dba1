"""What a server is made of, and how a handler comes by it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar, cast

from fastapi import Depends, Request

from triptych.api.access import Caller
from triptych.api.call import KEY, Call
from triptych.api.catalog import Catalog
from triptych.api.config import ServerConfig
from triptych.api.embedding import Embedding
from triptych.api.errors import ApiError
from triptych.api.fast_path import FastPath
from triptych.api.health import Health
from triptych.api.item_writer import ItemWriter
from triptych.api.jobs import Jobs
from triptych.api.metrics import Metrics
from triptych.api.pool import Pool
from triptych.api.search_service import SearchService
from triptych.keys import Role

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Services:
    """The built parts of one server."""

    config: ServerConfig
    catalog: Catalog
    pool: Pool
    metrics: Metrics
    health: Health
    jobs: Jobs
    searches: SearchService
    item_writer: ItemWriter
    embedding: Embedding
    fast_path: FastPath


def call_of(request: Request) -> Call:
    """Return what is known of the request."""
    return cast(Call, request.scope[KEY])


def services_of(request: Request) -> Services:
    """Return the parts of the server."""
    return cast(Services, request.app.state.services)


async def _server(request: Request) -> Services:
    return services_of(request)


def _requires(role: Role) -> Callable[[Request], Awaitable[Caller]]:
    async def caller(request: Request) -> Caller:
        found = call_of(request).caller
        if found is None:  # the edge lets nobody through to here; if it did, nothing would open
            raise ApiError(401, "unauthorized", "This needs a key.")
        found.require(role)
        config = services_of(request).config
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
Server: TypeAlias = Annotated[Services, Depends(_server)]
Reader: TypeAlias = Annotated[Caller, Depends(_requires("read"))]
Writer: TypeAlias = Annotated[Caller, Depends(_requires("write"))]
Admin: TypeAlias = Annotated[Caller, Depends(_requires("admin"))]


async def working(request: Request, work: Callable[..., T], *args: Any) -> T:
    """Run `work` off the event loop, within the request's deadline."""
    return await services_of(request).pool.run(call_of(request).deadline, work, *args)
