"""What other servers copy: which state each collection has, all of it, and what is new."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, BinaryIO

from fastapi import APIRouter, Query, Request, Response
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

from triptych.api.follower import GENERATION
from triptych.api.jsons import dumps
from triptych.api.openapi import ERRORS
from triptych.api.replies import Generations
from triptych.api.routes.collections import CollectionName
from triptych.api.services import Reader, Server, Services, working
from triptych.index.sqlite.store import Store
from triptych.retrieval.folder import open_store
from triptych.retrieval.maintenance.increments import Increment, Mark, export_increment
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
    file, generation = await server.pool.run(deadline, _export, server, caller.tenant, name)
    size = os.fstat(file.fileno()).st_size
    return StreamingResponse(
        _sent(b"", file),
        media_type="application/x-tar",
        headers={GENERATION: generation, "Content-Length": str(size)},
        background=BackgroundTask(file.close),
    )


@router.get(
    "/v1/collections/{name}/changes",
    response_class=Response,
    responses={200: {"content": {"application/octet-stream": {}}}},
)
async def changes(
    name: CollectionName,
    caller: Reader,
    server: Server,
    since: Annotated[str, Query(max_length=200)] = "",
) -> Response:
    """Return what is new since a state, for a copy of it: a line of JSON, and an archive.

    `mark` names the state that the copy has then, `count` its items; `gone` are the places of
    those that are gone, among all in the order of their writing, and null where the archive holds
    everything: where no state was named, or too much has changed since, or it is not known.
    """
    deadline = time.monotonic() + _LONGEST
    mark = Mark.of(since) if since else None
    file, found = await server.pool.run(deadline, _changes, server, caller.tenant, name, mark)
    head = {"mark": str(found.mark), "count": found.num_items, "gone": found.gone}
    return StreamingResponse(
        _sent(dumps(head) + b"\n", file),
        media_type="application/octet-stream",
        background=BackgroundTask(file.close),
    )


def _sent(head: bytes, file: BinaryIO) -> Iterator[bytes]:
    yield head
    while chunk := file.read(1 << 20):
        yield chunk


def _generations(server: Services, tenant: str) -> dict[str, str]:
    found = {}
    for name in server.catalog.names(tenant):
        with server.catalog.using(tenant, name) as collection:
            found[name] = collection.generation
    return found


def _export(server: Services, tenant: str, name: str) -> tuple[BinaryIO, str]:
    with _scratch(server, tenant, name) as (store, path):
        generation = store.generation  # before: what is exported is as new, or newer
        export_collection(store, path)
        return _opened(path), generation


def _changes(
    server: Services, tenant: str, name: str, since: Mark | None
) -> tuple[BinaryIO, Increment]:
    with _scratch(server, tenant, name) as (store, path):
        found = export_increment(store, path, since)
        return _opened(path), found


def _opened(path: Path) -> BinaryIO:
    """Open an archive, gone from the disk once it is closed, whatever becomes of the reply."""
    file = path.open("rb")
    path.unlink()
    return file


@contextmanager
def _scratch(server: Services, tenant: str, name: str) -> Iterator[tuple[Store, Path]]:
    """Yield the store of a collection, and where an archive of it may be written."""
    folder = server.catalog.settings.data / _SCRATCH
    folder.mkdir(exist_ok=True)
    _sweep(folder)
    with server.catalog.using(tenant, name) as collection:
        assert collection.folder is not None, "a server's collections have folders"
        store = open_store(collection.folder)
        try:
            yield store, folder / f"{secrets.token_hex(8)}.tar"
        finally:
            store.close()


def _sweep(scratch: Path) -> None:
    """Delete what a server that was killed has left; other servers may be sending the rest."""
    for path in scratch.iterdir():
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > 2 * _LONGEST:
                path.unlink()
