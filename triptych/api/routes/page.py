"""The page for people, and the map of a collection that it draws."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from triptych.api.etag import has_already
from triptych.api.jsons import dumps
from triptych.api.openapi import AHEAD, ERRORS
from triptych.api.page.assets import POLICY, PREFIX, assets
from triptych.api.reading import parsed
from triptych.api.replies import Map, Root
from triptych.api.routes.collections import CollectionName
from triptych.api.services import Reader, Server, Services, working
from triptych.errors import NotFound
from triptych.retrieval.display.atlas import chart

router = APIRouter(tags=["page"])

_ON_MAP = 2_000  # items; more would lie under one another on a screen

Limit = Annotated[int, Query(ge=1, le=_ON_MAP, description="Items on the map, at most")]
Narrowed = Annotated[
    str | None, Query(max_length=20_000, description="A filter on metadata, as text or as JSON")
]


@router.get(
    "/",
    response_model=Root,
    responses={
        **AHEAD,
        200: {"content": {"text/html": {}}},
        304: {"description": "The page is known."},
    },
)
async def root(request: Request) -> Response:
    """Return the page to a browser; say where to go on to anybody else."""
    if "text/html" in request.headers.get("accept", ""):
        return _asset(request, "/")
    said = {"service": "triptych", "openapi": "/openapi.json", "ready": "/readyz"}
    return Response(dumps(said), media_type="application/json", headers={"Vary": "Accept"})


@router.get(f"{PREFIX}{{file}}", include_in_schema=False)
async def file(file: str, request: Request) -> Response:
    """Return a file of the page."""
    return _asset(request, f"{PREFIX}{file}")


@router.get("/v1/collections/{name}/map", response_model=Map, responses=ERRORS)
async def show_map(
    name: CollectionName,
    request: Request,
    caller: Reader,
    server: Server,
    limit: Limit = _ON_MAP,
    filter: Narrowed = None,
) -> Response:
    """Return where items lie on a map of the collection, alike beside alike."""
    body = await working(request, _map, server, caller.tenant, name, limit, filter)
    return Response(body, media_type="application/json")


def _map(server: Services, tenant: str, name: str, limit: int, filter: str | None) -> bytes:
    is_json = filter is not None and filter.lstrip().startswith("{")
    depth = server.config.limits.json_depth
    wanted = parsed(filter, depth, name="filter") if filter and is_json else filter
    with server.catalog.answering(tenant, name) as answers:

        def drawn() -> bytes:
            return dumps(chart(answers.collection, limit, wanted))

        # kept like an answer: until the next write
        return answers.get_or_compute(answers.key("map", [limit, filter]), drawn).body


def _asset(request: Request, path: str) -> Response:
    asset = assets().get(path)
    if asset is None:
        raise NotFound("There is no such file.")
    headers: dict[str, Any] = {
        "ETag": asset.etag,
        "Cache-Control": "no-cache",  # asked for again, answered with 304
        "Content-Security-Policy": POLICY,
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept, Accept-Encoding",
    }
    if has_already(request, asset.etag):
        return Response(status_code=304, headers=headers)
    body = asset.body
    if "gzip" in request.headers.get("accept-encoding", ""):
        body, headers["Content-Encoding"] = asset.packed, "gzip"
    return Response(body, headers=headers, media_type=asset.kind)
