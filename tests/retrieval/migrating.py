"""Models of one width and of another, and what other processes do during a migration."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tests.retrieval.fakes import CountingModel
from triptych.encoders.base import unit_rows
from triptych.errors import InvalidInput
from triptych.index.sqlite.meta import Meta, Space
from triptych.retrieval.collection import Collection
from triptych.retrieval.maintenance.migrate import MigrateOptions, migrate
from triptych.types import Item, Matrix

Answer = tuple[tuple[str, float], ...]
QUERIES = ("red apple", "a green tree", "blue")


class Turned(CountingModel):
    """As wide as the other, but another space: mixing the two would go unnoticed by shapes."""

    def __init__(self, *, dim: int = 32, pause: float = 0.0) -> None:
        super().__init__(dim=dim)
        self.name = f"turned:{dim}"
        self.fingerprint = self.fingerprint[::-1]
        self.pause = pause
        self.left: int | None = None  # how many more it embeds before it breaks
        self.unplaceable: set[str] = set()

    def embed(self, items: Sequence[Item]) -> Matrix:
        if self.left is not None and (left := self.left - len(items)) < 0:
            raise KeyboardInterrupt
        self.left = None if self.left is None else left
        if self.unplaceable.intersection(item.id for item in items):
            raise InvalidInput("This one cannot be placed.")
        time.sleep(self.pause)
        return turned(super().embed(items))

    def token_states(self, items: Sequence[Item]) -> list[Matrix]:
        return [turned(states_TW) for states_TW in super().token_states(items)]


def turned(vectors_NM: Matrix) -> Matrix:
    weights_M = np.linspace(0.5, 2.0, vectors_NM.shape[1])
    return unit_rows(np.roll(vectors_NM, 5, axis=1) * weights_M)


def model_of(meta: Meta | Space) -> CountingModel:
    kind = Turned if meta.model.startswith("turned") else CountingModel
    return kind(dim=meta.dim)


def open_here(path: Path, model: CountingModel | None = None, **options: Any) -> Collection:
    known = Collection.peek(path)
    embedder = model or (CountingModel() if known is None else model_of(known))
    return Collection.open(path, embedder=embedder, model_of=model_of, **options)


def answers(collection: Collection, **options: Any) -> tuple[Answer, ...]:
    return tuple(
        tuple((hit.id, hit.score) for hit in collection.search(query, limit=5, **options))
        for query in QUERIES
    )


def migrate_there(path: Path, pause: float, options: MigrateOptions | None = None) -> None:
    """Migrate in a process of its own."""
    with open_here(path) as collection:
        migrate(collection, Turned(pause=pause), options)


def search_and_write(path: Path, started: Any, stop: Any, failures: Any) -> None:
    """Search, add, change and delete until told to stop; put what went wrong, and the count."""
    turn = 0
    with open_here(path) as collection:
        while not stop.is_set() or turn < 5:
            try:
                id = f"other-{turn}"
                collection.upsert([{"id": id, "text": f"red apple {turn}"}])
                if not any(hit.id == id for hit in collection.search(f"red apple {turn}")):
                    failures.put(f"{id} was not found")
                if turn % 3 == 1:
                    collection.delete(f"other-{turn - 1}")
            except Exception as error:
                failures.put(repr(error))
            turn += 1
            started.set()
    failures.put(turn)
