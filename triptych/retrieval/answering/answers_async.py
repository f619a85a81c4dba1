"""The answer cache for an event loop, which waits for no Redis and no search."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from triptych.cache.flight_async import fly
from triptych.cache.memory import NAME as MEMORY
from triptych.retrieval.answering.answers import SEARCH, Answer, Answers


async def get_or_compute(
    answers: Answers, key: bytes, compute: Callable[[], Awaitable[bytes]]
) -> Answer:
    """As `Answers.get_or_compute`; threads and coroutines join each other's searches."""
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
