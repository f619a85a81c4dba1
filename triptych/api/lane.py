"""Short work off the event loop: one thread works off all that has come, in one go.

To hand one question to a thread and its answer back takes as long as to find what is near to a
vector, and threads that do so at once take the interpreter from each other. So answers go back
together, and another thread joins only where nothing gets done.
"""

from __future__ import annotations

import asyncio
import contextvars
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple, ParamSpec, TypeAlias, TypeVar

from triptych.api.pool import Pool, soon
from triptych.deadline import within
from triptych.errors import TimedOut

P = ParamSpec("P")
T = TypeVar("T")

_STUCK = 0.02  # seconds in which nothing gets done, after which another thread joins
_KEPT = 0.005  # seconds for which an answer may wait for others


class _Work(NamedTuple):
    call: Callable[[], Any]
    future: asyncio.Future[Any]


_Done: TypeAlias = tuple[asyncio.Future[Any], Any, BaseException | None]


class Lane:
    """Beside `pool`, whose places its work takes, so that both together are bounded."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._threads = ThreadPoolExecutor(pool.size, thread_name_prefix="triptych-lane")
        self._waiting: deque[_Work] = deque()
        self._workers = 0
        self._num_done = 0  # by all workers; a count that is lost to a race does not matter
        self._watch: asyncio.TimerHandle | None = None

    async def run(
        self, deadline: float, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Return what `work` returns; `deadline` is a value of time.monotonic().

        Raises Overloaded where too many wait, TimedOut. What still waits then is not begun.
        """
        self._pool.enter()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        future.add_done_callback(lambda _: self._pool.leave())

        def timed() -> T:
            with within(deadline - time.monotonic()):
                return work(*args, **kwargs)

        self._waiting.append(_Work(partial(contextvars.copy_context().run, timed), future))
        if not self._workers:
            self._join(loop)
        elif self._watch is None:
            self._look_later(loop)
        timer = asyncio.timeout(max(deadline - time.monotonic(), 0))
        try:
            async with timer:
                return await future
        except TimeoutError:
            if not timer.expired():
                raise  # the work's own
            raise TimedOut("The answer took longer than the request may.", retry_after=1) from None

    def close(self) -> None:
        """Finish what waits."""
        self._threads.shutdown(wait=True)

    def _join(self, loop: asyncio.AbstractEventLoop) -> None:
        self._workers += 1
        self._threads.submit(self._work_off, loop)

    def _look_later(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watch = loop.call_later(_STUCK, self._look, loop, self._num_done)

    def _look(self, loop: asyncio.AbstractEventLoop, num_done: int) -> None:
        self._watch = None
        if self._waiting:
            if num_done == self._num_done and self._workers < self._pool.size:
                self._join(loop)
            self._look_later(loop)

    def _work_off(self, loop: asyncio.AbstractEventLoop) -> None:
        done: list[_Done] = []
        since = time.monotonic()
        while self._waiting:
            try:
                one = self._waiting.popleft()
            except IndexError:  # another worker was faster
                break
            if not one.future.done():
                done.append((one.future, *_outcome(one)))
                self._num_done += 1
            if (now := time.monotonic()) > since + _KEPT:
                soon(loop, partial(_deliver, done))
                done, since = [], now
        soon(loop, partial(self._leave, loop, done))

    def _leave(self, loop: asyncio.AbstractEventLoop, done: list[_Done]) -> None:
        self._workers -= 1
        _deliver(done)
        if self._waiting and not self._workers:
            self._join(loop)  # it came as the last one left


def _outcome(one: _Work) -> tuple[Any, BaseException | None]:
    try:
        return one.call(), None
    except BaseException as error:
        return None, error


def _deliver(done: list[_Done]) -> None:
    for future, value, error in done:
        if future.done():  # given up meanwhile
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)
