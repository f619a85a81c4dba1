"""Items of a collection: add, upsert, delete, get, count."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from fastapi import APIRouter, Request, Response

from triptych.api.access import Caller
from triptych.api.bodies import FORM, JSON, LINES, Files, chunks, content_type, expect_type, form
from triptych.api.errors import ApiError, headers_of, status_of, too_large
from triptych.api.item_writer import Mode, Pace, WriteOutcome, late, parsed_lines
from triptych.api.jsons import dumps
from triptych.api.openapi import ERRORS, takes
from triptych.api.reading import check_named, json_body, parsed
from triptych.api.replies import Count, Deleted, Records
from triptych.api.routes.collections import CollectionName
from triptych.api.routes.pictures import id_of
from triptych.api.schemas import CountItems, GetItems, Items, Record, SomeIds, Written
from triptych.api.services import (
    Reader,
    Server,
    Services,
    Writer,
    call_of,
    services_of,
    working,
)
from triptych.errors import InvalidInput, NotFound, Overloaded, TriptychError

router = APIRouter(tags=["items"], responses=ERRORS)

_FORM: dict[str, Any] = {
    "items": {"type": "string", "description": "A JSON array of items"},
    "id": {"type": "string"},
    "text": {"type": "string"},
    "uri": {"type": "string"},
    "metadata": {"type": "string", "description": "JSON"},
    "image": {"type": "string", "format": "binary"},
}
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
    pace = await working(request, server.item_writer.pace, caller.tenant, name)
    goes = _Goes(request, caller, pace, partial(_store, server, caller.tenant, name, mode))
    if content_type(request) == LINES:
        await goes.lines()
        return goes.outcome
    files: dict[str, bytes] = {}
    if content_type(request) == JSON:
        given = (await json_body(request, Items)).items
    else:
        given, files = await _from_form(request)
    if len(given) > server.config.limits.items:
        raise too_large(f"There are {len(given):,} items", most=server.config.limits.items)
    with caller.spending(len(given)):
        await goes.items(given, files)
    return goes.outcome


def _store(
    server: Services,
    tenant: str,
    name: str,
    mode: Mode,
    given: Sequence[tuple[int, Any]],
    files: Mapping[str, bytes],
) -> WriteOutcome:
    return server.item_writer.write(tenant, name, given, mode=mode, files=files)


class _Goes:
    """Items of one request: some at a time, each time durable and with a deadline of its own."""

    def __init__(
        self, request: Request, caller: Caller, pace: Pace, store: Callable[..., WriteOutcome]
    ) -> None:
        self._request, self._caller, self._pace, self._store = request, caller, pace, store
        self._server = services_of(request)
        self.outcome = WriteOutcome(self._server.config.limits.errors_listed)

    async def items(self, given: Sequence[Any], files: Mapping[str, bytes]) -> None:
        """Store all; of a caller who has hung up, no more."""
        numbered = list(enumerate(given))
        with _midway(self._pace, "items"):
            while some := numbered[self._pace.done :][: self._pace.size]:
                if self._pace.done and await self._request.is_disconnected():
                    raise ApiError(400, "bad_request", "The connection ended before the answer.")
                await self._go(len(some), partial(self._store, some, files))

    async def lines(self) -> None:
        """Store what comes, line by line; each go counts against the quota by itself."""
        with _midway(self._pace, "lines"):
            async for lines in line_batches(self._request, size=self._pace.most):
                while lines:
                    some, lines = lines[: self._pace.size], lines[self._pace.size :]
                    with self._caller.spending(sum(bool(line.strip()) for line in some)):
                        await self._go(len(some), partial(self._store_lines, some, self._pace.done))

    def _store_lines(self, lines: Sequence[bytes], first: int) -> WriteOutcome:
        limits = self._server.config.limits
        return self._store(parsed_lines(lines, first=first, limits=limits), {})

    async def _go(self, size: int, store: Callable[[], WriteOutcome]) -> None:
        """Store some; where others were stored before them, wait for room as a job does."""
        deadline = call_of(self._request).renew()
        with self._pace.going(size):
            while True:
                try:
                    self.outcome.add(await self._server.pool.run(deadline, store))
                    return
                except Overloaded as error:
                    if not self._pace.done:
                        raise
                    if time.monotonic() + error.retry_after > deadline:
                        raise late(error) from None
                    await asyncio.sleep(error.retry_after)


@contextmanager
def _midway(pace: Pace, what: str) -> Iterator[None]:
    """Have an error inside say how much of the body is stored.

    Then it is no 429: whoever gets that sends everything again, and what is added twice is refused.
    """
    try:
        yield
    except TriptychError as error:
        taken_in = error.taken_in or pace.done
        if not taken_in:
            raise
        said = ApiError(
            503 if status_of(error) == 429 else status_of(error),
            error.code,
            f"{error.message} The {taken_in:,} {what} before were taken in.",
            hint=error.hint,
            headers=headers_of(error),
        )
        said.taken_in = taken_in
        raise said from None


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
