"""Who calls, what they may do, and how often."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path

from triptych.api.errors import ApiError
from triptych.api.rates import Bucket, Cells, Failures, Quota
from triptych.errors import Overloaded, TimedOut, TriptychError
from triptych.keys import Key, Keys, Role, read_keys

logger = logging.getLogger(__name__)

_LOOK = 1.0  # seconds between two looks at the key file
_NOBODY = ApiError(
    401,
    "unauthorized",
    "This needs a key.",
    hint="Send it as: Authorization: Bearer KEY",
    headers={"WWW-Authenticate": "Bearer"},
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Caller:
    """Whoever sent the request."""

    key: Key
    bucket: Bucket | None = None
    quota: Quota | None = None

    @property
    def tenant(self) -> str:
        return self.key.tenant

    def require(self, role: Role) -> None:
        """Raise ApiError, forbidden, where the role does not suffice."""
        if not self.key.may(role):
            raise ApiError(
                403,
                "forbidden",
                f"This needs the role {role}, the key has {self.key.role}.",
            )

    @contextmanager
    def spending(self, items: int) -> Iterator[None]:
        """Count items that are embedded meanwhile; raises ApiError beyond the quota of the day.

        Where there is no room for them they are not counted: whoever is told to try again later
        would pay for each try. Who had no time for the answer pays: the work is done all the same.
        """
        wait = self.quota.take(items) if self.quota is not None else 0.0
        if wait:
            raise _later("quota_exceeded", "The key has used up its items of today", wait)
        try:
            yield
        except Overloaded as error:
            if self.quota is not None and not isinstance(error, TimedOut):
                self.quota.give_back(items)
            raise


_ANYONE = Caller(key=Key(name="loopback", sha256="0" * 64, role="admin"))


class Access:
    """Knows the keys. Without any, everyone is admin of the tenant `default`: on loopback only."""

    def __init__(
        self,
        *,
        file: Path | None = None,
        keys: list[Key],
        rate: float = 0.0,
        cells: Cells | None = None,  # of all workers, who then count together
    ) -> None:
        self._file, self._rate, self._cells = file, rate, cells
        self._given = keys
        self._callers: dict[str, Caller] = {}
        self._failures = Failures()
        self._looked, self._seen = time.monotonic(), _stamp(file)
        self._use([*keys, *(read_keys(file) if file else [])])
        self.open = file is None and not keys

    def caller(self, headers: Mapping[bytes, bytes], address: str) -> Caller:
        """Return who calls; raises ApiError: unauthorized, rate_limited."""
        if self.open:
            return self._limited(_ANYONE)
        if time.monotonic() - self._looked > _LOOK:
            self._look()
        presented = _presented(headers)
        if presented is None:
            raise _NOBODY
        key = self._keys.find(presented)
        if key is None:
            # only wrong ones are slowed down: behind a proxy all callers have one address, and a
            # stranger would lock out those who have a key, which nobody can guess
            if wait := self._failures.wait(address):
                raise _later("rate_limited", "Too many wrong keys", wait)
            self._failures.note(address)
            raise ApiError(
                401,
                "unauthorized",
                "The key is not known.",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return self._limited(self._callers[key.sha256])

    def _limited(self, caller: Caller) -> Caller:
        wait = caller.bucket.take() if caller.bucket is not None else 0.0
        if wait:
            raise _later("rate_limited", "The key has sent too many requests", wait)
        return caller

    def _use(self, keys: list[Key]) -> None:
        known = self._callers
        self._keys = Keys(keys)
        # who has the same limits as before keeps what is left of them
        self._callers = {
            key.sha256: known[key.sha256]
            if key.sha256 in known and known[key.sha256].key == key
            else self._new_caller(key)
            for key in keys
        }

    def _new_caller(self, key: Key) -> Caller:
        rate = self._rate if key.rate is None else key.rate
        return Caller(
            key=key,
            bucket=Bucket(rate, name=key.sha256, cells=self._cells) if rate else None,
            quota=None
            if key.daily is None
            else Quota(key.daily, name=key.sha256, cells=self._cells),
        )

    def _look(self) -> None:
        """Take over a key file that was changed; one that cannot be read changes nothing."""
        self._looked, stamp = time.monotonic(), _stamp(self._file)
        if self._file is None or stamp == self._seen:
            return
        self._seen = stamp
        try:
            self._use([*self._given, *read_keys(self._file)])
        except TriptychError as error:
            logger.error("the keys stay as they were: %s", error)


def _presented(headers: Mapping[bytes, bytes]) -> bytes | None:
    given = headers.get(b"authorization")
    if given is None:
        return headers.get(b"x-api-key")
    scheme, _, key = given.partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" and key.strip() else None


def _later(code: str, message: str, wait: float) -> ApiError:
    seconds = str(max(ceil(wait), 1))
    return ApiError(429, code, f"{message}.", headers={"Retry-After": seconds})


def _stamp(path: Path | None) -> tuple[int, int, int] | None:
    try:
        found = path.stat() if path is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_ino, found.st_size, found.st_mtime_ns)
