"""The application: its parts put together, its routes, its start and its end."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match

from triptych.api import openapi
from triptych.api.access import Access
from triptych.api.call import KEY
from triptych.api.catalog import Catalog
from triptych.api.config import ServerConfig
from triptych.api.edge import Edge, Scope
from triptych.api.embedding import Embedding
from triptych.api.errors import ApiError, body_of, disk_full, headers_of, internal, status_of
from triptych.api.experts import ExpertCollector
from triptych.api.fast_path import FastPath
from triptych.api.fetch import FetchConfig, Fetcher
from triptych.api.fields import invalid
from triptych.api.follower import FollowConfig, Follower
from triptych.api.health import Health
from triptych.api.item_writer import Before, ItemWriter, WriteOutcome, parsed_lines
from triptych.api.jobs import Job, Jobs
from triptych.api.logs import AccessLog
from triptych.api.metrics import Metrics
from triptych.api.origin import OriginCheck
from triptych.api.pictures import Pictures
from triptych.api.pool import Pool
from triptych.api.routes import (
    collections,
    embeddings,
    follow,
    health,
    items,
    jobs,
    page,
    pictures,
    search,
)
from triptych.api.search_service import SearchService
from triptych.api.services import Services
from triptych.api.tiers import TierCollector
from triptych.errors import NotFound, TriptychError
from triptych.index.disk import FULL
from triptych.settings import Settings

_LOOK = 0.2  # seconds between two looks at what other workers want
_TELL_EVERY = 5  # looks
_METHODS = ("DELETE", "GET", "POST", "PUT")  # of all routes; the edge makes HEAD of GET
# looked through in this order, a dozen expressions matched for each: what is asked most is first
_ROUTERS = (search, embeddings, items, collections, pictures, follow, jobs, health, page)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Application:
    """What is served, and its parts."""

    asgi: Edge
    api: Starlette
    services: Services


def build(settings: Settings, config: ServerConfig, access: Access) -> Application:
    """Return the whole application; nothing is opened before its start."""
    services = build_services(settings, config)
    api = FastAPI(
        title="Triptych",
        version="1",  # of the API; which release runs is nobody's business
        docs_url=None,  # its page would be loaded from elsewhere
        redoc_url=None,
        redirect_slashes=False,
        lifespan=partial(_lifespan, services, _followed(config)),
    )
    api.state.services = services
    for module in _ROUTERS:
        api.include_router(module.router)
    api.openapi = partial(openapi.describe, api)  # type: ignore[method-assign]
    api.add_exception_handler(TriptychError, partial(_known, _secret(services)))
    api.add_exception_handler(RequestValidationError, _invalid)  # type: ignore[arg-type]
    api.add_exception_handler(HTTPException, _http)  # type: ignore[arg-type]
    api.add_exception_handler(OSError, _no_room)  # type: ignore[arg-type]
    api.add_exception_handler(Exception, _unknown)
    return behind_edge(api, services, access)


def behind_edge(api: Starlette, services: Services, access: Access) -> Application:
    """Return the application to which nobody gets without a key, Host and Origin that will do."""
    config = services.config
    edge = Edge(
        api,
        access=access,
        origins=OriginCheck(
            any_host=not access.open, hosts=config.allow_hosts, origins=config.allow_origins
        ),
        metrics=services.metrics,
        log=AccessLog(config.log),
        health=services.health,
        answer_time=config.times.answer,
        fast_path=services.fast_path,
        secret=_secret(services),
    )
    return Application(asgi=edge, api=api, services=services)


def _secret(services: Services) -> str:
    """Return what is cut out of messages: where the server keeps its data."""
    return f"{services.catalog.settings.data}/"


def build_services(settings: Settings, config: ServerConfig) -> Services:
    """Return the parts of a server."""
    models = (config.model, *config.also_models)
    catalog = Catalog(settings, models=models, cache=settings.cache.open(), upkeep=config.upkeep)
    fetcher = Fetcher(
        FetchConfig(hosts=config.allow_urls, max_bytes=config.limits.picture.max_bytes)
    )
    pictures = Pictures(limits=config.limits.picture, fetcher=fetcher)
    parts: dict[str, Any] = {"catalog": catalog, "pictures": pictures, "limits": config.limits}
    metrics = Metrics()
    keep = not config.discard_pictures
    item_writer = ItemWriter(**parts, count=metrics.count_items, keep=keep)
    searches = SearchService(**parts, near=config.near)
    catalog.again = searches.again

    def write(job: Job, lines: Sequence[bytes], before: Before) -> WriteOutcome:
        given = parsed_lines(lines, first=job.line, limits=config.limits)
        # held meanwhile: it cannot be dropped, and another made in its place
        with catalog.using(job.tenant, job.collection) as collection:
            if job.into not in ("", collection.copying.meta.collection):
                raise NotFound(f"The collection {job.collection!r} that the job was for is gone.")
            where = job.tenant, job.collection
            return item_writer.write(*where, given, mode=job.mode, before=before)

    pool = Pool(size=config.pool, queue=config.queue)
    services = Services(
        config=config,
        catalog=catalog,
        pool=pool,
        metrics=metrics,
        health=Health(model=partial(catalog.model, None), data=settings.data),
        jobs=Jobs(folder=settings.data / ".jobs", write=write, limits=config.limits),
        searches=searches,
        item_writer=item_writer,
        embedding=Embedding(**parts),
        fast_path=FastPath(catalog, searches=searches, pool=pool, limits=config.limits),
    )
    services.metrics.gauge("triptych_pool_busy", "Requests worked on", lambda: services.pool.busy)
    services.metrics.gauge(
        "triptych_pool_waiting", "Requests waiting", lambda: services.pool.waiting
    )
    services.metrics.gauge("triptych_jobs_waiting", "Jobs not over", lambda: services.jobs.waiting)
    services.metrics.gauge(
        "triptych_collections_open", "Open collections", lambda: catalog.num_open
    )
    services.metrics.gauge(
        "triptych_ready",
        "Whether embedding and searching go well",
        lambda: services.health.report()[0],
    )
    services.metrics.add(ExpertCollector(catalog.models))
    services.metrics.add(TierCollector(catalog.cache.stats))
    return services


def _followed(config: ServerConfig) -> FollowConfig | None:
    if not config.follow:
        return None
    return FollowConfig(url=config.follow, key=config.follow_key, every=config.follow_every)


def _following(services: Services, followed: FollowConfig | None) -> Follower | None:
    if followed is None:
        return None
    follower = Follower(followed, catalog=services.catalog)
    services.metrics.gauge(
        "triptych_follower_lag_seconds", "Since all of the other server was here", follower.lag
    )
    services.health.also["follower"] = follower.has_all
    return follower


@asynccontextmanager
async def _lifespan(
    services: Services, followed: FollowConfig | None, api: FastAPI
) -> AsyncIterator[None]:
    follower = _following(services, followed)
    await services.health.start()
    if follower is not None:
        follower.start()
    elif not services.config.read_only:
        services.jobs.start()
    sharing = asyncio.create_task(_sharing(services))
    warming = asyncio.create_task(asyncio.to_thread(services.catalog.warm))
    yield
    # requests are over by now: what was acknowledged is on the disk, what follows saves time
    services.health.draining = True
    sharing.cancel()
    await services.health.stop()
    if follower is not None:
        await asyncio.to_thread(follower.stop)
    await warming
    await asyncio.to_thread(services.jobs.stop)
    # whose request was given up when the time was over is not to go on for all of its deadline
    await asyncio.to_thread(services.catalog.close_models)
    await asyncio.to_thread(services.fast_path.close)
    await asyncio.to_thread(services.pool.close)
    await asyncio.to_thread(services.catalog.close)


async def _sharing(services: Services) -> None:
    """Do what the other workers need of this one, where there are others."""
    for at in itertools.count():
        if services.metrics.siblings is None:
            return
        if at % _TELL_EVERY == 0:
            with suppress(OSError):  # numbers can wait, who wants to drop a collection cannot
                await asyncio.to_thread(services.metrics.publish)
        await asyncio.to_thread(services.catalog.let_go)
        await asyncio.sleep(_LOOK)


async def _known(secret: str, request: Request, error: TriptychError) -> Response:
    return _reply(error, secret=secret)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    # of no body: those are read by the routes
    wrong = [{**one, "loc": one["loc"][1:]} for one in error.errors()]
    return _reply(invalid(wrong, body=dict(request.query_params)))


async def _http(request: Request, error: HTTPException) -> Response:
    codes = {404: "not_found", 405: "method_not_allowed"}
    said = {404: "There is no such route.", 405: "The route does not take this method."}
    code = codes.get(error.status_code, "bad_request")
    message = said.get(error.status_code, "The request cannot be used.")
    hint = "See: GET /openapi.json" if error.status_code in said else None
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else error.headers
    return _reply(ApiError(error.status_code, code, message, hint=hint, headers=headers))


def _allowed(request: Request) -> str:
    """Return all methods of a path: Starlette names those of the first route only."""
    methods = [
        method
        for method in _METHODS
        if _is_taken({**request.scope, "method": method}, request.app.routes)
    ]
    return ", ".join(sorted([*methods, "HEAD"] if "GET" in methods else methods))


def _is_taken(scope: Scope, routes: Iterable[BaseRoute]) -> bool:
    return any(route.matches(scope)[0] is Match.FULL for route in routes)


async def _no_room(request: Request, error: OSError) -> Response:
    if error.errno not in FULL:
        raise error
    return _reply(disk_full())


async def _unknown(request: Request, error: Exception) -> Response:
    return _reply(internal(request.scope[KEY].request_id))


def _reply(error: TriptychError, *, secret: str = "") -> Response:
    return Response(
        body_of(error, secret=secret),
        status_of(error),
        headers=headers_of(error),
        media_type="application/json",
    )
