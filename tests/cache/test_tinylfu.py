"""Who stays."""

from __future__ import annotations

import hypothesis.strategies as st
import numpy as np
from cachetools import LRUCache
from hypothesis import given

from triptych.cache.tinylfu import TinyLfu


def hits(keys: list[bytes], *, room: int) -> tuple[float, float]:
    """Return the share that is found in the second half of a stream: ours, and LRU's."""
    ours: TinyLfu[int] = TinyLfu(room * 1000, lambda value: 1000)
    lru: LRUCache[bytes, int] = LRUCache(room)
    found = [0, 0]
    for at, key in enumerate(keys):
        if ours.get(key) is None:
            ours.put(key, 1)
        elif 2 * at >= len(keys):
            found[0] += 1
        if lru.get(key) is None:
            lru[key] = 1
        elif 2 * at >= len(keys):
            found[1] += 1
    assert len(ours) <= room
    half = len(keys) - len(keys) // 2
    return found[0] / half, found[1] / half


def zipf(count: int, *, distinct: int, seed: int, first: int = 0) -> list[bytes]:
    shares = 1.0 / np.arange(1, distinct + 1)
    drawn = np.random.default_rng(seed).choice(distinct, count, p=shares / shares.sum())
    return [b"%d" % (first + at) for at in drawn.tolist()]


def test_more_is_found_than_by_lru_and_nearly_all_that_can_be() -> None:
    ours, lru = hits(zipf(40_000, distinct=4_000, seed=1), room=200)
    best = (1.0 / np.arange(1, 201)).sum() / (1.0 / np.arange(1, 4_001)).sum()
    assert ours > lru + 0.05
    assert ours > best - 0.04


def test_a_scan_takes_no_room_from_what_is_asked_for() -> None:
    ours: TinyLfu[int] = TinyLfu(100 * 1000, lambda value: 1000)
    wanted = [b"%d" % at for at in range(90)]
    for _ in range(5):
        for key in wanted:
            if ours.get(key) is None:
                ours.put(key, 1)
    for at in range(1_000):
        ours.get(b"scan %d" % at)
        ours.put(b"scan %d" % at, 1)
    assert sum(ours.get(key) is not None for key in wanted) > 80


def test_of_what_is_wanted_as_often_the_lighter_stays() -> None:
    ours: TinyLfu[int] = TinyLfu(100_000, lambda value: value)
    rng = np.random.default_rng(0)
    for at in rng.integers(0, 200, 20_000).tolist():  # the even ones weigh three times as much
        if ours.get(b"%d" % at) is None:
            ours.put(b"%d" % at, 500 if at % 2 else 1_500)
    held = [int(key) % 2 for key in ours]
    assert sum(held) > 0.9 * 100
    assert ours.weight > 90_000


def test_what_was_wanted_once_makes_room_for_what_is_wanted_now() -> None:
    old = zipf(15_000, distinct=2_000, seed=1)
    new = zipf(60_000, distinct=2_000, seed=2, first=10_000)
    ours, lru = hits(old + new, room=100)
    assert ours > lru


@given(
    st.lists(st.tuples(st.sampled_from("pgd"), st.integers(0, 9), st.integers(0, 60)), max_size=60)
)
def test_it_is_never_too_heavy_and_never_wrong(calls: list[tuple[str, int, int]]) -> None:
    ours: TinyLfu[bytes] = TinyLfu(100, len)
    last: dict[bytes, bytes] = {}
    for call, number, size in calls:
        key = b"%d" % number
        if call == "p":
            last[key] = bytes([number]) * (2 * size)
            ours.put(key, last[key])
        elif call == "d":
            ours.pop(key)
            last.pop(key, None)
        else:
            assert ours.get(key) in (last.get(key), None)
        held = list(ours)
        assert len(held) == len(set(held)) == len(ours)
        assert ours.weight == sum(len(last[key]) for key in held) <= 100
