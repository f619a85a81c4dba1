"""Embeddings and reranking in the shapes of others: OpenAI, Jina, vLLM, Cohere. In the pool."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np

from triptych.api.access import Caller
from triptych.api.catalog import Catalog
from triptych.api.config import Limits
from triptych.api.errors import too_large
from triptych.api.jsons import dumps
from triptych.api.pictures import Pictures
from triptych.api.schemas import EmbeddingsBody, Input, Message, RerankBody
from triptych.encoders.base import CountsTokens, EmbeddingModel
from triptych.errors import InvalidInput, NotFound, PictureError
from triptych.spans import span
from triptych.types import Item, Matrix

_BATCH = 64


class Embedding:
    """Embeds what is sent with a model that the server offers."""

    def __init__(self, *, catalog: Catalog, pictures: Pictures, limits: Limits) -> None:
        self._catalog, self._pictures, self._limits = catalog, pictures, limits

    def models(self) -> bytes:
        """Return the models that may be named."""
        names = self._catalog.model_names
        data = [_described(name, self._catalog.model(name)) for name in names]
        return dumps({"object": "list", "data": data})

    def model(self, name: str) -> bytes:
        """Return one of them; raises NotFound."""
        if not name:  # elsewhere it stands for the default
            raise NotFound("There is no model without a name.", hint="See: GET /v1/models")
        return dumps(_described(name, self._catalog.model(name)))

    def embeddings(self, caller: Caller, body: EmbeddingsBody) -> bytes:
        """Return the vectors of all inputs, in OpenAI's shape."""
        model = self._catalog.remembering(body.model, caller.tenant)
        if body.dimensions not in (None, model.dim):
            raise InvalidInput(f"dimensions: the model gives {model.dim}, got {body.dimensions}.")
        inputs = _inputs(body)
        self._check(inputs, most=self._limits.inputs)
        with caller.spending(len(inputs)):
            vectors_NM = self._vectors(model, inputs)
        data = [
            {"object": "embedding", "index": at, "embedding": _written(row, body.encoding_format)}
            for at, row in enumerate(vectors_NM)
        ]
        tokens = _num_tokens(model, inputs)
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        name = body.model or self._catalog.model_names[0]
        return dumps({"object": "list", "data": data, "model": name, "usage": usage})

    def rerank(self, caller: Caller, body: RerankBody) -> bytes:
        """Return the documents in the order of their cosines with the query."""
        model = self._catalog.remembering(body.model, caller.tenant)
        query, *documents = [_input(one) for one in (body.query, *body.documents)]
        self._check([query, *documents], most=self._limits.documents + 1)
        with caller.spending(len(documents) + 1):
            query_1M = self._vectors(model, [query], name="query")
            rows_NM = self._vectors(model, documents, name="documents")
        scores_N = (rows_NM @ query_1M[0]).tolist()
        order = sorted(range(len(documents)), key=lambda at: (-scores_N[at], at))
        results = [
            {"index": at, "relevance_score": scores_N[at]}
            | ({"document": {"text": documents[at].text}} if body.return_documents else {})
            for at in order[: body.top_n]
        ]
        name = body.model or self._catalog.model_names[0]
        usage = {"total_tokens": _num_tokens(model, [query, *documents])}
        return dumps({"model": name, "results": results, "usage": usage})

    def _check(self, inputs: Sequence[Input], *, most: int) -> None:
        if len(inputs) > most:
            raise too_large(f"There are {len(inputs):,} inputs", most=most)
        pictures = sum(one.image is not None for one in inputs)
        if pictures > self._limits.pictures:
            raise too_large(f"There are {pictures:,} pictures", most=self._limits.pictures)

    def _vectors(
        self, model: EmbeddingModel, inputs: Sequence[Input], *, name: str = "input"
    ) -> Matrix:
        hint = getattr(model, "picture_size", None)
        rows = []
        for start in range(0, len(inputs), _BATCH):
            part = inputs[start : start + _BATCH]
            items = [self._item(one, f"{name}.{start + at}", hint) for at, one in enumerate(part)]
            with span("embed"):
                rows.append(model.embed(items))
        return np.concatenate(rows)

    def _item(self, given: Input, name: str, size_hint: int | None) -> Item:
        if given.text is None and given.image is None:
            raise InvalidInput(f"{name} is empty.", hint="Give it a text or an image.")
        if given.text is not None and not given.text.strip():
            raise InvalidInput(f"The text of {name} is empty.")
        try:
            image = given.image and self._pictures.load(given.image, size_hint=size_hint)
        except PictureError as error:
            raise PictureError(error.code, f"{name}: {error.message}", hint=error.hint) from None
        return Item(id=name, text=given.text, image=image)


def _num_tokens(model: Any, inputs: Sequence[Input]) -> int:
    """Return how many tokens the model reads; 0 for one that does not say."""
    while not isinstance(model, CountsTokens):
        if not hasattr(model, "model"):  # neither what remembers it nor what queues for it
            return 0
        model = model.model
    texts = [one.text for one in inputs if one.text is not None]
    return model.num_tokens(texts, sum(one.image is not None for one in inputs))


def _inputs(body: EmbeddingsBody) -> list[Input]:
    if (body.input is None) == (body.messages is None):
        raise InvalidInput("Expected either input or messages.")
    if body.messages is not None:
        return [_of_messages(body.messages)]
    given = body.input if isinstance(body.input, list) else [body.input]
    if body.modality == "image":
        return [Input(image=one) if isinstance(one, str) else _input(one) for one in given]
    return [_input(one) for one in given]


def _input(given: Any) -> Input:
    return Input(text=given) if isinstance(given, str) else given


def _of_messages(messages: Sequence[Message]) -> Input:
    """Return one input of a conversation: its words line by line, and its picture."""
    texts: list[str] = []
    images: list[str] = []
    for message in messages:
        if isinstance(message.content, str):
            texts.append(message.content)
            continue
        for part in message.content:
            texts += [part.text] if part.text is not None else []
            images += [part.image_url["url"]] if part.image_url and "url" in part.image_url else []
    if len(images) > 1:
        raise InvalidInput(f"messages: got {len(images)} pictures, expected one at most.")
    return Input(text="\n".join(texts) or None, image=images[0] if images else None)


def _written(row_M: Any, form: str) -> Any:
    if form == "base64":
        return base64.b64encode(np.asarray(row_M, dtype="<f4").tobytes()).decode("ascii")
    return row_M.tolist()


def _described(name: str, model: EmbeddingModel) -> dict[str, Any]:
    return {
        "id": name,
        "name": model.name,  # what collections call it
        "object": "model",
        "created": 0,
        "owned_by": "triptych",
        "dim": model.dim,
        "fingerprint": model.fingerprint,
        "languages": list(model.languages),
    }
