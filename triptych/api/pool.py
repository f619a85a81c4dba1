"""Blocking work off the event loop: so many threads, so many that wait, and no longer than that."""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from triptych.deadline import within
from triptych.errors import Overloaded, TimedOut

P = ParamSpec("P")
T = TypeVar("T")


class Pool:
    """Threads that run requests, in the order in which they came."""

    def __init__(self, *, size: int, queue: int) -> None:
        self.size, self.queue = size, queue
        self._threads = ThreadPoolExecutor(size, thread_name_prefix="triptych")
        self._taken = 0

    @property
    def busy(self) -> int:
        """How many are worked on."""
        return min(self._taken, self.size)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return max(self._taken - self.size, 0)

    async def run(
        self, deadline: float, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what `work` returns; `deadline` is a value of time.monotonic().

        Raises Overloaded where too many wait, TimedOut. What has begun is then finished all the
        same, for a thread cannot be stopped, but what still waits is not begun.
        """
        self.enter()

        def timed() -> T:
            with within(deadline - time.monotonic()):
                return work(*args, **kwargs)

        call = partial(contextvars.copy_context().run, timed)
        future = self._threads.submit(call)
        loop = asyncio.get_running_loop()
        # not when the caller gives up: the thread is taken until the work is done
        future.add_done_callback(lambda _: soon(loop, self.leave))
        timer = asyncio.timeout(max(deadline - time.monotonic(), 0))
        try:
            async with timer:
                return await asyncio.wrap_future(future)
        except TimeoutError:
            if not timer.expired():
                raise  # the work's own
            future.cancel()
            raise TimedOut("The answer took longer than the request may.", retry_after=1) from None

    def enter(self) -> None:
        """Take a place; raises Overloaded where there is none."""
        if self._taken >= self.size + self.queue:
            raise Overloaded(
                f"{self.queue} requests are waiting already.",
                retry_after=1,
                hint="Try again later.",
            )
        self._taken += 1

    def leave(self) -> None:
        """Give a place back."""
        self._taken -= 1

    def close(self) -> None:
        """Finish what runs and what waits."""
        self._threads.shutdown(wait=True)


def soon(loop: asyncio.AbstractEventLoop, call: Callable[[], object]) -> None:
    """Have the loop of another thread call, unless it is over."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
