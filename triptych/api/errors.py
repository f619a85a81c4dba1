"""One shape for all errors, and the one table from error to status."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from math import ceil
from typing import Any, Final

from triptych.errors import (
    CollectionBusy,
    CollectionDamaged,
    DiskFull,
    InvalidInput,
    ModelMismatch,
    NotAvailable,
    NotFound,
    Overloaded,
    PictureError,
    TimedOut,
    TriptychError,
)
from triptych.index.remote.handoff import Unanswered


class ApiError(TriptychError):
    """An error that only HTTP has."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        hint: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.status, self.code, self.headers = status, code, dict(headers or {})


STATUS: Final[tuple[tuple[type[TriptychError], int], ...]] = (
    (PictureError, 422),
    (InvalidInput, 422),
    (NotFound, 404),
    (DiskFull, 507),
    (Unanswered, 503),
    (NotAvailable, 501),
    (ModelMismatch, 409),
    (TimedOut, 503),
    (Overloaded, 429),
    (CollectionBusy, 503),
    (CollectionDamaged, 500),
    (TriptychError, 500),
)
"""The first that fits."""

_BY_CODE: Final = {
    "picture_too_large": 413,
    "picture_format": 415,
    "already_exists": 409,
}
RETRY_AFTER: Final = 1  # seconds


def status_of(error: TriptychError) -> int:
    """Return the status that the error is answered with."""
    if isinstance(error, ApiError):
        return error.status
    if error.code in _BY_CODE:
        return _BY_CODE[error.code]
    return next(status for kind, status in STATUS if isinstance(error, kind))


def headers_of(error: TriptychError) -> dict[str, str]:
    """Return the headers that belong to the error: when to try again."""
    headers = dict(error.headers) if isinstance(error, ApiError) else {}
    if status_of(error) in (429, 503):
        seconds = error.retry_after if isinstance(error, Overloaded) else RETRY_AFTER
        headers.setdefault("Retry-After", str(max(ceil(seconds), 1)))
    return headers


def shown(error: TriptychError, *, secret: str = "") -> dict[str, Any]:
    """Return code, message and hint, and of what broke off midway how much was taken in.

    `secret`, the server's folder, is cut out of the words.
    """
    message, hint = error.message, error.hint
    if secret:
        message = message.replace(secret, "")
        hint = hint and hint.replace(secret, "")
    said = {"code": error.code, "message": _clean(message), "hint": hint and _clean(hint)}
    return said if error.taken_in is None else {**said, "taken_in": error.taken_in}


def body_of(error: TriptychError, *, secret: str = "") -> bytes:
    """Return the JSON of a reply that is this error."""
    return json.dumps({"error": shown(error, secret=secret)}, ensure_ascii=False).encode()


def too_large(what: str, *, most: int) -> ApiError:
    """Return the error of a body, or a number of things, beyond its limit."""
    return ApiError(
        413, "too_large", f"{what}, expected at most {most:,}.", hint="Send it in several requests."
    )


def overloaded_jobs(most: int) -> Overloaded:
    """Return the error of a tenant that has too many jobs."""
    return Overloaded(f"{most} jobs wait or run already.", retry_after=30)


def disk_full() -> DiskFull:
    """Return the error of what was to be written beside items: those have one of their own."""
    return DiskFull("The disk is full.", hint="Free some space and send the same again.")


def shutting_down() -> ApiError:
    """Return the error of a request that a server which stops has no more time for."""
    return ApiError(
        503,
        "shutting_down",
        "The server stops, and had no time left for the answer.",
        hint="Ask again; what was to be written may have been.",
    )


def internal(request_id: str) -> ApiError:
    """Return what is said of an error of ours: nothing but where the log has it."""
    return ApiError(
        500,
        "internal",
        f"{HTTPStatus.INTERNAL_SERVER_ERROR.phrase}.",
        hint=f"The server's log has it under the request id {request_id}.",
    )


def _clean(text: str) -> str:
    """A lone surrogate has no UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
