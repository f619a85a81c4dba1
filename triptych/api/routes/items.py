"""Items of a collection: add, upsert, delete, get, count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response

from triptych.api.access import Caller
from triptych.api.bodies import FORM, JSON, LINES, Files, chunks, content_type, expect_type, form
from triptych.api.errors import ApiError, headers_of, status_of, too_large
from triptych.api.item_writer import Mode, WriteOutcome, parsed_lines
from triptych.api.jsons import dumps
from triptych.api.openapi import ERRORS, takes
from triptych.api.reading import check_named, json_body, parsed
from triptych.api.replies import Count, Deleted, Records
from triptych.api.routes.collections import CollectionName
from triptych.api.routes.pictures import id_of
from triptych.api.schemas import CountItems, GetItems, Items, Record, SomeIds, Written
from triptych.api.services import Reader, Server, Services, Writer, services_of, working
from triptych.errors import InvalidInput, NotFound, Overloaded, TriptychError
from triptych.retrieval.prepare import FIRST, next_size

router = APIRouter(tags=["items"], responses=ERRORS)

_FORM: dict[str, Any] = {
    "items": {"type": "string", "description": "A JSON array of items"},
    "id": {"type": "string"},
    "text": {"type": "string"},
    "uri": {"type": "string"},
    "metadata": {"type": "string", "description": "JSON"},
    "image": {"type": "string", "format": "binary"},
}
_BATCH = 64
_TAKES = takes(Items, form=_FORM, lines=True)


@router.post("/v1/collections/{name}/items", response_model=Written, openapi_extra=_TAKES)
async def add_items(
    name: CollectionName, request: Request, caller: Writer, server: Server
) -> Response:
    """Store new items; an id that is there is an error of its item."""
    return _written(await _write(request, server, caller, name, "add"))


@router.put("/v1/collections/{name}/items", response_model=Written, openapi_extra=_TAKES)
async def upsert_items(
    name: CollectionName, request: Request, caller: Writer, server: Server
) -> Response:
    """Store items, replacing by id."""
    return _written(await _write(request, server, caller, name, "upsert"))


@router.post(
    "/v1/collections/{name}/items/delete", response_model=Deleted, openapi_extra=takes(SomeIds)
)
async def delete_items(
    name: CollectionName, request: Request, caller: Writer, server: Server
) -> Response:
    """Delete items; the reply says how many were there."""
    body = await json_body(request, SomeIds)
    deleted = await working(request, _delete, server, caller.tenant, name, body.ids)
    return _json({"deleted": deleted})


@router.post(
    "/v1/collections/{name}/items/get", response_model=Records, openapi_extra=takes(GetItems)
)
async def get_items(
    name: CollectionName, request: Request, caller: Reader, server: Server
) -> Response:
    """Return items in the order of their ids, null where there is none."""
    body = await json_body(request, GetItems)
    asked = (body.ids, body.vectors)
    return _json(await working(request, _get, server, caller.tenant, name, *asked))


@router.post(
    "/v1/collections/{name}/items/count", response_model=Count, openapi_extra=takes(CountItems)
)
async def count_items(
    name: CollectionName, request: Request, caller: Reader, server: Server
) -> Response:
    """Return how many items there are, or how many match a filter."""
    body = await json_body(request, CountItems, small=True)
    return _json({"count": await working(request, _count, server, caller.tenant, name, body)})


@router.get("/v1/collections/{name}/items/{id}", response_model=Record)
async def get_item(
    name: CollectionName, id: str, request: Request, caller: Reader, server: Server
) -> Response:
    """Return one item; its id is one segment, percent-encoded."""
    ids = [id_of(request)]
    found = await working(request, _get, server, caller.tenant, name, ids, False)
    if found["items"][0] is None:
        raise _no_item(ids[0])
    return _json(found["items"][0])


@router.delete("/v1/collections/{name}/items/{id}", response_model=Deleted)
async def delete_item(
    name: CollectionName, id: str, request: Request, caller: Writer, server: Server
) -> Response:
    """Delete one item."""
    id = id_of(request)
    if not await working(request, _delete, server, caller.tenant, name, [id]):
        raise _no_item(id)
    return _json({"deleted": 1})


async def _write(
    request: Request, server: Services, caller: Caller, name: str, mode: Mode
) -> WriteOutcome:
    expect_type(request, JSON, FORM, LINES)
    await working(request, _check_there, server, caller.tenant, name)
    if content_type(request) == LINES:
        return await _write_lines(request, server, caller, name, mode)
    files: dict[str, bytes] = {}
    if content_type(request) == JSON:
        given = (await json_body(request, Items)).items
    else:
        given, files = await _from_form(request)
    if len(given) > server.config.limits.items:
        raise too_large(f"There are {len(given):,} items", most=server.config.limits.items)
    numbered = list(enumerate(given))
    with caller.spending(len(given)):
        return await working(request, _store, server, caller.tenant, name, numbered, mode, files)


async def _write_lines(
    request: Request, server: Services, caller: Caller, name: str, mode: Mode
) -> WriteOutcome:
    """Store line by line, each batch durable by itself and with a deadline of its own."""
    outcome, first, size = WriteOutcome(server.config.limits.errors_listed), 0, FIRST
    try:
        async for lines in line_batches(request, size=_BATCH):
            while lines:
                some, lines = lines[:size], lines[size:]
                start = time.monotonic()
                with caller.spending(sum(bool(line.strip()) for line in some)):
                    outcome.add(await _store_lines(server, caller.tenant, name, some, mode, first))
                size = next_size(size, len(some), time.monotonic() - start, most=_BATCH)
                first += len(some)
    except TriptychError as error:
        raise _midway(error, first) if first else error from None
    return outcome


async def _store_lines(
    server: Services, tenant: str, name: str, lines: list[bytes], mode: Mode, first: int
) -> WriteOutcome:
    """Store some lines; where others were stored before them, wait for room as a job does."""
    deadline = time.monotonic() + server.config.times.answer
    while True:
        try:
            return await server.pool.run(
                deadline, store_lines, server, tenant, name, lines, mode, first
            )
        except Overloaded as error:
            if not first or time.monotonic() + error.retry_after > deadline:
                raise
            await asyncio.sleep(error.retry_after)


def _midway(error: TriptychError, done: int) -> ApiError:
    """Return the error of a stream whose first lines are stored.

    It is no 429: whoever gets that sends everything again, and what is added twice is refused.
    """
    return ApiError(
        503 if status_of(error) == 429 else status_of(error),
        error.code,
        f"{error.message} The {done:,} lines before were taken in.",
        hint=error.hint,
        headers=headers_of(error),
    )


async def line_batches(request: Request, *, size: int) -> AsyncIterator[list[bytes]]:
    """Yield the lines of a body as they come, `size` at a time; raises ApiError for a long one."""
    limits = services_of(request).config.limits
    rest, lines, held = bytearray(), [], 0
    async for chunk in chunks(request, most=limits.stream_bytes):
        *ended, tail = chunk.split(b"\n")
        for part in ended:
            lines.append(bytes(rest) + part)
            held += len(lines[-1])
            rest.clear()
        rest += tail
        if len(rest) > limits.line_bytes:
            raise too_large("A line is too long", most=limits.line_bytes)
        while len(lines) >= size or (lines and held > limits.line_bytes):
            batch, lines = lines[:size], lines[size:]
            held = sum(map(len, lines))
            yield batch
    if rest:
        lines.append(bytes(rest))
    for start in range(0, len(lines), size):
        yield lines[start : start + size]


async def _from_form(request: Request) -> tuple[list[Any], dict[str, bytes]]:
    limits = services_of(request).config.limits
    fields, uploads = await form(request, limits=limits)
    files = _single(uploads)
    if "items" in fields:
        given = parsed(fields.pop("items"), limits.json_depth, name="items")
        if fields or not isinstance(given, list):
            raise InvalidInput("The part items is a JSON array, alone beside the files.")
        check_named(files, given)
        return given, files
    item: dict[str, Any] = dict(fields)
    if "metadata" in item:
        item["metadata"] = parsed(item["metadata"], limits.json_depth, name="metadata")
    if "image" in files:
        item["image"] = "part:image"
    check_named(files, item.get("image"))
    return [item], files


def _single(uploads: Files) -> dict[str, bytes]:
    for name, data in uploads.items():
        if len(data) > 1:
            raise ApiError(400, "bad_multipart", f"The file {name[:80]!r} is there twice.")
    return {name: data[0] for name, data in uploads.items()}


def _store(
    server: Services, tenant: str, name: str, given: Any, mode: Mode, files: dict[str, bytes]
) -> WriteOutcome:
    return server.item_writer.write(tenant, name, given, mode=mode, files=files)


def store_lines(
    server: Services, tenant: str, name: str, lines: list[bytes], mode: Mode, first: int
) -> WriteOutcome:
    """Store the items on some lines of NDJSON."""
    given = parsed_lines(lines, first=first, limits=server.config.limits)
    return server.item_writer.write(tenant, name, given, mode=mode)


def _check_there(server: Services, tenant: str, name: str) -> None:
    with server.catalog.using(tenant, name):
        pass


def _delete(server: Services, tenant: str, name: str, ids: list[str]) -> int:
    with server.catalog.using(tenant, name) as collection:
        gone = collection.delete(ids)
    server.metrics.count_items("deleted", gone)
    return gone


def _get(server: Services, tenant: str, name: str, ids: list[str], vectors: bool) -> dict[str, Any]:
    with server.catalog.using(tenant, name) as collection:
        records = collection.get(ids)
        there = [record.id for record in records if record is not None]
        rows = iter(collection.vectors(there).tolist()) if vectors and there else None
    fields = ("id", "modality", "text", "uri", "metadata")
    items = []
    for record in records:
        said = None if record is None else {field: getattr(record, field) for field in fields}
        if said is not None and rows is not None:
            said["vector"] = next(rows)
        items.append(said)
    return {"items": items}


def _count(server: Services, tenant: str, name: str, body: CountItems) -> int:
    with server.catalog.using(tenant, name) as collection:
        return collection.count(body.filter)


def _no_item(id: str) -> NotFound:
    return NotFound(f"There is no item {id!r} in this collection.")


def _written(outcome: WriteOutcome) -> Response:
    return _json(outcome.json())


def _json(value: Any) -> Response:
    return Response(dumps(value), media_type="application/json")
