"""When a tier is given up."""

from __future__ import annotations

import pytest

from triptych.cache.circuit_breaker import CircuitBreaker
from triptych.cache.sealed import Seal

QUICK, SLOW = 0.001, 0.03


def test_three_failures_open_it_once_and_healing_begins_anew() -> None:
    breaker = CircuitBreaker()
    assert [breaker.failed() for _ in range(4)] == [False, False, True, False]
    assert breaker.is_open
    breaker.heal()
    assert not breaker.is_open
    assert [breaker.failed() for _ in range(3)] == [False, False, True]


def opened(breaker: CircuitBreaker) -> CircuitBreaker:
    while not breaker.is_open:
        breaker.failed()
    return breaker


def test_pauses_double_also_from_one_opening_to_the_next() -> None:
    now = [100.0]
    breaker = opened(CircuitBreaker(clock=lambda: now[0]))
    assert [breaker.pause() for _ in range(2)] == [0.5, 1.0]
    for pause in (2.0, 4.0, 8.0, 15.0, 15.0):  # well for ten seconds each time
        breaker.heal()
        now[0] += 10
        assert opened(breaker).pause() == pause


def test_who_stayed_well_for_as_long_as_the_longest_pause_is_tried_soon() -> None:
    now = [100.0]
    breaker = opened(CircuitBreaker(clock=lambda: now[0]))
    assert [breaker.pause() for _ in range(3)] == [0.5, 1.0, 2.0]
    breaker.heal()
    now[0] += 16
    assert opened(breaker).pause() == 0.5
    now[0] += 60  # open all the while
    assert breaker.pause() == 1.0


@pytest.mark.parametrize(("every", "opens"), [(20, True), (50, True), (150, False)])
def test_more_failures_than_the_p99_can_hide(every: int, opens: bool) -> None:
    breaker = CircuitBreaker()
    for at in range(1, 10_000):
        breaker.failed() if at % every == 0 else breaker.succeeded(QUICK)
    assert breaker.is_open == opens


def test_slowness_opens_it_and_a_hiccup_does_not() -> None:
    breaker = CircuitBreaker()
    for at in range(1_000):
        assert not breaker.succeeded(SLOW if at % 10 < 3 else QUICK)
    opened = [breaker.succeeded(SLOW) for _ in range(20)]
    assert opened.count(True) == 1 and breaker.is_open


@pytest.mark.parametrize("secret", [b"", b"s", b"long" * 100])
def test_a_seal_opens_what_it_closed_under_that_key(secret: bytes) -> None:
    seal = Seal(secret)
    sealed = seal.close(b"key", b"value")
    assert seal.open(b"key", sealed) == b"value"
    assert seal.open(b"ke", seal.close(b"ke", b"yvalue")) == b"yvalue"
    assert seal.open(b"ke", sealed) is None
    assert seal.open(b"ke", seal.close(b"key", b"value")) is None
    for at in range(len(sealed)):
        broken = bytearray(sealed)
        broken[at] ^= 1
        assert seal.open(b"key", bytes(broken)) is None
        assert seal.open(b"key", sealed[:at]) is None
    assert seal.open(b"key", sealed + b"x") is None
    assert seal.open(b"key", None) is None and seal.open(b"key", [sealed]) is None
    assert Seal(b"another").open(b"key", sealed) is None


def test_where_the_key_ends_counts() -> None:
    seal = Seal()
    moved = seal.close(b"ab", b"c")[:20] + b"bc"
    assert seal.open(b"a", moved) is None
    assert seal.open(b"a", seal.close(b"a1:", b"x")[:20] + b"x") is None
