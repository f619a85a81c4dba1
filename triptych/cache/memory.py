"""Tier 1: in the process, bounded in bytes, what is seldom asked for out first.

The two LRU lists are those of cachetools, because it is small, pure Python, kept by the same hands
for ten years, and weighs its values; functools.lru_cache counts entries and can neither expire nor
purge them, theine has TinyLFU and counts entries too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from triptych.cache.base import CacheHit, TierStats
from triptych.cache.tinylfu import TinyLfu
from triptych.spans import span

NAME = "memory"

_OVERHEAD = 650  # bytes that Python spends on an entry beside its value, the key too; measured


class _Entry(NamedTuple):
    value: bytes
    until: float


class MemoryCache:
    """At most `max_bytes` of values and what Python spends on them, each for `ttl` seconds."""

    has_far = False

    def __init__(
        self,
        max_bytes: int,
        *,
        ttl: float = 3600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._held: TinyLfu[_Entry] = TinyLfu(max_bytes, _weight)
        self._ttl = ttl
        self._clock = clock
        self._lock = threading.Lock()
        self._stats = TierStats()
        self._closed = False

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with span("cache memory get") as seen:
            values = [self.near(key) for key in keys]
            seen.set_attribute("hits", sum(value is not None for value in values))
        return values

    def find(self, key: bytes) -> CacheHit | None:
        (value,) = self.get_many([key])
        return None if value is None else CacheHit(value, NAME)

    def near(self, key: bytes) -> bytes | None:
        with self._lock:
            entry = self._held.get(key)
            if entry is not None:
                if entry.until > self._clock():
                    self._stats.hits += 1
                    return entry.value
                self._held.pop(key)
            self._stats.misses += 1
            return None

    async def far(self, key: bytes) -> CacheHit | None:
        return None

    def put_many(self, items: Sequence[tuple[bytes, bytes]], *, ttl: float | None = None) -> None:
        until = self._clock() + (self._ttl if ttl is None else min(ttl, self._ttl))
        with self._lock:
            for key, value in items:
                if not self._closed:
                    self._held.put(key, _Entry(value, until))
                    self._stats.puts += 1

    def delete_many(self, keys: Sequence[bytes]) -> None:
        with self._lock:
            for key in keys:
                self._held.pop(key)

    def purge(self, prefix: bytes, *, keep: bytes | None = None) -> int:
        with self._lock:
            gone = [
                key
                for key in self._held
                if key.startswith(prefix) and not (keep and key.startswith(keep))
            ]
            for key in gone:
                self._held.pop(key)
        return len(gone)

    def stats(self) -> Mapping[str, TierStats]:
        with self._lock:
            now = replace(self._stats, items=len(self._held), num_bytes=self._held.weight)
        return {NAME: now}

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self._held.clear()


def _weight(entry: _Entry) -> int:
    return len(entry.value) + _OVERHEAD
