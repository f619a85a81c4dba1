"""Collections: list, make, look at, drop, compact."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from triptych.api.jsons import dumps
from triptych.api.openapi import ERRORS, takes
from triptych.api.reading import json_body
from triptych.api.replies import CollectionInfo, CollectionNames
from triptych.api.schemas import NewCollection
from triptych.api.services import Admin, Reader, Server, Services, working
from triptych.retrieval.collection import Collection

router = APIRouter(tags=["collections"], responses=ERRORS)

CollectionName = Annotated[str, Path(description="1 to 64 of a-z, 0-9, _ and -")]

_SHOWN = (
    "count", "model", "fingerprint", "dim", "precision", "index", "pending", "pictures", "sequence",
    "format", "created", "damaged",
)  # fmt: skip


@router.get("/v1/collections", response_model=CollectionNames)
async def list_collections(request: Request, caller: Reader, server: Server) -> Response:
    """Return the names of the collections."""
    names = await working(request, server.catalog.names, caller.tenant)
    return _json({"collections": [{"name": name} for name in names]})


@router.post(
    "/v1/collections",
    status_code=201,
    response_model=CollectionInfo,
    openapi_extra=takes(NewCollection),
)
async def create_collection(request: Request, caller: Admin, server: Server) -> Response:
    """Make an empty collection."""
    body = await json_body(request, NewCollection, small=True)
    return _json(await working(request, _create, server, caller.tenant, body), status=201)


@router.get("/v1/collections/{name}", response_model=CollectionInfo)
async def show_collection(
    name: CollectionName, request: Request, caller: Reader, server: Server
) -> Response:
    """Return what a collection holds."""
    return _json(await working(request, _info, server, caller.tenant, name))


@router.delete("/v1/collections/{name}", status_code=204)
async def drop_collection(
    name: CollectionName, request: Request, caller: Admin, server: Server
) -> Response:
    """Delete a collection and all that is in it."""
    await working(request, server.catalog.drop, caller.tenant, name)
    return Response(status_code=204)


@router.post("/v1/collections/{name}/compact", response_model=CollectionInfo)
async def compact_collection(
    name: CollectionName, request: Request, caller: Admin, server: Server
) -> Response:
    """Give back the space of what was deleted, and overwrite it."""
    return _json(await working(request, _compact, server, caller.tenant, name))


def _create(server: Services, tenant: str, body: NewCollection) -> dict[str, Any]:
    server.catalog.create(
        tenant,
        body.name,
        model=body.model or server.config.model,
        precision=body.precision,
        tokens=body.tokens,
    )
    return _info(server, tenant, body.name)


def _compact(server: Services, tenant: str, name: str) -> dict[str, Any]:
    with server.catalog.using(tenant, name) as collection:
        collection.compact()
    return _info(server, tenant, name)


def _info(server: Services, tenant: str, name: str) -> dict[str, Any]:
    with server.catalog.using(tenant, name) as collection:
        return {"name": name, **_described(collection)}


def _described(collection: Collection) -> dict[str, Any]:
    info = collection.info()
    shown = {key: info[key] for key in _SHOWN}
    return shown | {"recall_at_10": info["recall@10"]}


def _json(value: Any, *, status: int = 200) -> Response:
    return Response(dumps(value), status, media_type="application/json")
