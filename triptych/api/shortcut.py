"""Searches that are known by their very bytes, answered ahead of routing and parsing.

The bytes of a body lead to the key of the answer that they once led to; the answer itself lies in
the cache, under the collection's generation, like all others. So a write ends it at once, and a
body that means the same in other bytes takes the long way once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from hashlib import blake2b
from typing import Any, TypeAlias

from cachetools import LRUCache

from triptych.api.asking import Known
from triptych.api.call import Call
from triptych.api.catalog import Catalog
from triptych.errors import TriptychError

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]

_BEFORE = "/v1/collections/"
_AFTER = "/search"
_LONGEST = 16 * 2**10  # bytes of a body that is remembered
_KEPT = 20_000


class Shortcut:
    """Remembers which bytes led to which answer. For one event loop."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._keys: LRUCache[tuple[str, str, bytes], Known] = LRUCache(_KEPT)

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

    async def look(self, path: str, call: Call, receive: Receive) -> tuple[bytes | None, Receive]:
        """Return the answer where it is known, and what the route is to receive where it is not."""
        message = await receive()
        if message["type"] != "http.request" or message.get("more_body"):
            return None, _again(message, receive)
        name = path[len(_BEFORE) : -len(_AFTER)]
        tenant = call.caller.tenant if call.caller is not None else ""
        known = (tenant, name, blake2b(message["body"], digest_size=20).digest())
        call.alias = known
        return self._known(known), _again(message, receive)

    def learn(self, alias: tuple[str, str, bytes], known: Known) -> None:
        """Remember that these bytes led to this answer."""
        self._keys[alias] = known

    def _known(self, alias: tuple[str, str, bytes]) -> bytes | None:
        found = self._keys.get(alias)
        if found is None:
            return None
        generation, key, question = found
        answers = self._catalog.peek(alias[0], alias[1])
        try:
            if answers is None or answers.collection.generation != generation:
                return None
            body = answers.near(key)
            if body is not None and question is not None and answers.asked is not None:
                answers.asked(question)
            return body
        except TriptychError:  # closed meanwhile, say: the long way knows what is wrong
            return None


def _again(message: Message, receive: Receive) -> Receive:
    """Return a `receive` that begins with `message`."""
    waiting: list[Message] = [message]

    async def again() -> Message:
        return waiting.pop() if waiting else await receive()

    return again
