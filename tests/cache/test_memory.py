"""Tier 1: bounded in bytes and in time."""

from __future__ import annotations

import tracemalloc

from triptych.cache.memory import MemoryCache


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_what_is_asked_for_stays() -> None:
    cache = MemoryCache(2300)
    for at in range(3):
        cache.put_many([(b"%d" % at, b"x" * 100)])
    for _ in range(3):
        assert cache.near(b"0") and cache.near(b"2")
    cache.put_many([(b"3", b"x" * 100)])  # nobody has asked for it more often than for any
    assert cache.get_many([b"0", b"2"]) == [b"x" * 100] * 2
    for _ in range(9):
        cache.put_many([(b"4", b"x" * 100)])
    assert cache.near(b"4") and cache.near(b"0") and cache.near(b"2")
    stats = cache.stats()["memory"]
    assert (stats.items, stats.num_bytes) == (3, 3 * 750)


def test_what_does_not_fit_leaves_nothing_older_behind() -> None:
    cache = MemoryCache(2000)
    cache.put_many([(b"a", b"old"), (b"b", b"other")])
    cache.put_many([(b"a", b"x" * 3000)])
    assert cache.get_many([b"a", b"b"]) == [None, b"other"]


def test_values_are_kept_for_their_time() -> None:
    clock = Clock()
    cache = MemoryCache(10_000, ttl=10.0, clock=clock)
    cache.put_many([(b"a", b"1")])
    cache.put_many([(b"b", b"2")], ttl=3.0)
    cache.put_many([(b"c", b"3")], ttl=99.0)  # not longer than the cache keeps anything
    clock.now = 2.9
    assert cache.get_many([b"a", b"b", b"c"]) == [b"1", b"2", b"3"]
    clock.now = 3.0
    assert cache.get_many([b"a", b"b", b"c"]) == [b"1", None, b"3"]
    clock.now = 10.0
    assert cache.get_many([b"a", b"b", b"c"]) == [None] * 3
    assert cache.stats()["memory"].items == 0


def test_the_bound_is_of_the_memory_that_python_really_takes() -> None:
    tracemalloc.start()
    try:
        cache = MemoryCache(2_000_000)
        for at in range(5_000):
            cache.put_many([(b"tr1:a:%020d:%020d:%040d" % (at, at, at), bytes(100))])
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.6 * 2_000_000 < taken < 1.25 * 2_000_000
