"""The pool that requests are worked on in, and the moment at which their time runs out."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from triptych.api.pool import Pool
from triptych.errors import TimedOut


def test_work_that_ends_as_the_time_runs_out_is_late_like_any_other() -> None:
    async def ask() -> None:
        over = threading.Event()
        running = asyncio.ensure_future(pool.run(time.monotonic() + 0.005, over.set))
        await asyncio.sleep(0)
        # the loop is busy past the end: it learns of the work and of the time at once
        over.wait()
        time.sleep(0.02)
        with pytest.raises(TimedOut):
            await running

    pool = Pool(size=1, queue=8)
    try:
        for _ in range(20):
            asyncio.run(ask())
    finally:
        pool.close()


def test_a_timeout_of_the_works_own_is_passed_on() -> None:
    def work() -> None:
        raise TimeoutError("of a socket, say")

    pool = Pool(size=1, queue=8)
    try:
        with pytest.raises(TimeoutError, match="of a socket"):
            asyncio.run(pool.run(time.monotonic() + 30, work))
    finally:
        pool.close()
