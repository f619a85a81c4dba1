"""Whether the server lives, whether it is ready, and its numbers."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Response

from triptych.api.bodies import JSON
from triptych.api.jsons import dumps
from triptych.api.metrics import CONTENT_TYPE
from triptych.api.openapi import AHEAD, ERRORS
from triptych.api.replies import Ready
from triptych.api.services import Reader, Server

router = APIRouter(tags=["health"])

_NOT_READY: dict[int | str, Any] = {
    503: {
        "description": "Not ready, or no answer in time.",
        "content": {
            JSON: {
                "schema": {
                    "anyOf": [
                        {"$ref": f"#/components/schemas/{name}"} for name in ("Ready", "ErrorReply")
                    ]
                }
            }
        },
    }
}


@router.get("/livez", responses=AHEAD)
async def livez() -> dict[str, str]:
    """Answer while the process turns."""
    return {"status": "ok"}


@router.get(
    "/readyz",
    response_model=Ready,
    responses=AHEAD | _NOT_READY,
)
async def readyz(server: Server) -> Response:
    """Say whether embedding and searching went well within the last seconds."""
    is_ready, said = server.health.report()
    return Response(dumps(said), 200 if is_ready else 503, media_type="application/json")


_TEXT: dict[int | str, Any] = {200: {"content": {"text/plain": {}}}}


@router.get("/metrics", responses=ERRORS | _TEXT, response_class=Response)
async def metrics(caller: Reader, server: Server) -> Response:
    """Return all numbers in Prometheus's text form."""
    return Response(server.metrics.text(), media_type=CONTENT_TYPE)
