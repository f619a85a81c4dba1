"""The lane beside the pool: short work, worked off together."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

import pytest

from triptych.api.lane import Lane
from triptych.api.pool import Pool
from triptych.api.schemas import SearchBody
from triptych.api.search_service import needs_model
from triptych.deadline import remaining
from triptych.errors import InvalidInput, Overloaded, TimedOut

LONG = 30.0


@pytest.fixture
def pool() -> Iterator[Pool]:
    made = Pool(size=4, queue=60)
    yield made
    made.close()


@pytest.fixture
def lane(pool: Pool) -> Iterator[Lane]:
    made = Lane(pool)
    yield made
    made.close()


def later(seconds: float = LONG) -> float:
    return time.monotonic() + seconds


def test_everybody_gets_an_own_answer_and_short_work_one_thread_at_a_time(
    lane: Lane, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("triptych.api.lane._STUCK", LONG)  # however busy the machine is
    at_work, most = 0, 0

    def work(number: int) -> int:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        time.sleep(0.0001)  # the others' turn, if there were any
        at_work -= 1
        return number

    async def often() -> None:
        for _ in range(20):
            asked = (lane.run(later(), work, number) for number in range(50))
            assert await asyncio.gather(*asked) == list(range(50))

    asyncio.run(often())
    assert most == 1
    assert pool.busy == 0


def test_who_is_held_up_holds_nobody_else_up(lane: Lane) -> None:
    async def ask() -> None:
        go_on = threading.Event()
        stuck = [asyncio.ensure_future(lane.run(later(), go_on.wait, LONG)) for _ in range(3)]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(lane.run(later(), lambda: "quick"), LONG / 2) == "quick"
        assert not any(one.done() for one in stuck)
        go_on.set()
        assert await asyncio.gather(*stuck) == [True] * 3

    asyncio.run(ask())


def test_an_answer_does_not_wait_for_who_is_held_up_after_it(lane: Lane) -> None:
    async def ask() -> None:
        go_on = threading.Event()
        quick = asyncio.ensure_future(lane.run(later(), lambda: "quick"))
        stuck = asyncio.ensure_future(lane.run(later(), go_on.wait, LONG))
        assert await asyncio.wait_for(quick, LONG / 2) == "quick"
        assert not stuck.done()
        go_on.set()
        assert await stuck

    async def often() -> None:
        for _ in range(20):
            await ask()

    asyncio.run(often())


@pytest.mark.alone
def test_beside_who_is_held_up_for_long_the_others_wait_for_nobody(lane: Lane) -> None:
    async def ask() -> float:
        go_on = threading.Event()
        stuck = asyncio.ensure_future(lane.run(later(), go_on.wait, LONG))
        await asyncio.sleep(0.1)
        took = []
        for number in range(30):
            began = time.perf_counter()
            assert await lane.run(later(), abs, -number) == number
            took.append(time.perf_counter() - began)
        go_on.set()
        assert await stuck
        return sorted(took)[15]

    assert asyncio.run(ask()) < 0.01


def test_what_waits_longer_than_it_may_is_late_and_never_begun(lane: Lane) -> None:
    async def ask() -> list[int]:
        go_on, begun, taken = threading.Event(), list[int](), list[int]()

        def hold(number: int) -> bool:
            taken.append(number)
            return go_on.wait(LONG)

        stuck = [asyncio.ensure_future(lane.run(later(), hold, n)) for n in range(4)]
        while len(taken) < 4:  # until all threads are
            await asyncio.sleep(0.01)
        with pytest.raises(TimedOut):
            await lane.run(later(0.05), begun.append, 1)
        go_on.set()
        await asyncio.gather(*stuck)
        await lane.run(later(), begun.append, 2)
        return begun

    assert asyncio.run(ask()) == [2]


def test_both_together_take_no_more_places_than_the_pool_has() -> None:
    async def ask() -> None:
        go_on = threading.Event()
        taken = [
            asyncio.ensure_future(beside.run(later(), go_on.wait, LONG)),
            asyncio.ensure_future(small.run(later(), go_on.wait, LONG)),
        ]
        await asyncio.sleep(0)
        with pytest.raises(Overloaded):
            await beside.run(later(), lambda: None)
        with pytest.raises(Overloaded):
            await small.run(later(), lambda: None)
        go_on.set()
        await asyncio.gather(*taken)
        while small.busy:  # a place is given back after the answer
            await asyncio.sleep(0.01)
        assert await beside.run(later(), lambda: "again") == "again"

    small = Pool(size=1, queue=1)
    beside = Lane(small)
    try:
        asyncio.run(ask())
    finally:
        beside.close()
        small.close()


def test_who_gives_up_frees_no_place_while_a_thread_is_at_his_work() -> None:
    async def ask() -> None:
        go_on = threading.Event()
        with pytest.raises(TimedOut):
            await beside.run(later(0.05), go_on.wait, LONG)
        with pytest.raises(Overloaded):
            await beside.run(later(), lambda: None)
        go_on.set()
        while small.busy:
            await asyncio.sleep(0.01)
        assert await beside.run(later(), lambda: "again") == "again"

    small = Pool(size=1, queue=0)
    beside = Lane(small)
    try:
        asyncio.run(ask())
    finally:
        beside.close()
        small.close()


@pytest.mark.parametrize(
    ("body", "asks"),
    [
        ({"vector": [1.0]}, False),
        ({"like": ["a", "b"]}, False),
        ({"parts": [{"vector": [1.0]}, {"id": "a"}], "minus": {"id": "b"}}, False),
        ({"query": "dog"}, True),
        ({"vector": [1.0], "minus": "dog"}, True),
        ({"like": "a", "parts": [{"text": "dog"}]}, True),
        ({"image": "data:image/png;base64,AA=="}, True),
        ({"like": "a", "minus": [{"image": "data:image/png;base64,AA=="}]}, True),
    ],
)
def test_only_what_is_embedded_waits_for_the_model(body: dict[str, Any], asks: bool) -> None:
    assert needs_model(SearchBody.model_validate(body)) is asks


def test_an_error_reaches_who_asked_for_it_and_nobody_else(lane: Lane) -> None:
    def work(number: int) -> int:
        if number % 3 == 0:
            raise InvalidInput(f"no {number}")
        return number

    async def ask() -> list[int | BaseException]:
        asked = (lane.run(later(), work, n) for n in range(9))
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(ask())
    assert [str(one) for one in answers[::3]] == ["no 0", "no 3", "no 6"]
    assert [one for at, one in enumerate(answers) if at % 3] == [1, 2, 4, 5, 7, 8]


def test_a_timeout_of_the_works_own_is_passed_on(lane: Lane) -> None:
    def work() -> None:
        raise TimeoutError("of a socket, say")

    with pytest.raises(TimeoutError, match="of a socket"):
        asyncio.run(lane.run(later(), work))


def test_work_knows_whose_it_is_and_how_long_it_may_take(lane: Lane) -> None:
    name: ContextVar[str] = ContextVar("name")

    async def ask(who: str) -> tuple[str, float]:
        name.set(who)
        left = await lane.run(later(7.0), lambda: (name.get(), remaining() or 0.0))
        assert 5.0 < left[1] <= 7.0
        return left

    async def both() -> list[str]:
        return [said for said, _ in await asyncio.gather(ask("a"), ask("b"))]

    assert asyncio.run(both()) == ["a", "b"]


def test_who_gives_up_gets_nothing_and_the_others_theirs(lane: Lane) -> None:
    async def ask() -> str:
        go_on = threading.Event()
        first = asyncio.ensure_future(lane.run(later(), go_on.wait, LONG))
        await asyncio.sleep(0)
        gone = asyncio.ensure_future(lane.run(later(), lambda: "nobody hears"))
        kept = asyncio.ensure_future(lane.run(later(), lambda: "kept"))
        await asyncio.sleep(0)
        gone.cancel()
        go_on.set()
        await first
        return await kept

    assert asyncio.run(ask()) == "kept"
