"""Pictures of stored items: small, large, as they were sent, and a thousand tiny ones at once."""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple
from urllib.parse import unquote

from fastapi import APIRouter, Query, Request, Response

from triptych.api.etag import etag, has_already
from triptych.api.openapi import ERRORS, takes
from triptych.api.reading import json_body
from triptych.api.routes.collections import CollectionName
from triptych.api.schemas import SomeIds
from triptych.api.services import Reader, Server, Services, working
from triptych.encoders.pictures.kind import media_type
from triptych.errors import InvalidInput, NotFound
from triptych.retrieval.display.showing import enlarged, mosaic, original

router = APIRouter(tags=["items"], responses=ERRORS)

_IN_MOSAIC = 1_000
_JPEG: dict[int | str, Any] = {200: {"content": {"image/jpeg": {}}}}
_KNOWN: dict[int | str, Any] = {304: {"description": "The caller has it already."}}
# kept by the caller alone, and asked for each time: it may be gone, or not be his any more
_PRIVATE = {"Cache-Control": "private, no-cache"}

Side = Annotated[int | None, Query(ge=1, le=4_096, description="Pixels, at most")]


class _Found(NamedTuple):
    """A picture, None in its place where the caller has it, and its name."""

    etag: str
    data: bytes | None


@router.get(
    "/v1/collections/{name}/items/{id}/image",
    response_class=Response,
    responses={**_JPEG, **_KNOWN},
)
async def get_image(
    name: CollectionName,
    id: str,
    request: Request,
    caller: Reader,
    server: Server,
    side: Side = None,
) -> Response:
    """Return an item's picture as a JPEG: the small one that is kept, or with `side` a larger one.

    The larger one is made from the original where that is still here and unchanged; else it is the
    small one too.
    """
    id = id_of(request)
    found = await working(request, _image, request, server, caller.tenant, name, id, side)
    if found is None:
        raise NotFound(f"There is no picture of an item {id!r}.")
    return _reply(found, "image/jpeg")


@router.get(
    "/v1/collections/{name}/items/{id}/picture",
    response_class=Response,
    responses={200: {"content": {"image/*": {}}}, **_KNOWN},
)
async def get_picture(
    name: CollectionName, id: str, request: Request, caller: Reader, server: Server
) -> Response:
    """Return an item's picture as it was sent, byte for byte."""
    id = id_of(request)
    data = await working(request, _picture, server, caller.tenant, name, id)
    if data is None:
        raise NotFound(
            f"No picture of an item {id!r} is kept as it was sent.",
            hint="Its small one, where it has any, is at .../image.",
        )
    # no page runs what a caller sent, whatever a browser takes it for
    headers = {"Content-Disposition": "attachment", "Content-Security-Policy": "sandbox"}
    return _reply(_named(request, data), media_type(data), **headers)


@router.post(
    "/v1/collections/{name}/items/mosaic",
    response_class=Response,
    responses=_JPEG,
    openapi_extra=takes(SomeIds),
)
async def get_mosaic(
    name: CollectionName, request: Request, caller: Reader, server: Server
) -> Response:
    """Return one JPEG of tiny pictures, 16 pixels each, 40 in a row, in the order of the ids."""
    body = await json_body(request, SomeIds)
    if len(body.ids) > _IN_MOSAIC:
        raise InvalidInput(f"ids: got {len(body.ids):,}, expected at most {_IN_MOSAIC:,}.")
    jpeg = await working(request, _mosaic, server, caller.tenant, name, body.ids)
    return Response(jpeg, media_type="image/jpeg")


def id_of(request: Request) -> str:
    """Return the id as it was encoded: the path that was routed keeps %2F, see edge.py.

    A file's name may hold bytes that are no UTF-8; they are what they are in its id.
    """
    segment = request.scope["raw_path"].split(b"/")[5]
    return unquote(segment.decode("latin-1"), errors="surrogateescape")


def _image(
    request: Request, server: Services, tenant: str, name: str, id: str, side: int | None
) -> _Found | None:
    with server.catalog.using(tenant, name) as collection:
        data = None if side is None else original(collection, id)
        if side is None or data is None:
            small = collection.thumbnail(id)
            return None if small is None else _named(request, small)
        tag = etag(data, b"%d" % side, weak=True)
        if has_already(request, tag):
            return _Found(tag, None)
        large = enlarged(collection, id, side=side)
        return None if large is None else _Found(tag, large)


def _named(request: Request, data: bytes) -> _Found:
    tag = etag(data)
    return _Found(tag, None if has_already(request, tag) else data)


def _reply(found: _Found, kind: str, **headers: str) -> Response:
    headers = {"ETag": found.etag, **_PRIVATE, **headers}
    if found.data is None:
        return Response(status_code=304, headers=headers)
    return Response(found.data, media_type=kind, headers=headers)


def _picture(server: Services, tenant: str, name: str, id: str) -> bytes | None:
    with server.catalog.using(tenant, name) as collection:
        return collection.picture(id)


def _mosaic(server: Services, tenant: str, name: str, ids: list[str]) -> bytes:
    with server.catalog.using(tenant, name) as collection:
        return mosaic(collection.thumbnail(id) for id in ids)
