"""Of many who want the same, one works."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from triptych.cache.single_flight import SingleFlight
from triptych.cache.single_flight_async import fly
from triptych.errors import TimedOut


def at_once(*works: Callable[[], Any]) -> list[Any]:
    """Run all in threads that begin together; return values, or the exceptions."""
    begin = threading.Barrier(len(works))

    def run(work: Callable[[], Any]) -> Any:
        begin.wait()
        try:
            return work()
        except BaseException as error:
            return error

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result(10) for future in [pool.submit(run, work) for work in works]]


class Asked(SingleFlight[Any, Any]):
    """Lets who works wait until so many have asked: a thread may take its time to begin."""

    def __init__(self) -> None:
        super().__init__()
        self._num = 0
        self._changed = threading.Condition()

    def join(self, key: Any) -> Future[Any] | None:
        found = super().join(key)
        with self._changed:
            self._num += 1
            self._changed.notify_all()
        return found

    def wait(self, num: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: self._num >= num, 10)


def test_one_computes_for_all_and_the_next_computes_again() -> None:
    flight = Asked()
    calls: list[int] = []

    def compute() -> int:
        calls.append(1)
        flight.wait(20)
        return len(calls)

    assert at_once(*[lambda: flight.do("a", compute)] * 20) == [1] * 20
    assert flight.do("a", compute) == 2
    assert flight.do("b", compute) == 3


def test_an_error_reaches_all_and_is_forgotten() -> None:
    flight: SingleFlight[str, int] = SingleFlight()

    def fail() -> int:
        time.sleep(0.05)
        raise ValueError("no")

    found = at_once(*[lambda: flight.do("a", fail)] * 5)
    assert all(isinstance(one, ValueError) for one in found)
    assert flight.do("a", lambda: 1) == 1


def test_who_waits_for_one_that_was_interrupted_works_himself() -> None:
    flight: SingleFlight[str, int] = SingleFlight()
    begun = threading.Event()

    def interrupted() -> int:
        begun.set()
        time.sleep(0.05)
        raise KeyboardInterrupt

    def later() -> int:
        begun.wait()
        return flight.do("a", lambda: 7)

    found = at_once(lambda: flight.do("a", interrupted), later, later)
    assert isinstance(found[0], KeyboardInterrupt) and found[1:] == [7, 7]


def test_whose_time_is_over_ends_nobody_elses() -> None:
    flight: SingleFlight[str, int] = SingleFlight()
    begun = threading.Event()

    def hurried() -> int:
        begun.set()
        time.sleep(0.05)
        raise TimedOut("The deadline has passed.", retry_after=1)

    def later() -> int:
        begun.wait()
        return flight.do("a", lambda: 7)

    found = at_once(lambda: flight.do("a", hurried), later, later)
    assert isinstance(found[0], TimedOut) and found[1:] == [7, 7]

    async def run() -> list[Any]:
        async def late() -> int:
            await asyncio.sleep(0.01)
            raise TimedOut("The deadline has passed.", retry_after=1)

        async def soon() -> int:
            return 7

        asked = [fly(flight, "b", late), fly(flight, "b", soon)]
        return await asyncio.gather(*asked, return_exceptions=True)

    found = asyncio.run(run())
    assert isinstance(found[0], TimedOut) and found[1] == 7


def test_the_error_of_another_thing_in_the_same_batch_is_not_shared() -> None:
    flight: SingleFlight[str, int] = SingleFlight()
    begun = threading.Event()

    def compute(keys: list[str]) -> dict[str, int]:
        begun.set()
        time.sleep(0.05)
        if "bad" in keys:
            raise ValueError("bad")
        return dict.fromkeys(keys, 7)

    def later() -> dict[str, int]:
        begun.wait()
        return flight.do_many(["good"], compute)

    found = at_once(lambda: flight.do_many(["good", "bad"], compute), later)
    assert isinstance(found[0], ValueError) and found[1] == {"good": 7}


def test_a_forked_child_waits_for_no_thread_of_the_parent() -> None:
    flight: SingleFlight[str, int] = SingleFlight()
    begun, done = threading.Event(), threading.Event()

    def compute() -> int:
        begun.set()
        done.wait(10)
        return 1

    with ThreadPoolExecutor(1) as pool:
        leading = pool.submit(flight.do, "a", compute)
        begun.wait()
        child = os.fork()
        if child == 0:
            signal.alarm(5)
            os._exit(0 if flight.do("a", lambda: 7) == 7 else 1)
        assert os.waitpid(child, 0)[1] == 0
        done.set()
        assert leading.result(5) == 1


def test_batches_that_want_each_others_do_not_block() -> None:
    flight = Asked()
    computed: list[int] = []

    def compute(keys: list[int]) -> dict[int, int]:
        flight.wait(10)
        computed.extend(keys)
        return {key: key * key for key in keys}

    wanted = [[1, 2, 3, 3], [3, 2, 1], [2, 4], [4, 1]]
    found = at_once(*[lambda keys=keys: flight.do_many(keys, compute) for keys in wanted])
    for keys, values in zip(wanted, found, strict=True):
        assert values == {key: key * key for key in keys}
    assert sorted(computed) == [1, 2, 3, 4]
    assert flight.do_many([], compute) == {}


def test_a_batch_that_leaves_one_out_holds_nobody_up() -> None:
    flight: SingleFlight[int, int] = SingleFlight()
    with pytest.raises(KeyError):
        flight.do_many([1, 2], lambda keys: {1: 1})
    assert flight.do(2, lambda: 5) == 5


def test_coroutines_share_and_one_that_is_cancelled_stops_nobody() -> None:
    flight: SingleFlight[str, int] = SingleFlight()
    calls: list[int] = []

    async def compute() -> int:
        calls.append(1)
        await asyncio.sleep(0.05)
        return len(calls)

    async def run() -> None:
        tasks = [asyncio.ensure_future(fly(flight, "a", compute)) for _ in range(10)]
        await asyncio.sleep(0.01)
        tasks[5].cancel()  # it waits
        tasks[0].cancel()  # it works
        done = await asyncio.gather(*tasks, return_exceptions=True)
        cancelled = [isinstance(one, asyncio.CancelledError) for one in done]
        assert cancelled == [at in (0, 5) for at in range(10)]
        assert {one for one in done if isinstance(one, int)} == {2}

        async def fail() -> int:
            await asyncio.sleep(0.01)
            raise ValueError("no")

        failed = await asyncio.gather(
            *[fly(flight, "b", fail) for _ in range(3)], return_exceptions=True
        )
        assert all(isinstance(one, ValueError) for one in failed)

    asyncio.run(run())
