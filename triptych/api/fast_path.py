"""Short searches, answered ahead of routing: those known by their very bytes unparsed, too.

What stands between the edge and a route, for routes of all kinds, costs a search as much as finding
what is near to a vector. What is no plain search of one collection is left to the routes.

The bytes of a body lead to the key of the answer that they once led to; the answer itself lies in
the cache, under the collection's generation, like all others. So a write ends it at once, and a
body that means the same in other bytes takes the long way once. Where other processes share a
cache, a body that is new to this one is read for its key: they may know the answer.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from hashlib import blake2b
from typing import Any, NamedTuple, TypeAlias

from cachetools import LRUCache

from triptych.api.bodies import read_as
from triptych.api.call import Call
from triptych.api.catalog import Catalog
from triptych.api.config import Limits
from triptych.api.lane import Lane
from triptych.api.pool import Pool
from triptych.api.schemas import SearchBody
from triptych.api.search_service import AnswerKey, SearchAnswer, SearchService, needs_model
from triptych.cache.memory import NAME as MEMORY
from triptych.errors import TriptychError
from triptych.retrieval.answering.answer_cache import Answer, AnswerCache

Alias: TypeAlias = tuple[str, str, bytes]
"""A tenant, a collection, and a hash of a body's bytes."""

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]


class Question(NamedTuple):
    """A search that has come as a whole, and is not known."""

    alias: Alias
    body: bytes
    missed: bytes | None  # the key of its answer, where that was looked for


Looked: TypeAlias = Answer | Question | None

_BEFORE = "/v1/collections/"
_AFTER = "/search"
_PATH = re.compile(rf"{_BEFORE}[a-z0-9_-]{{1,64}}{_AFTER}")
_LONGEST = 16 * 2**10  # bytes of a body that is answered here
_KEPT = 20_000


class FastPath:
    """Answers searches, and remembers which bytes led to which answer. For one event loop."""

    def __init__(
        self, catalog: Catalog, *, searches: SearchService, pool: Pool, limits: Limits
    ) -> None:
        self._catalog, self._searches, self._pool = catalog, searches, pool
        self._lane = Lane(pool)
        self._depth, self._most = limits.json_depth, min(_LONGEST, limits.body_bytes)
        self._keys: LRUCache[Alias, AnswerKey] = LRUCache(_KEPT)

    def is_search(self, scope: MutableMapping[str, Any], headers: dict[bytes, bytes]) -> bool:
        """Whether the request is a short search of one collection."""
        return (
            scope["method"] == "POST"
            and _PATH.fullmatch(scope["path"]) is not None
            and headers.get(b"content-type") == b"application/json"
            and len(length := headers.get(b"content-length", b"")) <= 5
            and length.isdigit()
            and 0 < int(length) <= self._most
        )

    async def look(self, path: str, call: Call, receive: Receive) -> tuple[Looked, Receive]:
        """Return the answer where it is known, the question where it has come as a whole.

        And what the route is to receive where it has not.
        """
        message = await receive()
        if message["type"] != "http.request" or message.get("more_body") or call.caller is None:
            return None, replayed(message, receive)
        name, body = path[len(_BEFORE) : -len(_AFTER)], message["body"]
        alias = call.caller.tenant, name, blake2b(body, digest_size=20).digest()
        answer, missed = await self._found(alias, body)
        return answer or Question(alias, body, missed), receive

    async def answer(self, question: Question, deadline: float) -> SearchAnswer:
        """Work an answer out, and remember what its bytes lead to; raises TriptychError."""
        tenant, name, _ = question.alias
        search = partial(self._searches.search, missed=question.missed)
        body = read_as(SearchBody, question.body, self._depth)
        run = self._pool.run if needs_model(body) else self._lane.run
        found = await run(deadline, search, tenant, name, body, {})
        if found.key is not None:
            self._keys[question.alias] = found.key
        return found

    def close(self) -> None:
        """Finish what waits."""
        self._lane.close()

    async def _found(self, alias: Alias, data: bytes) -> tuple[Answer | None, bytes | None]:
        """Return the answer where somebody has it, and the key that it was looked for by."""
        answers = self._catalog.peek(alias[0], alias[1])
        if answers is None:
            return None, None
        try:
            known = self._keys.get(alias)
            if known is None or known.generation != answers.collection.generation:
                known = self._read(answers, data) if answers.has_far else None
            if known is None:
                return None, None
            found = await _remembered(answers, known)
            if found is not None:
                self._keys[alias] = known
            return found, known.key
        except TriptychError:  # no search, or closed meanwhile: the long way knows what is wrong
            return None, None

    def _read(self, answers: AnswerCache, data: bytes) -> AnswerKey | None:
        """Return what these bytes lead to, where anybody has it."""
        return self._searches.known(answers, read_as(SearchBody, data, self._depth))


async def _remembered(answers: AnswerCache, known: AnswerKey) -> Answer | None:
    body = answers.near(known.key)
    found = await answers.far(known.key) if body is None else Answer(body, MEMORY)
    if found is not None and answers.asked is not None and known.question is not None:
        answers.asked(known.question)
    return found


def replayed(message: Message, receive: Receive) -> Receive:
    """Return a `receive` that begins with `message`."""
    waiting: list[Message] = [message]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
