"""One suite for every cache: what `Cache` promises."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, given, settings

from triptych.cache.base import Cache, CacheHit
from triptych.cache.keys import answer_prefix, digest, embedding_prefix

KEYS = [answer_prefix("t", name) + b"g:" + digest(at) for name in "ab" for at in range(3)]
CALLS = st.one_of(
    st.tuples(
        st.just("put"),
        st.lists(st.tuples(st.sampled_from(KEYS), st.binary(max_size=40)), max_size=4),
    ),
    st.tuples(st.just("get"), st.lists(st.sampled_from(KEYS), max_size=5)),
    st.tuples(st.just("delete"), st.lists(st.sampled_from(KEYS), max_size=2)),
    st.tuples(st.just("purge"), st.sampled_from("ab")),
)


class CacheSuite:
    """A subclass gives the fixture `cache`, empty, with room for all that is put here."""

    @pytest.fixture
    def cache(self) -> Any:
        raise NotImplementedError

    def test_it_is_a_cache(self, cache: Cache) -> None:
        assert isinstance(cache, Cache)

    def test_values_come_back_in_the_order_of_the_keys(self, cache: Cache) -> None:
        values = [b"", b"\0\xff\r\n", b"x" * 100_000, b"$-1\r\n"]
        keys = KEYS[:4]
        cache.put_many(list(zip(keys, values, strict=True)))
        asked = [keys[2], KEYS[5], keys[0], keys[2], keys[3], keys[1]]
        assert cache.get_many(asked) == [
            values[2],
            None,
            values[0],
            values[2],
            values[3],
            values[1],
        ]
        assert cache.get_many([]) == []

    def test_the_last_value_stays(self, cache: Cache) -> None:
        cache.put_many([(KEYS[0], b"1"), (KEYS[0], b"2")])
        assert cache.get_many(KEYS[:1]) == [b"2"]
        cache.put_many([(KEYS[0], b"3")])
        assert cache.get_many(KEYS[:1]) == [b"3"]

    def test_what_was_found_names_a_tier_that_has_counters(self, cache: Cache) -> None:
        assert cache.find(KEYS[0]) is None
        cache.put_many([(KEYS[0], b"1")])
        found = cache.find(KEYS[0])
        assert found is not None and found.value == b"1"
        assert cache.stats()[found.tier].hits == 1
        assert cache.stats()[found.tier].misses == 1
        assert cache.stats()[found.tier].hit_rate == 0.5

    def test_what_is_near_is_what_was_put_or_nothing(self, cache: Cache) -> None:
        cache.put_many([(KEYS[0], b"1")])
        assert cache.near(KEYS[0]) in (b"1", None)
        assert cache.near(KEYS[1]) is None

    def test_what_is_far_is_what_was_put_or_nothing(self, cache: Cache) -> None:
        many = [digest(at) for at in range(300)]
        cache.put_many([(key, key + b"!") for key in many])

        async def ask() -> list[CacheHit | None]:
            found = await asyncio.gather(*map(cache.far, [*many, KEYS[0]]))
            cache.close()
            await asyncio.sleep(0.01)
            return [*found, await cache.far(many[0])]

        *found, unknown, closed = asyncio.run(ask())
        assert unknown is None and closed is None and not cache.has_far
        if "redis" in cache.stats():
            assert [one and one.value for one in found] == [key + b"!" for key in many]
            assert {one.tier for one in found if one} == {"redis"}
        else:
            assert found == [None] * 300

    def test_a_purge_takes_what_begins_so_but_not_what_is_kept(self, cache: Cache) -> None:
        old, new = (answer_prefix("t", "a") + name for name in (b"old:", b"new:"))
        other, embedding = answer_prefix("t", "b") + b"old:", embedding_prefix("t")
        keys = [start + b"1" for start in (old, new, other, embedding)]
        cache.put_many([(key, b"x") for key in keys])
        assert cache.purge(answer_prefix("t", "a"), keep=new) >= 1
        assert cache.get_many(keys) == [None, b"x", b"x", b"x"]
        cache.purge(answer_prefix("t", "a"))
        assert cache.get_many(keys) == [None, None, b"x", b"x"]

    def test_a_purge_takes_letters_as_they_are(self, cache: Cache) -> None:
        cache.put_many([(b"a*c:1", b"x"), (b"abc:1", b"y"), (b"a[b]:1", b"z"), (b"ab:1", b"w")])
        cache.purge(b"a*c")
        cache.purge(b"a[b]")
        assert cache.get_many([b"a*c:1", b"abc:1", b"a[b]:1", b"ab:1"]) == [None, b"y", None, b"w"]

    def test_threads_get_what_was_put(self, cache: Cache) -> None:
        wrong: list[Any] = []

        def work(name: int) -> None:
            for at in range(50):
                key = digest(name, at % 7)
                cache.put_many([(key, key + b"!")])
                if cache.get_many([key]) not in ([key + b"!"], [None]):
                    wrong.append(key)

        threads = [threading.Thread(target=work, args=(name % 3,)) for name in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong

    def test_any_order_of_calls_equals_a_dict(self, cache: Cache) -> None:
        shared = settings(
            max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
        )

        @shared
        @given(st.lists(CALLS, max_size=12))
        def run(calls: list[tuple[str, Any]]) -> None:
            cache.purge(b"")
            expected: dict[bytes, bytes] = {}
            for call, what in calls:
                if call == "put":
                    cache.put_many(what)
                    expected |= dict(what)
                elif call == "delete":
                    cache.delete_many(what)
                    expected = {k: v for k, v in expected.items() if k not in what}
                elif call == "purge":
                    prefix = answer_prefix("t", what)
                    cache.purge(prefix)
                    expected = {k: v for k, v in expected.items() if not k.startswith(prefix)}
                else:
                    assert cache.get_many(what) == [expected.get(key) for key in what]

        run()

    def test_after_closing_all_is_a_miss(self, cache: Cache) -> None:
        cache.put_many([(KEYS[0], b"1")])
        cache.close()
        cache.close()
        assert cache.get_many([KEYS[0]]) == [None]
        cache.put_many([(KEYS[0], b"2")])
        assert cache.find(KEYS[0]) is None
