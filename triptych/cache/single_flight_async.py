"""Single flight for coroutines. Apart from the rest: asyncio takes long to import."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from triptych.cache.single_flight import Abandoned, Key, SingleFlight, Value


async def fly(
    flight: SingleFlight[Key, Value], key: Key, compute: Callable[[], Awaitable[Value]]
) -> Value:
    """As `flight.do`, without holding up the event loop; threads and loops may share a flight."""
    while (future := flight.join(key)) is not None:
        try:
            # shielded: who gives up waiting cancels nobody else
            return await asyncio.shield(asyncio.wrap_future(future))
        except Abandoned:
            continue
    try:
        value = await compute()
    except BaseException as error:
        flight.fail([key], error)
        raise
    flight.land({key: value})
    return value
