"""The files of the page, read once, each also compressed, each with a name for its bytes."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from triptych.api.etag import etag

PREFIX = "/page/"
"""Below it lie all files but the page itself, which is `/`."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing is loaded from elsewhere, and no script or style stands inside the page."""

_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Asset:
    """One file."""

    body: bytes
    packed: bytes  # gzip
    kind: str  # the media type
    etag: str


@cache
def assets() -> Mapping[str, Asset]:
    """Return all files by the path under which they are served."""
    found = {}
    for file in files("triptych.api.page").joinpath("static").iterdir():
        suffix = file.name[file.name.rindex(".") :]
        path = "/" if file.name == "index.html" else f"{PREFIX}{file.name}"
        body = file.read_bytes()
        found[path] = Asset(
            body=body,
            packed=gzip.compress(body, mtime=0),
            kind=_KINDS[suffix],
            etag=etag(body),
        )
    return found
