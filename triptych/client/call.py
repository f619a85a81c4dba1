"""One request as it goes out, and the reply as it comes back, whatever carries them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from triptych.client.failures import error_of
from triptych.errors import InvalidInput, RemoteError

T = TypeVar("T")

JSON, LINES = "application/json", "application/x-ndjson"

# strict: NaN is no JSON
_encode = json.JSONEncoder(allow_nan=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """Return the body's value; raises RemoteError where it is no JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise RemoteError(
                "bad_reply",
                f"The reply of status {self.status} is no JSON.",
                status=self.status,
                hint="Is this address a Triptych server's?",
            ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """A request and how its reply is read."""

    method: str
    path: str
    read: Callable[[Any], T]  # of the reply's JSON
    body: bytes | None = None
    content_type: str = JSON
    repeatable: bool = True  # sent twice it does, and answers, what it does once
    num_items: int = 0  # in the body
    is_json: bool = True  # else bytes, and None where there are none

    def result(self, reply: Reply) -> T:
        """Return what the call is for; raises the error that the server answered with."""
        if reply.status >= 300:  # redirections are not followed: they may lead anywhere
            if reply.status == 404 and not self.is_json:
                return self.read(None)
            raise error_of(reply)
        if reply.status == 204:
            return self.read(None)
        return self.read(reply.json() if self.is_json else reply.body)


def encoded(value: Any) -> bytes:
    """Return JSON; raises InvalidInput for what has none."""
    try:
        return _encode(value).encode("ascii")
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"This cannot be sent as JSON: {error}.") from None
