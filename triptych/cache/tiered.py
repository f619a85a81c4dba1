"""Several tiers as one cache, the nearest first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from triptych.cache.base import Cache, CacheHit, TierStats


class TieredCache:
    """Reads through the tiers, carries what it found to the nearer ones, writes to all.

    What was carried is kept for `carried` seconds there: how long it lay in the other is not known.
    """

    def __init__(self, tiers: Sequence[Cache], *, carried: float | None = None) -> None:
        self._tiers = tuple(tiers)
        self._carried = carried

    @property
    def has_far(self) -> bool:
        return any(tier.has_far for tier in self._tiers)

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        values: list[bytes | None] = [None] * len(keys)
        missing = list(range(len(keys)))
        for depth, tier in enumerate(self._tiers):
            if not missing:
                break
            asked = [keys[at] for at in missing]
            found = [
                (at, value)
                for at, value in zip(missing, tier.get_many(asked), strict=True)
                if value is not None
            ]
            for at, value in found:
                values[at] = value
            self._promote([(keys[at], value) for at, value in found], depth)
            missing = [at for at in missing if values[at] is None]
        return values

    def find(self, key: bytes) -> CacheHit | None:
        for depth, tier in enumerate(self._tiers):
            found = tier.find(key)
            if found is not None:
                self._promote([(key, found.value)], depth)
                return found
        return None

    def near(self, key: bytes) -> bytes | None:
        for tier in self._tiers:
            value = tier.near(key)
            if value is not None:
                return value
        return None

    async def far(self, key: bytes) -> CacheHit | None:
        for depth, tier in enumerate(self._tiers):
            found = await tier.far(key)
            if found is not None:
                self._promote([(key, found.value)], depth)
                return found
        return None

    def put_many(self, items: Sequence[tuple[bytes, bytes]], *, ttl: float | None = None) -> None:
        for tier in self._tiers:
            tier.put_many(items, ttl=ttl)

    def delete_many(self, keys: Sequence[bytes]) -> None:
        for tier in reversed(self._tiers):  # or a nearer one could be filled again from below
            tier.delete_many(keys)

    def purge(self, prefix: bytes, *, keep: bytes | None = None) -> int:
        return sum(tier.purge(prefix, keep=keep) for tier in reversed(self._tiers))

    def stats(self) -> Mapping[str, TierStats]:
        return {name: stats for tier in self._tiers for name, stats in tier.stats().items()}

    def close(self) -> None:
        with ExitStack() as stack:
            for tier in self._tiers:
                stack.callback(tier.close)

    def _promote(self, items: list[tuple[bytes, bytes]], depth: int) -> None:
        if items:
            for nearer in self._tiers[:depth]:
                nearer.put_many(items, ttl=self._carried)
