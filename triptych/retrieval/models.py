"""The models whose vectors a collection holds or is to hold, opened when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from triptych.embedder import Embedder
from triptych.encoders.base import EmbeddingModel
from triptych.errors import InvalidInput, ModelMismatch, NotAvailable
from triptych.index.base import checked_vectors
from triptych.index.sqlite.meta import Meta, Space
from triptych.index.sqlite.store import Store
from triptych.retrieval.batching import BatchingModel
from triptych.retrieval.query import query_vector
from triptych.retrieval.timing import stage
from triptych.types import Item, Matrix, Query, Vector


class Models:
    """Models by fingerprint: what is handed out for a collection's meta is certainly its own."""

    def __init__(
        self,
        embedder: EmbeddingModel,
        *,
        folder: Path | None,
        opener: Callable[[Meta], EmbeddingModel] | None,
    ) -> None:
        self.first = embedder
        self._folder = folder
        self._opener = opener
        self._known = {embedder.fingerprint: embedder}

    def offer(self, model: EmbeddingModel) -> None:
        """Have a model at hand that will be asked for."""
        self._known[model.fingerprint] = model

    def of(self, meta: Meta) -> EmbeddingModel:
        """Return the model that `meta` names; raises ModelMismatch where it is not to be had."""
        model = self._known.get(meta.fingerprint)
        if model is None and self._opener is not None:
            model = self._opener(meta)
        if model is None or (model.fingerprint, model.dim) != (meta.fingerprint, meta.dim):
            raise self.mismatch(meta, model or self.first)
        self.offer(model)
        return model

    def check(self, store: Store) -> None:
        """Raise ModelMismatch where the store has items, and they are not of the first model."""
        meta, ours = store.meta, self.first
        if len(store) and (meta.fingerprint, meta.dim) != (ours.fingerprint, ours.dim):
            raise self.mismatch(meta, ours)

    def mismatch(self, meta: Meta, got: EmbeddingModel) -> ModelMismatch:
        """Return the error of a collection that is met with another model than its own."""
        change = "change that: triptych migrate --model NAME"
        if holds_own_vectors(meta) or holds_own_vectors(got):
            change = "use another collection."
        return ModelMismatch(
            f"{self._folder or 'The collection'} holds vectors of the model {meta.model} "
            f"({meta.fingerprint[:12]}, {meta.dim} numbers), got {got.name} "
            f"({got.fingerprint[:12]}, {got.dim} numbers).",
            hint=f"Open it with its own model, or {change}",
        )


def named(meta: Meta, space: Space) -> Meta:
    """Return the meta of the same collection when it is searched in `space`."""
    return meta._replace(
        model=space.model,
        fingerprint=space.fingerprint,
        dim=space.dim,
        precision=space.precision,
        space=space.space,
        token_width=space.token_width,
    )


def holds_own_vectors(model: EmbeddingModel | Meta | Space) -> bool:
    """Whether items bring their vectors with them."""
    return model.fingerprint.startswith("vectors:")


def innermost(model: EmbeddingModel) -> EmbeddingModel:
    """Return the model behind those that remember or batch: for what neither does."""
    while isinstance(model, Embedder | BatchingModel):
        model = model.model
    return model


def embed_items(model: EmbeddingModel, items: Sequence[Item]) -> Matrix:
    """Return vectors_NM, unit rows.

    Raises ModelMismatch for an item with a vector of its own where the model makes them, or
    without one where it does not.
    """
    for item in items:
        _check_origin(item, model)
    vectors_NM = model.embed(items)
    # the caller's own were made unit rows just now; of a model that is to be seen
    return vectors_NM if holds_own_vectors(model) else checked_vectors(vectors_NM, model.dim)


def embed_asked(
    model: EmbeddingModel, asked: Query, stored: Callable[[Sequence[str]], Matrix]
) -> Vector:
    """Return the unit vector of a whole query; `stored` gives the rows kept for ids.

    Raises InvalidInput where it has not the model's dimension.
    """
    with stage("embed"):
        vector_M = query_vector(asked, embed=partial(embed_query, model), stored=stored)
    if len(vector_M) != model.dim:
        raise InvalidInput(f"The query's vector has {len(vector_M)} numbers, expected {model.dim}.")
    return vector_M


def embed_query(model: EmbeddingModel, items: Sequence[Item]) -> Matrix:
    """Return vectors_NM; raises NotAvailable where the model makes none."""
    if holds_own_vectors(model):
        raise NotAvailable(
            f"This collection holds vectors of the caller's own ({model.name}).",
            hint="Search it with vector=... or like=...",
        )
    return embed_items(model, items)


def _check_origin(item: Item, model: EmbeddingModel) -> None:
    if (item.vector is not None) != holds_own_vectors(model):
        got = "brings no vector" if item.vector is None else "brings a vector of its own"
        raise ModelMismatch(
            f"{item.id!r} {got}, expected vectors of {model.name} only.",
            hint="Use another collection.",
        )
