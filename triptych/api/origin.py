"""Whether a web page stands behind a request that it may not make.

A page that a browser shows can send requests to this machine: by its name directly, or, where a
name's address is changed under way (DNS rebinding), as to its own server. `Host` gives the second
away, `Origin` and `Sec-Fetch-Site` the first.
"""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlsplit

from triptych.api.errors import ApiError

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_OF_OTHERS = frozenset({b"cross-site", b"same-site"})


class OriginCheck:
    """Checks where requests come from; with keys, which no page has, any `Host` will do."""

    def __init__(
        self, *, any_host: bool, hosts: tuple[str, ...] = (), origins: tuple[str, ...] = ()
    ) -> None:
        self._any_host = any_host and not hosts
        self._hosts = _LOOPBACK | {host.lower() for host in hosts}
        self._origins = frozenset(origin.lower().rstrip("/") for origin in origins)
        self._passed: dict[bytes, bool] = {}

    def check(self, headers: Mapping[bytes, bytes]) -> str | None:
        """Return the origin that is to be allowed in the reply, None for none.

        Raises ApiError: wrong_host, wrong_origin.
        """
        host = headers.get(b"host", b"")
        if not self._any_host and not self._is_ours(host):
            raise ApiError(
                403,
                "wrong_host",
                "The Host of the request is not one of this server's.",
                hint="Use 127.0.0.1 or localhost, or start the server with --allow-host.",
            )
        origin = headers.get(b"origin")
        if origin is None:
            if headers.get(b"sec-fetch-site") in _OF_OTHERS and not self._any_host:
                raise _wrong_origin()
            return None
        text = origin.decode("latin-1").lower()
        if text in self._origins:
            return text
        if text == "null" or _netloc(text) != host.decode("latin-1").lower():
            raise _wrong_origin()
        return None

    def _is_ours(self, host: bytes) -> bool:
        if host not in self._passed:
            if len(self._passed) > 1_000:
                self._passed.clear()
            self._passed[host] = _name(host.decode("latin-1")) in self._hosts
        return self._passed[host]


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _name(host: str) -> str | None:
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if parts.netloc != host or parts.username is not None:
        return None
    return parts.hostname


def _wrong_origin() -> ApiError:
    return ApiError(
        403,
        "wrong_origin",
        "Web pages of another origin may not use this server.",
        hint="Start the server with --allow-origin to let a page in.",
    )
