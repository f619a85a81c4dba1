"""Every error that Triptych raises on purpose.

TriptychError
├── InvalidInput (ValueError)      an argument cannot be used
│   └── PictureError               a picture cannot be read; `code` says why
├── NotFound (LookupError)         no such collection, item, model
├── NotAvailable                   the feature, or the extra that carries it, is not here
│   └── DiskFull                   there is no room for what was to be stored
├── ModelMismatch                  vectors of two models would meet
├── Overloaded                     too much waits already; `retry_after` says how long, in seconds
│   └── TimedOut                   the caller's deadline has passed, or would
├── RemoteError                    a server's answer that is none of these, or none at all
├── CollectionBusy                 another process is writing
└── CollectionDamaged              files on disk contradict each other

A message says what was got and what was expected; `hint` says what to do.
"""

from __future__ import annotations


class TriptychError(Exception):
    """The root of the tree: safe to show to a user as it is."""

    code = "error"
    taken_in: int | None = None
    """Of an add that a server broke off: so many of its items, from the first on, are done with."""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message} {hint}")
        self.message = message
        self.hint = hint


class InvalidInput(TriptychError, ValueError):
    code = "invalid_input"


class PictureError(InvalidInput):
    """A picture that cannot be used. A decoder's own text is never in it: it may leak addresses."""

    def __init__(self, code: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.code = code


class NotFound(TriptychError, LookupError):
    code = "not_found"


class NotAvailable(TriptychError):
    code = "not_available"


class DiskFull(NotAvailable):
    code = "disk_full"


class ModelMismatch(TriptychError):
    code = "model_mismatch"


class Overloaded(TriptychError):
    """Refused before anything was done, so that asking again is safe."""

    code = "overloaded"

    def __init__(self, message: str, *, retry_after: float, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class TimedOut(Overloaded):
    code = "timed_out"


class RemoteError(TriptychError):
    """What only a server says: `code` is its own, `status` that of HTTP, None without a reply."""

    def __init__(
        self, code: str, message: str, *, status: int | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.code, self.status = code, status


class CollectionBusy(TriptychError):
    code = "collection_busy"


class CollectionDamaged(TriptychError):
    code = "collection_damaged"
