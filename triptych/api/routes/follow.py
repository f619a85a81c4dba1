"""What other servers copy: which state each collection has, and a state whole."""

from __future__ import annotations

import secrets
import time
from contextlib import suppress
from pathlib import Path

from fastapi import APIRouter, Request, Response
from starlette.background import BackgroundTask
from starlette.responses import FileResponse

from triptych.api.follower import GENERATION
from triptych.api.jsons import dumps
from triptych.api.openapi import ERRORS
from triptych.api.replies import Generations
from triptych.api.rooms import Reader, Rooms, Server, working
from triptych.api.routes.collections import CollectionName
from triptych.retrieval.folder import open_store
from triptych.retrieval.maintenance.portable import export_collection

router = APIRouter(tags=["follow"], responses=ERRORS)

_JSON = "application/json"
_LONGEST = 3_600.0  # seconds that writing an archive may take
_SCRATCH = ".exports"


@router.get("/v1/generations", response_model=Generations)
async def list_generations(request: Request, caller: Reader, server: Server) -> Response:
    """Return the name of the state that each collection has: another one after each write."""
    found = await working(request, _generations, server, caller.tenant)
    return Response(dumps({"tenant": caller.tenant, "generations": found}), media_type=_JSON)


@router.get(
    "/v1/collections/{name}/export",
    response_class=Response,
    responses={200: {"content": {"application/x-tar": {}}}},
)
async def export(name: CollectionName, caller: Reader, server: Server) -> Response:
    """Return all of a collection, as `triptych export` writes it; `import` takes it."""
    deadline = time.monotonic() + _LONGEST
    path, generation = await server.pool.run(deadline, _export, server, caller.tenant, name)
    return FileResponse(
        path,
        media_type="application/x-tar",
        headers={GENERATION: generation},
        background=BackgroundTask(path.unlink),
    )


def _generations(server: Rooms, tenant: str) -> dict[str, str]:
    found = {}
    for name in server.catalog.names(tenant):
        with server.catalog.using(tenant, name) as collection:
            found[name] = collection.generation
    return found


def _export(server: Rooms, tenant: str, name: str) -> tuple[Path, str]:
    scratch = server.catalog.settings.data / _SCRATCH
    scratch.mkdir(exist_ok=True)
    _sweep(scratch)
    path = scratch / f"{secrets.token_hex(8)}.tar"
    with server.catalog.using(tenant, name) as collection:
        generation = collection.generation  # before: what is exported is as new, or newer
        assert collection.folder is not None, "a server's collections have folders"
        store = open_store(collection.folder)
        try:
            export_collection(store, path)
        finally:
            store.close()
    return path, generation


def _sweep(scratch: Path) -> None:
    """Delete what a server that was killed has left; other servers may be sending the rest."""
    for path in scratch.iterdir():
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > 2 * _LONGEST:
                path.unlink()
