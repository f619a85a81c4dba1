"""Whether a web page stands behind a request that it may not make.

A page that a browser shows can send requests to this machine: by its name directly, or, where a
name's address is changed under way (DNS rebinding), as to its own server. `Host` gives the second
away, `Origin` and `Sec-Fetch-Site` the first.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from triptych.api.errors import ApiError
from triptych.errors import InvalidInput

_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_AUTHORITY = re.compile(rf"(?P<name>{_HOST.pattern}|\[[0-9a-f:.]+\])(:(?P<port>[0-9]{{0,5}}))?")
_ORIGIN = re.compile(rf"(?P<scheme>[a-z][a-z0-9+.-]*)://{_AUTHORITY.pattern}")
_OF_OTHERS = frozenset({b"cross-site", b"same-site"})


class OriginCheck:
    """Checks where requests come from; with keys, which no page has, any `Host` will do.

    Raises InvalidInput for a host or an origin that no request would ever name.
    """

    def __init__(
        self, *, any_host: bool, hosts: tuple[str, ...] = (), origins: tuple[str, ...] = ()
    ) -> None:
        self._any_host = any_host and not hosts
        self._hosts = _LOOPBACK | {_allowed_host(host) for host in hosts}
        self._origins = frozenset(map(_allowed_origin, origins))
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


def _allowed_host(given: str) -> str:
    """Return a host as requests are compared with it."""
    host = given.strip().lower()
    try:
        return ip_address(host.removeprefix("[").removesuffix("]")).compressed
    except ValueError:
        if _HOST.fullmatch(host) is None:
            raise InvalidInput(
                f"A host to allow is a name or an address alone, got {given!r}.",
                hint="Leave out scheme, port and path: --allow-host photos.example.",
            ) from None
    return host


def _allowed_origin(given: str) -> str:
    """Return an origin as browsers spell it."""
    origin = given.strip().lower().rstrip("/")
    spelt = _ORIGIN.fullmatch(origin)
    if spelt is None and origin != "null":
        raise InvalidInput(
            f"An origin to allow is a scheme and a host, perhaps a port, got {given!r}.",
            hint="Name each page's own: --allow-origin https://page.example.",
        )
    # a browser leaves out the port that the scheme means anyway
    usual = "" if spelt is None else {"http": ":80", "https": ":443"}.get(spelt["scheme"], "")
    return origin.removesuffix(usual)


def _netloc(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""


def _name(host: str) -> str | None:
    found = _AUTHORITY.fullmatch(host.lower())
    if found is None or int(found["port"] or 0) > 65_535:
        return None
    return found["name"].removeprefix("[").removesuffix("]")


def _wrong_origin() -> ApiError:
    return ApiError(
        403,
        "wrong_origin",
        "Web pages of another origin may not use this server.",
        hint="Start the server with --allow-origin to let a page in.",
    )
