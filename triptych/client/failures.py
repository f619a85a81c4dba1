"""The errors of a server, as the exceptions that a collection here would raise."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Protocol

from triptych.errors import (
    InvalidInput,
    Overloaded,
    PictureError,
    RemoteError,
    TimedOut,
    TriptychError,
)

_WAIT = 1.0  # seconds, where a server asks for patience and does not say how long


class Answer(Protocol):
    """A reply that is an error."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def body(self) -> bytes: ...


def error_of(answer: Answer) -> TriptychError:
    """Return the exception that the reply spells; RemoteError where this package has none."""
    try:
        said = json.loads(answer.body)["error"]
        code, message = str(said["code"]), str(said["message"])
        hint = None if said.get("hint") is None else str(said["hint"])
        taken_in = None if said.get("taken_in") is None else int(said["taken_in"])
    # a proxy's page, or the error of another service
    except (ValueError, LookupError, TypeError, AttributeError):
        code, message, hint = "bad_reply", f"The server answered {answer.status}.", None
        taken_in = None
    wait = retry_after(answer.headers)
    error = error_from(code, message, hint, status=answer.status, wait=wait)
    error.taken_in = taken_in
    return error


def error_from(
    code: str,
    message: str,
    hint: str | None,
    *,
    status: int | None = None,
    wait: float | None = None,
) -> TriptychError:
    """Return the exception with this code; `wait` are the seconds of Retry-After."""
    if code.startswith("picture_"):
        return PictureError(code, message, hint=hint)
    kind = _KINDS.get(code)
    if kind is None:
        return RemoteError(code, message, status=status, hint=hint)
    if issubclass(kind, Overloaded):
        return kind(message, retry_after=_WAIT if wait is None else wait, hint=hint)
    return kind(message, hint=hint)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of the header Retry-After, None where it has none."""
    try:
        return max(0.0, float(headers["retry-after"]))
    except (KeyError, ValueError):  # it may be a date: the one who says so has no hurry
        return None


def _tree(root: type[TriptychError]) -> Iterator[type[TriptychError]]:
    for kind in root.__subclasses__():
        if kind not in (PictureError, RemoteError) and kind.__module__ == TriptychError.__module__:
            yield kind
            yield from _tree(kind)


_KINDS: dict[str, type[TriptychError]] = {
    **{kind.code: kind for kind in _tree(TriptychError)},
    "already_exists": InvalidInput,
    "bad_request": InvalidInput,
    "too_large": InvalidInput,
    "deadline_exceeded": TimedOut,
    "rate_limited": Overloaded,
    "quota_exceeded": Overloaded,
    "shutting_down": Overloaded,
}
