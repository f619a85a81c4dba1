"""Searches that are known by their very bytes, answered ahead of routing and parsing.

The bytes of a body lead to the key of the answer that they once led to; the answer itself lies in
the cache, under the collection's generation, like all others. So a write ends it at once, and a
body that means the same in other bytes takes the long way once. Where other processes share a
cache, a body that is new to this one is read for its key: they may know the answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import blake2b
from typing import Any, TypeAlias

from cachetools import LRUCache

from triptych.api.asking import Asking, Known
from triptych.api.bodies import parse_json, validated
from triptych.api.call import Call
from triptych.api.catalog import Catalog
from triptych.api.schemas import SearchBody
from triptych.cache.memory import NAME as MEMORY
from triptych.errors import TriptychError
from triptych.retrieval.answering.answers import Answer, Answers

Alias: TypeAlias = tuple[str, str, bytes]
"""A tenant, a collection, and a hash of a body's bytes."""

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]

_BEFORE = "/v1/collections/"
_AFTER = "/search"
_LONGEST = 16 * 2**10  # bytes of a body that is remembered
_KEPT = 20_000


class Shortcut:
    """Remembers which bytes led to which answer. For one event loop."""

    def __init__(self, catalog: Catalog, *, asking: Asking, depth: int) -> None:
        self._catalog, self._asking, self._depth = catalog, asking, depth
        self._keys: LRUCache[Alias, Known] = LRUCache(_KEPT)

    @staticmethod
    def is_search(scope: MutableMapping[str, Any], headers: dict[bytes, bytes]) -> bool:
        """Whether the request may be one of those that are remembered."""
        path = scope["path"]
        return (
            scope["method"] == "POST"
            and path.endswith(_AFTER)
            and path.startswith(_BEFORE)
            and headers.get(b"content-type") == b"application/json"
            and len(length := headers.get(b"content-length", b"")) <= 5
            and length.isdigit()
            and 0 < int(length) <= _LONGEST
        )

    async def look(self, path: str, call: Call, receive: Receive) -> tuple[Answer | None, Receive]:
        """Return the answer where it is known, and what the route is to receive where it is not."""
        message = await receive()
        if message["type"] != "http.request" or message.get("more_body"):
            return None, replayed(message, receive)
        name = path[len(_BEFORE) : -len(_AFTER)]
        tenant = call.caller.tenant if call.caller is not None else ""
        call.alias = tenant, name, blake2b(message["body"], digest_size=20).digest()
        return await self._found(call.alias, message["body"]), replayed(message, receive)

    def learn(self, alias: Alias, known: Known) -> None:
        """Remember that these bytes led to this answer."""
        self._keys[alias] = known

    async def _found(self, alias: Alias, data: bytes) -> Answer | None:
        answers = self._catalog.peek(alias[0], alias[1])
        if answers is None:
            return None
        try:
            known = self._keys.get(alias)
            if known is not None and known.generation == answers.collection.generation:
                return await _remembered(answers, known)
            known = self._read(answers, data) if answers.has_far else None
            if known is None:
                return None
            found = await _remembered(answers, known)
            if found is not None:
                self._keys[alias] = known
            return found
        except TriptychError:  # no search, or closed meanwhile: the long way knows what is wrong
            return None

    def _read(self, answers: Answers, data: bytes) -> Known | None:
        """Return what these bytes lead to, where anybody has it."""
        return self._asking.known(
            answers, validated(SearchBody, parse_json(data, depth=self._depth))
        )


async def _remembered(answers: Answers, known: Known) -> Answer | None:
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
