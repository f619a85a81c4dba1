"""What a caller may have already: it has a name of its own, and is not sent again."""

from __future__ import annotations

from hashlib import blake2b

from fastapi import Request


def etag(*parts: bytes, weak: bool = False) -> str:
    """Return the name of what `parts` make up.

    A weak one is for what is made of them anew each time, and may then differ in its bytes.
    """
    hashed = blake2b(digest_size=12)
    for part in parts:
        hashed.update(b"%d:" % len(part) + part)
    return f'{"W/" if weak else ""}"{hashed.hexdigest()}"'


def has_already(request: Request, etag: str) -> bool:
    """Whether the caller names it as what he has (If-None-Match)."""
    given = ",".join(request.headers.getlist("if-none-match"))
    names = {one.strip().removeprefix("W/") for one in given.split(",")}
    return "*" in names or etag.removeprefix("W/") in names
