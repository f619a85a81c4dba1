"""What a cache is: bytes under bytes, which may be gone at any time.

A cache is a copy (law 5): losing it costs time. So nothing here raises because of a tier that is
away, full or lying; what cannot be had is a miss, and what cannot be kept is dropped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple, Protocol, runtime_checkable


class CacheHit(NamedTuple):
    """A value, and the tier that it came of."""

    value: bytes
    tier: str


@dataclass(slots=True)
class TierStats:
    """Counters of one tier since its start."""

    hits: int = 0
    misses: int = 0
    puts: int = 0
    errors: int = 0  # what the tier could not do, and values that were not what was put
    seconds: float = 0.0  # waited for its answers
    items: int = 0  # held now, where the tier knows
    num_bytes: int = 0
    open: bool = False  # it is given up for now: every question is a miss, at once

    @property
    def hit_rate(self) -> float:
        """Hits among all that was asked for, 0..1."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0

    def as_dict(self) -> dict[str, float]:
        """Return every counter by name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


@runtime_checkable
class Cache(Protocol):
    """Threads may share one. Keys are made by `triptych.cache.keys`; see the promise above."""

    @property
    def has_far(self) -> bool:
        """Whether others hold what is not near, and can be asked at the moment."""

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return what is kept under each key, in order; None is a miss."""

    def put_many(self, items: Sequence[tuple[bytes, bytes]], *, ttl: float | None = None) -> None:
        """Keep values for at most `ttl` seconds (None: the cache's own); the last of equal keys
        stays."""

    def find(self, key: bytes) -> CacheHit | None:
        """Return the value and the tier that had it, None where none has."""

    def near(self, key: bytes) -> bytes | None:
        """Return what this process itself holds: it never waits, an event loop may ask."""

    async def far(self, key: bytes) -> CacheHit | None:
        """Return what others hold, which is near from then on; the event loop is not held up."""

    def delete_many(self, keys: Sequence[bytes]) -> None:
        """Drop these keys where they are."""

    def purge(self, prefix: bytes, *, keep: bytes | None = None) -> int:
        """Drop every key that begins with `prefix`, but none that begins with `keep`.

        Return how many are known to be gone. It looks at every key: not on a request's way.
        """

    def stats(self) -> Mapping[str, TierStats]:
        """Return the counters of each tier by its name."""

    def close(self) -> None:
        """Let go of connections and threads; afterwards all is a miss. Twice is harmless."""


class NoCache:
    """A cache that holds nothing."""

    has_far = False

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [None] * len(keys)

    def put_many(self, items: Sequence[tuple[bytes, bytes]], *, ttl: float | None = None) -> None:
        pass

    def find(self, key: bytes) -> CacheHit | None:
        return None

    def near(self, key: bytes) -> bytes | None:
        return None

    async def far(self, key: bytes) -> CacheHit | None:
        return None

    def delete_many(self, keys: Sequence[bytes]) -> None:
        pass

    def purge(self, prefix: bytes, *, keep: bytes | None = None) -> int:
        return 0

    def stats(self) -> Mapping[str, TierStats]:
        return {}

    def close(self) -> None:
        pass
