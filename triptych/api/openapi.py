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
    400: "It cannot be parsed.", 401: "No key, or an unknown one.", 403: "Not permitted.",
    404: "There is no such thing.", 408: "Too slow.", 409: "It exists, or is of another model.",
    413: "A limit is passed.", 415: "Another content type is expected.",
    422: "Understood, but not usable.", 429: "Too much; see Retry-After.", 500: "An error of ours.",
    501: "Not installed.", 503: "Not now; see Retry-After.", 507: "The disk is full.",
}  # fmt: skip
ERRORS: dict[int | str, dict[str, Any]] = {
    status: {
        "description": said,
        "content": {JSON: {"schema": {"$ref": f"{_REF}ErrorReply"}}},
    }
    for status, said in _ERRORS.items()
}


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
