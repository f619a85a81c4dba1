"""The answer cache for an event loop, which waits for no Redis and no search."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from triptych.cache.memory import NAME as MEMORY
from triptych.cache.single_flight_async import fly
from triptych.retrieval.answering.answer_cache import SEARCH, Answer, AnswerCache


async def get_or_compute(
    answers: AnswerCache, key: bytes, compute: Callable[[], Awaitable[bytes]]
) -> Answer:
    """As `AnswerCache.get_or_compute`; threads and coroutines join each other's searches."""
    body = answers.near(key)
    if body is not None:
        return Answer(body, MEMORY)
    found = await asyncio.to_thread(answers.find, key)
    if found is not None:
        return found

    async def computed() -> bytes:
        body = answers.near(key)  # who led before may have landed since
        if body is None:
            body = await compute()
            await asyncio.to_thread(answers.put, key, body)
        return body

    return Answer(await fly(answers.flight, key, computed), SEARCH)
