"""Which tiers there are, and how much they keep for how long."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from triptych.cache.base import Cache
from triptych.cache.memory import MemoryCache
from triptych.cache.tiered import TieredCache
from triptych.errors import InvalidInput
from triptych.registry import Registry

_MB = 2**20

TIERS = Registry("cache", {"redis": "triptych.cache.redis:RedisCache"}, extras={"redis": "redis"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheConfig:
    memory_mb: int = 64  # of this process, for bytes of answers and embeddings
    redis_url: str | None = field(default=None, repr=False)  # it may hold a password
    secret: bytes = field(default=b"", repr=False)  # seals what lies in Redis
    answers_ttl: float = 3600.0  # seconds
    embeddings_ttl: float = 7 * 24 * 3600.0
    query_log: bool = False  # whether what is asked most is noted, to have it ready

    @classmethod
    def from_env(cls, given: Mapping[str, str]) -> Self:
        """Return what TRIPTYCH_REDIS_URL and TRIPTYCH_CACHE_* say; raises InvalidInput."""
        default = cls()
        return cls(
            memory_mb=_number(given, "TRIPTYCH_CACHE_MB", default.memory_mb),
            redis_url=given.get("TRIPTYCH_REDIS_URL"),
            secret=given.get("TRIPTYCH_CACHE_SECRET", "").encode(),
            answers_ttl=_number(given, "TRIPTYCH_CACHE_TTL", int(default.answers_ttl)),
            embeddings_ttl=_number(
                given, "TRIPTYCH_CACHE_EMBEDDINGS_TTL", int(default.embeddings_ttl)
            ),
            query_log=_number(given, "TRIPTYCH_QUERY_LOG", 0) > 0,
        )

    def open(self) -> Cache:
        """Return this process's tier, and Redis's behind it where there is an address.

        Nothing is connected yet, and a Redis that is away is no error. Raises NotAvailable without
        the package, InvalidInput for an address that is none.
        """
        tiers: list[Cache] = []
        if self.memory_mb:
            longest = max(self.answers_ttl, self.embeddings_ttl)
            tiers.append(MemoryCache(self.memory_mb * _MB, ttl=longest))
        if self.redis_url is not None:
            tiers.append(_redis(self.redis_url, self.secret))
        shortest = min(self.answers_ttl, self.embeddings_ttl)
        return tiers[0] if len(tiers) == 1 else TieredCache(tiers, carried=shortest)


def _redis(url: str, secret: bytes) -> Cache:
    try:
        cache: Cache = TIERS.resolve("redis")(url, secret=secret)
        return cache
    except ValueError:
        raise InvalidInput(  # the address itself may hold a password
            "TRIPTYCH_REDIS_URL is no address of a Redis.",
            hint="For example: redis://localhost:6379/0, rediss://..., unix:///run/redis.sock",
        ) from None


def _number(given: Mapping[str, str], key: str, default: int) -> int:
    value = given.get(key, str(default))
    if not value.isascii() or not value.isdigit():
        raise InvalidInput(f"Got {key}={value!r}, expected a whole number.")
    return int(value)
