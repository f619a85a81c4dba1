"""The answer cache of a collection: a question that was asked before is not searched again.

    question ─► this process ─► the cache's tiers (process, Redis) ─► the search itself

A key holds the tenant, the collection, its generation, the model and the whole question (law 6), so
a change of the collection, by whatever process, makes every older answer unreachable at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from hashlib import blake2b
from time import monotonic
from typing import Any, NamedTuple, Self, TypeAlias

import numpy as np
from cachetools import LRUCache

from triptych.cache.base import Cache
from triptych.cache.keys import answer_prefix, digest
from triptych.cache.single_flight import SingleFlight
from triptych.embedder import pin
from triptych.errors import PictureError
from triptych.filters import to_json
from triptych.retrieval.answering.hits import copied, is_deep, pack_hits, unpack_hits, weight
from triptych.retrieval.answering.near import NearQueries
from triptych.retrieval.answering.questions import OPTIONS, question_of
from triptych.retrieval.collection import Collection
from triptych.retrieval.models import embed_asked
from triptych.retrieval.pipeline import Request
from triptych.types import Hit, Part, Query


class _Known(NamedTuple):
    """An answer as Python has it; nobody outside ever gets these very hits."""

    hits: tuple[Hit, ...]
    deep: bool


_Look: TypeAlias = Callable[[Query, Request], list[Hit]]
_Asked: TypeAlias = tuple[bytes, tuple[Any, ...]]  # a state of the collection, a question

SEARCH = "search"
"""The tier of an answer that nobody remembered."""

NEAR = "+near"
"""What `Hit.found` ends with where the hits, and their scores, are those of a query near to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCacheConfig:
    ttl: float = 3600.0  # seconds; a change of the collection ends an answer at once anyway
    unpacked_bytes: int = 16 * 2**20  # answers of this process as Python has them
    near: float | None = None  # a query whose cosine with an earlier one is this has its answer


DEFAULT = AnswerCacheConfig()


_wish: ContextVar[float | None] = ContextVar("triptych_near", default=None)


@contextmanager
def near_to(least: float | None) -> Iterator[None]:
    """Let searches inside find what was found for a query whose cosine with them is `least`."""
    token = _wish.set(least)
    try:
        yield
    finally:
        _wish.reset(token)


class Answer(NamedTuple):
    """A serialised answer, and the tier that had it: memory, redis, or search."""

    body: bytes
    tier: str


