"""Short work off the event loop: one thread works off all that has come, in one go.

To hand one question to a thread and its answer back takes as long as to find what is near to a
vector, and threads that do so at once take the interpreter from each other. So answers go back
together, and another thread joins only when the one is at one thing for long.
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

_STUCK = 0.02  # seconds at one thing: who needs longer is not waited for, another thread joins
_KEPT = 0.005  # seconds for which an answer may wait for others


class _Work(NamedTuple):
    call: Callable[[], Any]
    future: asyncio.Future[Any]


_Done: TypeAlias = tuple[asyncio.Future[Any], Any, BaseException | None]


class Lane:
    """Beside `pool`, whose places its work takes, so that both are bounded. For one event loop."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._threads = ThreadPoolExecutor(pool.size, thread_name_prefix="triptych-lane")
        self._waiting: deque[_Work] = deque()
        self._done: deque[_Done] = deque()
        self._joined = 0  # workers so far, which names the next
        self._begun: dict[int, float] = {}  # by worker, when it took what it is at
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

        def timed() -> T:
            with within(deadline - time.monotonic()):
                return work(*args, **kwargs)

        self._waiting.append(_Work(partial(contextvars.copy_context().run, timed), future))
        if self._are_stuck():
            self._join(loop)
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

    def _are_stuck(self) -> bool:
        """Whether nobody is there to take what waits soon."""
        late = time.monotonic() - _STUCK
        return len(self._begun) < self._pool.size and all(at < late for at in self._begun.values())

    def _join(self, loop: asyncio.AbstractEventLoop) -> None:
        self._joined += 1
        self._begun[self._joined] = time.monotonic()
        self._threads.submit(self._work_off, loop, self._joined)
        if self._watch is None:
            self._watch = loop.call_later(_STUCK, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watch = None
        self._deliver()  # what is done must not wait for what a worker is at
        if self._waiting and self._are_stuck():
            self._join(loop)
        if self._begun and self._watch is None:
            self._watch = loop.call_later(_STUCK, self._look, loop)

    def _work_off(self, loop: asyncio.AbstractEventLoop, worker: int) -> None:
        since = time.monotonic()
        while self._waiting:
            try:
                one = self._waiting.popleft()
            except IndexError:  # another worker was faster
                break
            self._done.append((one.future, *_outcome(one)))
            self._begun[worker] = now = time.monotonic()
            if now > since + _KEPT:
                soon(loop, self._deliver)
                since = now
        soon(loop, partial(self._leave, loop, worker))

    def _leave(self, loop: asyncio.AbstractEventLoop, worker: int) -> None:
        del self._begun[worker]
        self._deliver()
        if self._waiting and self._are_stuck():
            self._join(loop)  # it came as this one left

    def _deliver(self) -> None:
        while self._done:
            future, value, error = self._done.popleft()
            self._pool.leave()  # not when the caller gave up: a thread was at it until now
            if future.done():  # given up
                continue
            if error is None:
                future.set_result(value)
            else:
                future.set_exception(error)


def _outcome(one: _Work) -> tuple[Any, BaseException | None]:
    if one.future.done():  # given up while it waited
        return None, None
    try:
        return one.call(), None
    except BaseException as error:
        return None, error
