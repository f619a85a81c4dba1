"""What is known of a request before its body is read."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from triptych.api.access import Caller
from triptych.api.errors import ApiError

KEY = "triptych.call"
"""Where it lies in the scope."""

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_MILLISECONDS = re.compile(rb"[0-9]{1,9}")


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """One request, on its way."""

    request_id: str
    started: float  # time.monotonic()
    deadline: float
    seconds: float | None  # for the answer, each time anew; None where the caller set the deadline
    address: str
    caller: Caller | None = None
    status: int = 0
    refused: int = 0  # the status of who was too slow, whatever a route would answer
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)  # for the reply

    def renew(self) -> float:
        """Return the deadline, counted from now: the body is here, or some of it is stored.

        A slow line is no slow answer: a large body may come in for minutes, in a time of its own.
        """
        if self.seconds is not None:
            self.deadline = time.monotonic() + self.seconds
        return self.deadline

    def shorten(self, headers: Mapping[bytes, bytes]) -> None:
        """Take over the deadline that the caller sets; raises ApiError for a time that is none."""
        given = headers.get(b"x-timeout-ms")
        if given is None:
            return
        if not _MILLISECONDS.fullmatch(given) or not int(given):
            raise ApiError(400, "bad_request", "X-Timeout-Ms is a whole number from 1 on.")
        if self.seconds is not None and int(given) / 1000 < self.seconds:
            self.deadline, self.seconds = self.started + int(given) / 1000, None


def request_id_of(headers: Mapping[bytes, bytes]) -> str:
    """Return the id that the caller gave, where it is a sound one, else a new one."""
    given = headers.get(b"x-request-id")
    if given is not None and _REQUEST_ID.fullmatch(given):
        return given.decode("ascii")
    # it names and guards nothing, so no system call: that gives the interpreter to another thread
    return f"{random.getrandbits(64):016x}"
