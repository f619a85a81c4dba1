"""Searches, recommendations, facets."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response

from triptych.api.bodies import FORM, JSON, Files, content_type, expect_type, form, validated
from triptych.api.openapi import ERRORS, takes
from triptych.api.reading import check_named, json_body, parsed
from triptych.api.replies import Facets
from triptych.api.routes.collections import CollectionName
from triptych.api.schemas import FacetsBody, RecommendBody, SearchBody, SearchReply
from triptych.api.search_service import SearchAnswer
from triptych.api.services import Reader, Server, Services, services_of, working
from triptych.errors import InvalidInput

router = APIRouter(tags=["search"], responses=ERRORS)

_FORM: dict[str, Any] = {
    "request": {"type": "string", "description": "The JSON of a search"},
    "query": {"type": "string"},
    "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
}


@router.post(
    "/v1/collections/{name}/search",
    response_model=SearchReply,
    openapi_extra=takes(SearchBody, form=_FORM),
)
async def search(
    name: CollectionName, request: Request, caller: Reader, server: Server
) -> Response:
    """Return what is nearest to words, pictures, items, vectors, or all of it at once."""
    expect_type(request, JSON, FORM)
    files: Files = {}
    if content_type(request) == JSON:
        body = await json_body(request, SearchBody)
    else:
        body, files = await _from_form(request)
    found = await working(request, server.searches.search, caller.tenant, name, body, files)
    return _reply(server, found)


@router.post(
    "/v1/collections/{name}/recommend",
    response_model=SearchReply,
    openapi_extra=takes(RecommendBody),
)
async def recommend(
    name: CollectionName, request: Request, caller: Reader, server: Server
) -> Response:
    """Return what is like some items and unlike others."""
    body = await json_body(request, RecommendBody)
    return _reply(
        server, await working(request, server.searches.recommend, caller.tenant, name, body)
    )


@router.post(
    "/v1/collections/{name}/facets", response_model=Facets, openapi_extra=takes(FacetsBody)
)
async def facets(
    name: CollectionName, request: Request, caller: Reader, server: Server
) -> Response:
    """Return the most frequent values of metadata fields."""
    body = await json_body(request, FacetsBody, small=True)
    found = await working(request, server.searches.facets, caller.tenant, name, body)
    return Response(found, media_type="application/json")


async def _from_form(request: Request) -> tuple[SearchBody, Files]:
    limits = services_of(request).config.limits
    fields, files = await form(request, limits=limits)
    unknown = fields.keys() - {"request", "query"}
    if unknown:
        raise InvalidInput(f"The form has request, query and files, got {sorted(unknown)[:3]}.")
    value = parsed(fields.get("request", "{}"), limits.json_depth, name="request")
    if not isinstance(value, dict):
        raise InvalidInput("The part request is a JSON object.")
    check_named(files.keys() - {"image"}, value)
    words = {"query": fields["query"]} if "query" in fields else {}
    return validated(SearchBody, value | words), files


def _reply(server: Services, found: SearchAnswer) -> Response:
    server.metrics.count_answer(found.tier, found.stages)
    return Response(found.body, media_type="application/json", headers=found.headers())
