"""What /openapi.json says of bodies that routes read themselves, and of errors."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from triptych.api import schemas
from triptych.api.bodies import FORM, JSON, LINES

_REF = "#/components/schemas/"
_BODIES: tuple[type[BaseModel], ...] = (
    schemas.NewCollection, schemas.ItemBody, schemas.Items, schemas.SomeIds, schemas.GetItems,
    schemas.CountItems, schemas.SearchBody, schemas.RecommendBody, schemas.FacetsBody,
    schemas.EmbeddingsBody, schemas.RerankBody, schemas.ErrorReply,
)  # fmt: skip

_ERRORS = {
    400: ("It cannot be parsed", "bad_json bad_request bad_multipart"),
    401: ("No key, or an unknown one", "unauthorized"),
    403: ("Not permitted", "forbidden wrong_host wrong_origin read_only url_not_allowed"),
    404: ("There is no such thing", "not_found"),
    408: ("Too slow", "too_slow"),
    409: ("It exists, or is of another model", "already_exists model_mismatch"),
    413: ("A limit is passed", "too_large picture_too_large"),
    415: ("Another content type is expected", "unsupported_media_type picture_format"),
    422: ("Understood, but not usable", "invalid_input picture_..."),
    429: ("Too much; see Retry-After", "rate_limited quota_exceeded overloaded"),
    431: ("The headers, or the trailers, are too long", "too_large"),
    500: ("An error of ours", "internal collection_damaged"),
    501: ("Not installed", "not_available"),
    503: (
        "Not now; see Retry-After",
        "collection_busy timed_out shutting_down overloaded quota_exceeded not_available",
    ),
    507: ("The disk is full", "disk_full"),
}
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": f"{said}: {', '.join(f'`{code}`' for code in codes.split())}.",
        "content": {JSON: {"schema": {"$ref": f"{_REF}ErrorReply"}}},
    }
    for status, (said, codes) in _ERRORS.items()
}

AHEAD: dict[int | str, dict[str, Any]] = {
    status: ERRORS[status] for status in (400, 403, 408, 415, 431, 500, 503)
}
"""What may be answered ahead of any route, those that need no key among them."""


def takes(
    model: type[BaseModel], *, form: dict[str, Any] | None = None, lines: bool = False
) -> dict[str, Any]:
    """Return what a route says of its body: JSON of `model`, perhaps a form, perhaps NDJSON."""
    content: dict[str, Any] = {JSON: {"schema": {"$ref": f"{_REF}{model.__name__}"}}}
    if form is not None:
        content[FORM] = {"schema": {"type": "object", "properties": form}}
    if lines:
        content[LINES] = {"schema": {"type": "string"}}
    return {"requestBody": {"required": True, "content": content}}


def describe(app: FastAPI) -> dict[str, Any]:
    """Return the description of all routes, made once."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title="Triptych",
            version=app.version,
            summary="Find pictures and text with either, or with both at once.",
            routes=app.routes,
        )
        _, defined = models_json_schema(
            [(model, "validation") for model in _BODIES], ref_template=f"{_REF}{{model}}"
        )
        components = schema.setdefault("components", {})
        components.setdefault("schemas", {}).update(defined["$defs"])
        components["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        for path, routes in schema["paths"].items():
            for route in routes.values():
                if path.startswith("/v1") or path == "/metrics":
                    route["security"] = [{"bearer": []}, {"key": []}]
        app.openapi_schema = schema
    return app.openapi_schema
