"""Models, embeddings and reranking, in the shapes that other clients speak."""

from __future__ import annotations

from urllib.parse import unquote

from fastapi import APIRouter, Request, Response

from triptych.api.openapi import ERRORS, takes
from triptych.api.reading import json_body
from triptych.api.replies import Embeddings, ModelReply, Models, Reranked
from triptych.api.schemas import EmbeddingsBody, RerankBody
from triptych.api.services import Reader, Server, working

router = APIRouter(tags=["embeddings"], responses=ERRORS)


@router.get("/v1/models", response_model=Models)
async def models(request: Request, caller: Reader, server: Server) -> Response:
    """Return the models that requests may name."""
    return _json(await working(request, server.embedding.models))


@router.get("/v1/models/{id:path}", response_model=ModelReply)
async def model(id: str, request: Request, caller: Reader, server: Server) -> Response:
    """Return one of them; slashes in its name may be encoded or not."""
    # a slash that was encoded is still so in `id`, see edge.py
    name = unquote(request.scope["raw_path"].decode("latin-1")).removeprefix("/v1/models/")
    return _json(await working(request, server.embedding.model, name))


@router.post("/v1/embeddings", response_model=Embeddings, openapi_extra=takes(EmbeddingsBody))
async def embeddings(request: Request, caller: Reader, server: Server) -> Response:
    """Return vectors of texts and pictures, in OpenAI's shape."""
    body = await json_body(request, EmbeddingsBody)
    return _json(await working(request, server.embedding.embeddings, caller, body))


@router.post("/v1/rerank", response_model=Reranked, openapi_extra=takes(RerankBody))
async def rerank(request: Request, caller: Reader, server: Server) -> Response:
    """Return documents in the order in which they fit a query."""
    body = await json_body(request, RerankBody)
    return _json(await working(request, server.embedding.rerank, caller, body))


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
