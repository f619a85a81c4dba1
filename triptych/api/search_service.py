"""Searches: a body to a query, the hits to bytes. Runs in the pool."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from triptych.api.catalog import Catalog
from triptych.api.config import Limits
from triptych.api.errors import too_large
from triptych.api.jsons import dumps
from triptych.api.pictures import Pictures
from triptych.api.schemas import (
    FacetsBody,
    PartBody,
    RecommendBody,
    SearchBody,
    SearchOptions,
    hit_json,
)
from triptych.errors import InvalidInput
from triptych.filters import parse_filter, to_json
from triptych.retrieval.answering.answer_cache import NEAR, AnswerCache, near_to
from triptych.retrieval.answering.questions import OPTIONS, question_of
from triptych.retrieval.collection import Collection
from triptych.retrieval.timing import timed
from triptych.spans import span
from triptych.types import Hit, Part, Query

_TIERS = {"memory": "process", "search": "index"}


class AnswerKey(NamedTuple):
    """What leads to an answer that the cache has."""

    generation: str
    key: bytes
    question: str | None  # to be counted, where the log of queries is on


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchAnswer:
    """A serialised reply, and what goes into its headers."""

    body: bytes
    tier: str  # process, redis, near or index
    key: AnswerKey | None = None  # where the cache has it
    stages: Mapping[str, float] = field(default_factory=dict)  # seconds

    def headers(self) -> dict[str, str]:
        """Return what is said of the answer beside it."""
        said = {"X-Triptych-Tier": self.tier}
        if self.stages:
            took = [f"{stage};dur={s * 1000:.3f}" for stage, s in self.stages.items()]
            said["Server-Timing"] = ", ".join(took)
        return said


class SearchService:
    """Answers the searches of all collections."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        pictures: Pictures,
        limits: Limits,
        near: float | None = None,  # of requests that do not say
    ) -> None:
        self._catalog, self._pictures, self._limits = catalog, pictures, limits
        self._near = near

    def search(
        self,
        tenant: str,
        name: str,
        body: SearchBody,
        files: Mapping[str, list[bytes]],
        *,
        missed: bytes | None = None,
    ) -> SearchAnswer:
        """Return the answer to a search; `files` are the parts of a multipart body.

        `missed` is the key of an answer that nobody remembers, as was found out just now.
        """
        terms = _terms(body)  # what is wrong with them is wrong of any collection
        with self._catalog.answering(tenant, name) as answers:
            embedder = answers.collection.embedder

            def query() -> Query:
                return self._query(terms, files, getattr(embedder, "picture_size", None))

            if body.explain or _has_address(terms):
                return self._answer(answers.collection, query(), body)
            if _is_shown(terms) or files:
                return self._remembered(answers, _seen(body, files), query, body, missed)
            return self._worded(answers, query(), body, missed)

    def known(self, answers: AnswerCache, body: SearchBody) -> AnswerKey | None:
        """Return what leads to the answer to a search, if anybody has it; None: nobody keeps it.

        An event loop may ask: nothing is decoded or looked up.
        """
        terms = _terms(body)
        if body.explain or _has_address(terms):
            return None
        if _is_shown(terms):
            return self._key(answers, _seen(body, {}), body)
        question = question_of(self._query(terms, {}, None), _options(body))
        return self._key(answers, question, body)._replace(question=question)

    def recommend(self, tenant: str, name: str, body: RecommendBody) -> SearchAnswer:
        """Return what is near the positive items and far from the negative ones."""
        near = [Part(id=id, weight=1 / len(body.positive)) for id in body.positive]
        weight = -body.negative_weight / max(len(body.negative), 1)
        far = [Part(id=id, weight=weight) for id in body.negative]
        query = Query((*near, *far))
        with self._catalog.answering(tenant, name) as answers:
            if body.explain:
                return self._answer(answers.collection, query, body)
            return self._worded(answers, query, body)

    def again(self, answers: AnswerCache, query: Query, options: Mapping[str, Any]) -> SearchAnswer:
        """Answer a question of the log, for its answer to be ready."""
        return self._worded(answers, query, SearchOptions(**options))

    def facets(self, tenant: str, name: str, body: FacetsBody) -> bytes:
        """Return the most frequent values of fields."""
        with self._catalog.using(tenant, name) as collection:
            found = collection.facets(body.fields, filter=body.filter, limit=body.limit)
        return dumps(
            {
                "facets": {
                    field: [{"value": value, "count": count} for value, count in values]
                    for field, values in found.items()
                }
            }
        )

    def _worded(
        self,
        answers: AnswerCache,
        query: Query,
        asked: SearchOptions,
        missed: bytes | None = None,
    ) -> SearchAnswer:
        """Return the answer to a question that has one spelling, however it was put."""
        question = question_of(query, _options(asked))
        assert question is not None, "all questions without a spelling would be one"
        if answers.asked is not None:
            answers.asked(question)
        found = self._remembered(answers, question, lambda: query, asked, missed)
        return replace(found, key=found.key and found.key._replace(question=question))

    def _remembered(
        self,
        answers: AnswerCache,
        question: Any,
        query: Callable[[], Query],
        asked: SearchOptions,
        missed: bytes | None = None,
    ) -> SearchAnswer:
        """Return the answer out of the cache, or work it out and put it there."""
        stages: Mapping[str, float] = {}
        tiers = {**_TIERS}
        least = self._least(asked)

        def computed() -> bytes:
            nonlocal stages
            with near_to(least):
                found = self._answer(answers.collection, query(), asked)
            stages, tiers["search"] = found.stages, found.tier
            return found.body

        known = self._key(answers, question, asked)
        answer = answers.get_or_compute(known.key, computed, missed=missed)
        tier = tiers.get(answer.tier, answer.tier)
        return SearchAnswer(body=answer.body, tier=tier, key=known, stages=stages)

    def _key(self, answers: AnswerCache, question: Any, asked: SearchOptions) -> AnswerKey:
        # before it is looked for: what is found is then as new as the generation says, or newer
        generation, key = answers.named_key("reply", [question, self._least(asked)])
        return AnswerKey(generation, key, None)

    def _least(self, asked: SearchOptions) -> float | None:
        return asked.near or self._near

    def _answer(self, collection: Collection, query: Query, asked: SearchOptions) -> SearchAnswer:
        if asked.offset + asked.limit > self._limits.hits:
            raise InvalidInput(f"offset and limit together are at most {self._limits.hits:,}.")
        with timed() as stages, span("search"):
            hits = self._look(collection, query, asked)
        reply: dict[str, Any] = {
            "hits": [hit_json(hit) for hit in hits],
            "limit": asked.limit,
            "offset": asked.offset,
        }
        if asked.explain:
            reply["explain"] = {
                "parts": [{"kind": _kind(part), "weight": part.weight} for part in query.parts],
                "tier": "index",
                "stages_ms": {name: round(s * 1000, 3) for name, s in stages.items()},
                "index": collection.info()["index"],
                "fingerprint": collection.embedder.fingerprint,
            }
        is_near = any(hit.found.endswith(NEAR) for hit in hits)
        return SearchAnswer(body=dumps(reply), tier="near" if is_near else "index", stages=stages)

    def _look(self, collection: Collection, query: Query, asked: SearchOptions) -> list[Hit]:
        return collection.search(
            query,
            limit=asked.limit,
            offset=asked.offset,
            filter=asked.filter,
            threshold=asked.threshold,
            hybrid=asked.hybrid,
            rerank=asked.rerank,
            diversity=asked.diversity,
            group_by=asked.group_by,
            group_size=asked.group_size,
            explain=asked.explain,
        )

    def _query(
        self, terms: list[Part], files: Mapping[str, list[bytes]], size_hint: int | None
    ) -> Query:
        given = {name: data[0] for name, data in files.items()}
        uploads = files.get("image", [])
        number = len(terms) + len(uploads)
        if number > self._limits.parts:
            raise too_large(f"The query has {number} parts", most=self._limits.parts)
        load = self._pictures.load
        parts = [
            replace(part, image=load(part.image, size_hint=size_hint, files=given))
            if isinstance(part.image, str)
            else part
            for part in terms
        ]
        parts += [Part(image=load(one, size_hint=size_hint)) for one in uploads]
        return Query(tuple(parts))


