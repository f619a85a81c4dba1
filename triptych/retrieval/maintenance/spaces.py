"""The vectors of a collection, one space for each model; one of them is searched."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

from triptych.encoders.base import EmbeddingModel
from triptych.encoders.pictures.picture import PictureLimits
from triptych.errors import NotAvailable
from triptych.index.base import checked_vectors
from triptych.index.sqlite.meta import Space
from triptych.index.sqlite.records import Tokens
from triptych.index.sqlite.store import Store
from triptych.retrieval.late import token_width
from triptych.retrieval.maintenance.originals import Originals
from triptych.retrieval.models import Models
from triptych.retrieval.writer import Writer
from triptych.types import Matrix, Rows


class Spaces:
    """Fills and switches spaces, here or through the process that writes."""

    def __init__(self, store: Store, models: Models, writer: Writer) -> None:
        self._store = store
        self._models = models
        self._writer = writer

    def all(self) -> list[Space]:
        """Return all spaces, by number."""
        return self._store.spaces()

    def current(self) -> Space:
        """Return the space that is searched."""
        meta = self._store.read_meta()
        named = meta.space, meta.model, meta.fingerprint, meta.dim
        return Space(*named, meta.precision, meta.token_width)

    def others(self) -> list[Space]:
        """Return the spaces that are not searched, the one that lacks the fewest vectors first."""
        with self._store.reading():
            current = self.current()
            others = [space for space in self.all() if space != current]
            return sorted(others, key=lambda one: (len(self.missing(one, 0, -1)), -one.space))

    def describe(self) -> list[dict[str, Any]]:
        """Return each space as `info` shows it."""
        with self._store.reading():
            count, current = len(self._store), self.current()
            return [
                {
                    "model": space.model,
                    "fingerprint": space.fingerprint,
                    "dim": space.dim,
                    "precision": space.precision,
                    "vectors": count - len(self.missing(space, 0, -1)),
                    **({"token_width": space.token_width} if space.token_width else {}),
                    "searched": space == current,
                }
                for space in self.all()
            ]

    def begin(self, model: EmbeddingModel, *, drop_tokens: bool = False) -> Space:
        """Return the model's space, a new one where none was begun; it is ready to be filled.

        Its vectors are as precise as those that are searched. It keeps token states where those
        that are searched have some, or where it was begun with them, unless they are to be
        dropped. Raises NotAvailable where the model gives none.
        """
        current = self.current()
        keeps = [
            space.token_width > 0
            for space in self.all()
            if space == current or space.fingerprint == model.fingerprint
        ]
        width = _width(model) if any(keeps) and not drop_tokens else 0
        self._models.offer(model)
        return self._writer.begin_space(
            Space(0, model.name, model.fingerprint, model.dim, current.precision, width)
        )

    def drop_tokens(self, model: EmbeddingModel) -> int:
        """Delete the token states of what is searched, with `model`; return of how many items.

        `compact` gives their bytes back.
        """
        items, _ = self._store.token_size()
        self.begin(model, drop_tokens=True)
        return items

    def missing(self, space: Space, after_row: int, limit: int) -> Rows:
        """Return the first rows after `after_row` that `space` lacks something of; -1 means all."""
        return self._store.missing(space, after_row, limit)

    def still_there(self, rows: Sequence[int]) -> set[int]:
        """Return those rows that were neither deleted nor written anew."""
        return set(self._store.ids_of(rows))

    def originals(
        self, model: EmbeddingModel, *, limits: PictureLimits, from_thumbnails: bool
    ) -> Originals:
        """Return what reads the stored items again, for `model`."""
        hint = getattr(model, "picture_size", None)
        return Originals(
            self._store, limits=limits, size_hint=hint, from_thumbnails=from_thumbnails
        )

    def token_bytes(self, space: Space) -> int:
        """Return about how many bytes an item's token states take in `space`."""
        items, num_bytes = self._store.token_size()
        width = max(self.current().token_width, 1)
        return num_bytes * space.token_width // (width * max(items, 1))

    def put(
        self, space: Space, rows_N: Rows, vectors_NM: Matrix, states: Sequence[Tokens | None]
    ) -> None:
        """Store vectors in one durable transaction; rows that are gone are skipped."""
        self._writer.put_vectors(space, rows_N, checked_vectors(vectors_NM, space.dim), states)

    def holding(self) -> AbstractContextManager[object]:
        """Let nobody else write meanwhile, where this process is the one that writes."""
        return self._writer.holding()

    def switch(self, space: Space, *, from_thumbnails: bool) -> None:
        """Search `space` from now on; the last few vectors are made by the process that writes.

        Raises InvalidInput while it lacks something of an item.
        """
        self._writer.switch(space, from_thumbnails=from_thumbnails)

    def build(self) -> None:
        """Build the index of what is searched, where this process writes; not while `holding`."""
        self._writer.build()

    def drop(self, space: Space) -> None:
        """Delete a space that is not searched; `compact` gives its bytes back."""
        self._writer.drop_space(space)


def _width(model: EmbeddingModel) -> int:
    try:
        return token_width(model)
    except NotAvailable as error:
        raise NotAvailable(
            f"{error.message} This collection keeps them, to rerank with.",
            hint="Take a model that gives them, or do without rerank: --drop-tokens.",
        ) from None
