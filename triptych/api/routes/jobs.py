"""Batch jobs: hand in a body, watch it, call it off."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from triptych.api.bodies import JSON, LINES, content_type, expect_type
from triptych.api.item_writer import Mode
from triptych.api.jobs import Job
from triptych.api.jsons import dumps
from triptych.api.openapi import ERRORS, takes
from triptych.api.reading import json_body
from triptych.api.replies import Jobs
from triptych.api.routes.collections import CollectionName
from triptych.api.routes.items import line_batches
from triptych.api.schemas import Items, JobReply
from triptych.api.services import Reader, Server, Services, Writer, working

router = APIRouter(tags=["jobs"], responses=ERRORS)

_LOOK = 0.2  # seconds between two looks at a job
_HEARTBEAT = 10.0
_LINES = 1_000


@router.post(
    "/v1/collections/{name}/jobs",
    status_code=202,
    response_model=JobReply,
    openapi_extra=takes(Items, lines=True),
)
async def start_job(
    name: CollectionName,
    request: Request,
    caller: Writer,
    server: Server,
    mode: Annotated[Mode, Query()] = "upsert",
) -> Response:
    """Take in many items; they are stored after the reply, and are on the disk before it."""
    expect_type(request, JSON, LINES)
    into = await working(request, _check, server, caller.tenant, name)
    scratch = server.jobs.scratch(caller.tenant)
    try:
        total = await _spool(request, scratch)
        given = (scratch, caller.tenant, name, mode, total, into)
        with caller.spending(total):
            job = await working(request, server.jobs.submit, *given)
    finally:
        scratch.unlink(missing_ok=True)
    return _json(job, status=202, headers={"Location": f"/v1/jobs/{job.id}"})


@router.get("/v1/jobs", response_model=Jobs)
async def list_jobs(request: Request, caller: Reader, server: Server) -> Response:
    """Return the jobs, the newest first."""
    said = await working(request, _listed, server, caller.tenant)
    return Response(said, media_type="application/json")


@router.get("/v1/jobs/{id}", response_model=JobReply)
async def show_job(id: str, caller: Reader, server: Server) -> Response:
    """Return how far a job is."""
    return _json(server.jobs.get(caller.tenant, id))


@router.get(
    "/v1/jobs/{id}/events",
    response_class=StreamingResponse,
    responses={200: {"content": {"text/event-stream": {}}}},
)
async def watch_job(id: str, caller: Reader, server: Server) -> StreamingResponse:
    """Tell how far a job is, until it is over."""
    job = server.jobs.get(caller.tenant, id)
    # nginx, and so most ingresses, would hold the events back until many have come together
    headers = {"X-Accel-Buffering": "no"}
    return StreamingResponse(_events(job, server), media_type="text/event-stream", headers=headers)


@router.delete("/v1/jobs/{id}", response_model=JobReply)
async def cancel_job(id: str, caller: Writer, server: Server) -> Response:
    """Have a job stop after its batch."""
    return _json(server.jobs.cancel(caller.tenant, id))


def _listed(server: Services, tenant: str) -> bytes:
    return dumps({"jobs": [job.json() for job in server.jobs.list(tenant)]})


def _check(server: Services, tenant: str, name: str) -> str:
    """Return what the collection calls itself; raises NotFound, Overloaded."""
    server.jobs.check_room(tenant)
    with server.catalog.using(tenant, name) as collection:
        return collection.copying.meta.collection


async def _spool(request: Request, scratch: FilePath) -> int:
    """Write the body to the disk as it comes; return how many items it has."""
    total = 0
    with scratch.open("wb") as file:
        if content_type(request) == JSON:
            items = (await json_body(request, Items)).items
            lines: list[bytes] = [dumps(item) for item in items]
            await working(request, _write, file, lines)
            return len(lines)
        async for batch in line_batches(request, size=_LINES):
            _write(file, batch)
            total += sum(bool(line.strip()) for line in batch)
    return total


def _write(file: Any, lines: list[bytes]) -> None:
    file.writelines(line + b"\n" for line in lines)


async def _events(job: Job, server: Services) -> AsyncIterator[str]:
    said, at = "", 0.0
    while not server.health.draining:
        is_over = job.is_over
        now, state = time.monotonic(), dumps(job.json()).decode()
        if state != said or now - at > _HEARTBEAT:
            said, at = state, now
            yield f"event: progress\ndata: {state}\n\n"
        if is_over:
            yield f"event: end\ndata: {state}\n\n"
            return
        await asyncio.sleep(_LOOK)
        job = server.jobs.get(job.tenant, job.id)


def _json(job: Job, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(dumps(job.json()), status, media_type="application/json", headers=headers)