def _terms(body: SearchBody) -> list[Part]:
    """Return what a search asks for in its order, pictures as they were sent.

    Raises InvalidInput for a part that is none.
    """
    terms = [] if body.query is None else [Part(text=body.query)]
    terms += [Part(image=image) for image in _as_list(body.image)]
    terms += [Part(id=id) for id in _as_list(body.like)]
    terms += [] if body.vector is None else [Part(vector=body.vector)]
    terms += [_term(part, 1) for part in body.parts]
    for less in _as_list(body.minus):
        terms.append(Part(text=less, weight=-1) if isinstance(less, str) else _term(less, -1))
    return terms


def _term(body: PartBody, sign: int) -> Part:
    return Part(
        weight=sign * body.weight,
        text=body.text,
        image=body.image,
        id=body.id,
        vector=body.vector,
    )


def _options(asked: SearchOptions) -> dict[str, Any]:
    """Return the options in the spelling of the log."""
    wanted = parse_filter(asked.filter)
    said = {name: getattr(asked, name) for name in OPTIONS}
    share = 0.5 if asked.hybrid is True else float(asked.hybrid)
    return {**said, "filter": None if wanted is None else to_json(wanted), "hybrid": share}


def _seen(body: SearchBody, files: Mapping[str, list[bytes]]) -> list[Any]:
    """Return all that a search with pictures or vectors says."""
    return [body.model_dump(exclude_defaults=True), files]


def _is_shown(terms: list[Part]) -> bool:
    """Whether pictures or vectors are among them: there is no one spelling of such a question."""
    return any(part.image is not None or part.vector is not None for part in terms)


def needs_model(body: SearchBody) -> bool:
    """Whether words or pictures are to be embedded: all else is near a vector that is there."""
    return any(part.text is not None or part.image is not None for part in _terms(body))


def _has_address(terms: list[Part]) -> bool:
    """Whether a picture is to be fetched: what lies at an address changes, so nothing is kept."""
    return any(isinstance(part.image, str) and "://" in part.image[:16] for part in terms)


def _kind(part: Part) -> str:
    names = ("text", "image", "id", "vector")
    return next(name for name in names if getattr(part, name) is not None)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return value if isinstance(value, list) else [value]