class AnswerCache:
    """What `collection` answers, remembered in `cache`. Threads may share it.

    `tenant` and `name` are the collection's; two that share a cache and differ in either share no
    answer.
    """

    def __init__(
        self,
        collection: Collection,
        *,
        cache: Cache,
        tenant: str = "default",
        name: str = "default",
        config: AnswerCacheConfig = DEFAULT,
    ) -> None:
        self.collection = collection
        self._cache = cache
        self._config = config
        self._prefix = answer_prefix(tenant, name)
        self._generation: tuple[str, bytes] = ("", b"")
        self._until = 0.0  # when what is unpacked has been kept long enough
        self.flight: SingleFlight[bytes, bytes] = SingleFlight()
        self._searches: SingleFlight[_Asked, _Known] = SingleFlight()
        self._unpacked: LRUCache[_Asked, _Known] = LRUCache(
            config.unpacked_bytes, getsizeof=_weight
        )
        self._near: NearQueries[_Known] = NearQueries()
        self._lock = threading.Lock()
        self.changed: Callable[[], None] | None = None  # called when the collection has changed
        self.asked: Callable[[str], None] | None = None  # called with each question

    def attach(self) -> Self:
        """Have `collection.search` look here first; return this."""
        self.collection.remember = self.hits
        return self

    def attach_near(self) -> Self:
        """Have `collection.search` find what is near inside `near_to`, and nothing else; return
        this: for who remembers whole replies himself."""
        self.collection.remember = self._near_only
        return self

    def detach(self) -> None:
        """Undo either of them."""
        self.collection.remember = None

    def hits(self, asked: Query, request: Request, look: _Look) -> list[Hit]:
        """Return what `look` finds, or found for the same before; the caller may change it."""
        try:
            content, pinned = pin_query(asked)
        except (PictureError, TypeError, ValueError):
            return look(asked, request)  # it knows what is wrong
        options = _options(request)
        if self.asked is not None:
            said = question_of(asked, dict(zip(OPTIONS, options, strict=True)))
            if said is not None:
                self.asked(said)
        question = (content, options, self.collection.embedder.fingerprint)
        at = (self._current(), question)
        known = self._known(at)
        if known is None:
            try:
                known = self._searches.do(at, lambda: self._looked_up(at, pinned, request, look))
            except PictureError:
                return look(asked, request)  # its message names the source
        return copied(known.hits, deep=known.deep)

    def key(self, kind: str, question: Any) -> bytes:
        """Return the key, as of now, of an answer of this kind to this question.

        `question` is all that the answer depends on beside the collection: None, booleans,
        numbers, strings, bytes, arrays, and lists and dictionaries of them. Ask for the key before
        the answer is worked out. Raises TypeError for anything else in it.
        """
        return self.named_key(kind, question)[1]

    def named_key(self, kind: str, question: Any) -> tuple[str, bytes]:
        """As `key`, with the generation that it is of: asked for once, for it takes a while."""
        generation, prefix = self._state()
        return generation, prefix + digest(kind, self.collection.embedder.fingerprint, question)

    def near(self, key: bytes) -> bytes | None:
        """Return the answer where this process has it; it never waits."""
        return self._cache.near(key)

    def find(self, key: bytes) -> Answer | None:
        """Return the answer where a tier has it."""
        found = self._cache.find(key)
        return None if found is None else Answer(found.value, found.tier)

    @property
    def has_far(self) -> bool:
        """Whether others remember answers, and can be asked at the moment."""
        return self._cache.has_far

    async def far(self, key: bytes) -> Answer | None:
        """Return the answer where others have it; the event loop is not held up."""
        found = await self._cache.far(key)
        return None if found is None else Answer(found.value, found.tier)

    def put(self, key: bytes, body: bytes) -> None:
        """Remember an answer."""
        self._cache.put_many([(key, body)], ttl=self._config.ttl)

    def get_or_compute(
        self, key: bytes, compute: Callable[[], bytes], *, missed: bytes | None = None
    ) -> Answer:
        """Return the answer under `key`; of many who ask at once, one computes it.

        Nobody is asked for it again where `missed`, a key that was looked for just now, is the key.
        """
        found = None if key == missed else self.find(key)
        if found is not None:
            return found

        def computed() -> bytes:
            body = self.near(key)  # who led before may have landed since
            if body is None:
                body = compute()
                self.put(key, body)
            return body

        return Answer(self.flight.do(key, computed), SEARCH)

    def purge(self) -> int:
        """Delete the answers of before the last change in every tier; return how many are gone.

        It looks at every key that there is, so not on a request's way.
        """
        return self._cache.purge(self._prefix, keep=self._current())

    def _near_only(self, asked: Query, request: Request, look: _Look) -> list[Hit]:
        wish = _wish.get()
        # what the tokens of a query find is no matter of how near its vector is
        if wish is None or request.rerank:
            return look(asked, request)

        def looked() -> _Known:
            hits = tuple(look(asked, request))
            return _Known(hits, is_deep(hits))

        scope = (self._current(), _options(request), self.collection.embedder.fingerprint)
        known = self._nearby(scope, asked, request, wish, looked)
        return copied(known.hits, deep=known.deep)

    def _current(self) -> bytes:
        """Return how the keys of answers begin that are right now."""
        return self._state()[1]

    def _state(self) -> tuple[str, bytes]:
        """Return the generation, and how its keys begin."""
        generation = self.collection.generation
        seen, prefix = self._generation
        if seen != generation:
            name = blake2b(generation.encode(), digest_size=10).hexdigest().encode()
            prefix = b"%b%b:" % (self._prefix, name)
            with self._lock:
                self._generation = (generation, prefix)
                self._unpacked.clear()
            if seen and self.changed is not None:
                self.changed()
        return generation, prefix

    def _known(self, at: _Asked) -> _Known | None:
        now = monotonic()
        with self._lock:
            if now > self._until:
                self._unpacked.clear()
                self._until = now + self._config.ttl
            return self._unpacked.get(at)

    def _looked_up(self, at: _Asked, pinned: Query, request: Request, look: _Look) -> _Known:
        known = self._known(at)  # who led before may have landed since
        if known is None:
            # what the tokens of a query find is no matter of how near its vector is
            least = None if request.rerank else self._config.near
            if least is None:
                known = self._shared(at, pinned, request, look)
            else:
                known = self._nearby(
                    (at[0], *at[1][1:]), pinned, request, least,
                    lambda: self._shared(at, pinned, request, look),
                )  # fmt: skip
            with self._lock:
                if _weight(known) <= self._unpacked.maxsize:
                    self._unpacked[at] = known
        return known

    def _shared(self, at: _Asked, pinned: Query, request: Request, look: _Look) -> _Known:
        prefix, question = at
        key = prefix + digest("hits", question)
        found = self._cache.find(key)
        hits = None if found is None else unpack_hits(found.value)
        if hits is None:
            hits = tuple(look(pinned, request))
            self.put(key, pack_hits(hits))
        return _Known(hits, is_deep(hits))

    def _nearby(
        self,
        scope: tuple[Any, ...],
        asked: Query,
        request: Request,
        least: float,
        look: Callable[[], _Known],
    ) -> _Known:
        """Return what is known of a query near to this one, else what is of itself.

        Only this process keeps the former: whoever shares the cache may not want it.
        """
        scope = (*scope, request.words, request.without)
        vector_M = embed_asked(self.collection.embedder, asked, self.collection.vectors)
        near = self._near.find(scope, vector_M, least=least)
        if near is not None:
            return near._replace(hits=tuple(replace(h, found=h.found + NEAR) for h in near.hits))
        known = look()
        self._near.add(scope, vector_M, known)
        return known


def _weight(known: _Known) -> int:
    return weight(known.hits)


def pin_query(asked: Query) -> tuple[tuple[Any, ...], Query]:
    """Return all that a query says as tuples of plain values, and the same with pictures read.

    Raises PictureError, and TypeError or ValueError for a vector that is none.
    """
    parts = asked.parts
    if any(part.image is not None for part in parts):
        pins = [None if part.image is None else pin(part.image) for part in parts]
        contents = [
            _said(part, pinned and pinned.content) for part, pinned in zip(parts, pins, strict=True)
        ]
        read = [
            part if pinned is None else Part(weight=part.weight, image=pinned.picture)
            for part, pinned in zip(parts, pins, strict=True)
        ]
        return tuple(contents), Query(tuple(read))
    return tuple([_said(part, None) for part in parts]), asked


def _said(part: Part, picture: bytes | None) -> tuple[Any, ...]:
    vector = None
    if part.vector is not None:
        given = np.asarray(part.vector)
        vector = (given.dtype.str, given.shape, given.astype(np.float64).tobytes())
    return (float(part.weight), part.text, part.id, picture, vector)


def _options(request: Request) -> tuple[Any, ...]:
    return (
        request.limit,
        request.offset,
        None if request.filter is None else to_json(request.filter),
        request.threshold,
        float(request.hybrid),
        request.rerank,
        float(request.diversity),
        request.group_by,
        request.group_size,
    )
