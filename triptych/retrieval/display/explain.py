"""Where the score of a hit comes from: the query's parts, and the places of the hit's picture.

A score is the cosine with the normalised sum of the parts, so it is itself a sum: of each part's
weight times its own cosine, over the length of the sum.

P parts of a query, K hits, M embedding width, W words.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from triptych.encoders.base import EmbeddingModel, Occlusion
from triptych.encoders.pictures.picture import load_picture
from triptych.errors import CollectionDamaged, NotFound
from triptych.retrieval.display.heat import Word, heat, word_heats, words_of
from triptych.retrieval.models import embed_asked, embed_items, innermost
from triptych.retrieval.timing import note, timed
from triptych.types import Explanation, Hit, Item, Matrix, Part, Query, Vector

MOST_HEATS = 20
"""Pictures that one answer draws heat for: each takes some 20 ms."""

_TRIES = 3


class Stored(Protocol):
    """What a collection knows of its items."""

    @property
    def embedder(self) -> EmbeddingModel: ...

    def vectors(self, ids: Sequence[str]) -> Matrix: ...

    def thumbnail(self, id: str) -> bytes | None: ...


def explained(
    stored: Stored, query: Query, look: Callable[[], list[Hit]], wanted: Set[str] | bool
) -> list[Hit]:
    """Return the hits that `look` finds, the wanted ones with their explanation."""
    for _ in range(_TRIES):
        with timed() as stages:
            hits = look()
        chosen = hits if isinstance(wanted, bool) else [hit for hit in hits if hit.id in wanted]
        start = time.perf_counter()
        with timed():  # embedding a part again is no part of the search
            try:
                found = _explanations(stored, query, chosen)
            except NotFound:  # a hit was deleted meanwhile
                continue
        stages["explain"] = time.perf_counter() - start
        note(stages)
        stages_ms = {name: round(1000 * seconds, 3) for name, seconds in stages.items()}
        return [
            replace(hit, explanation=replace(found[hit.id], stages_ms=stages_ms))
            if hit.id in found
            else hit
            for hit in hits
        ]
    return hits


def shares(stored: Stored, query: Query, ids: Sequence[str]) -> NDArray[np.float64]:
    """Return shares_KP; each row adds up to the hit's score.

    Raises NotFound where a hit was deleted since.
    """
    weights_P = np.array([part.weight for part in query.parts], dtype=np.float64)
    parts_PM = np.stack([_unit(stored, part) for part in query.parts]).astype(np.float64)
    length = np.linalg.norm(weights_P @ parts_PM)
    hits_KM = stored.vectors(ids).astype(np.float64)
    shares_KP: NDArray[np.float64] = (hits_KM @ parts_PM.T) * (weights_P / length)
    return shares_KP


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """A query as places are compared with it."""

    vector_M: Vector
    words: Sequence[Word]
    words_WM: Matrix


def _explanations(stored: Stored, query: Query, hits: Sequence[Hit]) -> dict[str, Explanation]:
    if not hits:
        return {}
    shares_KP = shares(stored, query, [hit.id for hit in hits])
    heats = _Heats(stored, query)
    return {
        hit.id: heats.add_to(Explanation(shares=tuple(row), tier="index", stages_ms={}), hit)
        for hit, row in zip(hits, shares_KP.tolist(), strict=True)
    }


class _Heats:
    """Draws heat for some hits of a query; the query is read once, and only where it is needed."""

    def __init__(self, stored: Stored, query: Query) -> None:
        self._stored, self._query = stored, query
        model = innermost(stored.embedder)
        self._places = model if isinstance(model, Occlusion) and model.has_places else None
        self._asked: _Asked | None = None
        self._left = MOST_HEATS

    def add_to(self, explanation: Explanation, hit: Hit) -> Explanation:
        """Return the explanation with heat, or with the reason why there is none."""
        if hit.modality not in ("image", "both"):
            return replace(explanation, note="The hit has no picture.")
        if self._places is None:
            name = self._stored.embedder.name
            why = f"The model {name} does not tell what each place of a picture brings."
            return replace(explanation, note=why)
        if not self._left:
            why = f"Of one answer {MOST_HEATS} pictures are explained. Ask for this one by its id."
            return replace(explanation, note=why)
        small = self._thumbnail(hit.id)
        if small is None:
            return replace(explanation, note="The hit's small picture is damaged.")
        self._left -= 1
        asked = self._read()
        (lost_RCM,) = self._places.hidden_places([load_picture(small)])
        return replace(
            explanation,
            heat=heat(lost_RCM, asked.vector_M),
            words=word_heats(lost_RCM, asked.words, asked.words_WM),
        )

    def _thumbnail(self, id: str) -> bytes | None:
        try:
            return self._stored.thumbnail(id)
        except CollectionDamaged:
            return None

    def _read(self) -> _Asked:
        if self._asked is None:
            model, words = self._stored.embedder, words_of(self._query.parts)
            items = [Item(id=f"word:{at}", text=word.text) for at, word in enumerate(words)]
            self._asked = _Asked(
                vector_M=embed_asked(model, self._query, self._stored.vectors),
                words=words,
                words_WM=embed_items(model, items) if items else np.empty((0, model.dim), "f4"),
            )
        return self._asked


def _unit(stored: Stored, part: Part) -> Vector:
    alone = Part(text=part.text, image=part.image, id=part.id, vector=part.vector)
    return embed_asked(stored.embedder, Query((alone,)), stored.vectors)
