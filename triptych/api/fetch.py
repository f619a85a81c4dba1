"""Pictures from other servers: the only function of the house that opens a connection for a caller.

Off unless hosts are allowed. A host is looked up once, every address that it has must be public,
and the connection goes to the address that was checked; so again for each redirection. What fails
after the host's name was allowed fails with one sentence, whatever the reason: it is no way to look
around in a network.
"""

from __future__ import annotations

import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Final, NamedTuple
from urllib.parse import urljoin

from triptych.api.errors import ApiError
from triptych.errors import Overloaded, PictureError

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9.-]{1,253})(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<path>/[!$-;=?-Z_a-z~%]*|\?[!$-;=?-Z_a-z~%]*|)",
    re.IGNORECASE | re.ASCII,
)
# the last label is not a number: 127.1, 0x7f000001 and 2130706433 are no names
_NAME = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PORTS: Final = {"http": 80, "https": 443}
_REDIRECTS = frozenset({301, 302, 303, 307, 308})

# ipaddress.is_global says yes to several of these
_FORBIDDEN_4: Final = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "168.63.129.16/32",
        "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24",
        "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24", "198.18.0.0/15",
        "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    )
)  # fmt: skip
# what is not in here cannot be public: it leaves out every form that wraps an IPv4 address but two
_PUBLIC_6: Final = ipaddress.IPv6Network("2000::/3")
_FORBIDDEN_6: Final = tuple(
    ipaddress.IPv6Network(network)
    for network in (
        "2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20", "5f00::/16"
    )
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchConfig:
    """What may be fetched."""

    hosts: tuple[str, ...] = ()  # names, "*.example.org", or "*" for every public host
    max_bytes: int = 10 * 2**20
    seconds: float = 10.0  # for all of it, redirections included
    hops: int = 3
    at_once: int = 8
    at_once_per_host: int = 2


class _Target(NamedTuple):
    scheme: str
    host: str
    path: str

    @property
    def port(self) -> int:
        return _PORTS[self.scheme]


class Fetcher:
    """Fetches pictures from the hosts that are allowed."""

    def __init__(self, config: FetchConfig) -> None:
        self._config = config
        self._any = "*" in config.hosts
        self._names = {host.lower() for host in config.hosts if not host.startswith("*")}
        self._suffixes = tuple(host[1:].lower() for host in config.hosts if host.startswith("*."))
        self._mutex = threading.Lock()
        self._running: dict[str, int] = {}

    def fetch(self, url: str) -> bytes:
        """Return what lies at the address.

        Raises ApiError, url_not_allowed, for an address that is not permitted, PictureError for one
        that is but yields no picture.
        """
        deadline = time.monotonic() + self._config.seconds
        target = self._permitted(url)
        asked = target.host
        self._begin(asked)
        try:
            for _ in range(self._config.hops + 1):
                found = self._ask(target, deadline)
                if isinstance(found, bytes):
                    return found
                target = self._permitted(urljoin(_spelled(target), found))
        except (OSError, http.client.HTTPException, ValueError, ApiError):
            raise _failed() from None
        finally:
            self._end(asked)  # not where it led to
        raise _failed()

    def _permitted(self, url: str) -> _Target:
        """Parse strictly; nothing else ever parses the address again."""
        match = _URL.fullmatch(url)
        if match is None:
            raise _refused()
        scheme, host = match["scheme"].lower(), match["host"].lower()
        if not _NAME.fullmatch(host) or int(match["port"] or _PORTS[scheme]) != _PORTS[scheme]:
            raise _refused()
        if not (self._any or host in self._names or host.endswith(self._suffixes or ("\0",))):
            raise _refused()
        path = match["path"]
        return _Target(scheme, host, path if path.startswith("/") else f"/{path}")

    def _ask(self, target: _Target, deadline: float) -> bytes | str:
        """Return the content, or where it is to be found."""
        address = public_address(target.host, target.port)
        with closing(_connected(address, target, deadline)) as connected:
            watch = threading.Timer(max(deadline - time.monotonic(), 0), _cut, (connected,))
            watch.daemon = True
            watch.start()
            try:
                found = self._exchange(connected, target)
            finally:
                watch.cancel()
        if time.monotonic() >= deadline:  # what was cut off reads like an end
            raise _failed()
        return found

    def _exchange(self, connected: socket.socket, target: _Target) -> bytes | str:
        connection = http.client.HTTPConnection(target.host, target.port)
        connection.sock = connected
        headers = {"Accept": "image/*", "Accept-Encoding": "identity", "User-Agent": "triptych"}
        connection.request("GET", target.path, headers={"Host": target.host, **headers})
        reply = connection.getresponse()
        if reply.status in _REDIRECTS:
            return reply.getheader("Location") or ""
        kind = (reply.getheader("Content-Type") or "").partition(";")[0].strip().lower()
        fits = kind.startswith("image/") or kind == "application/octet-stream"
        plain = (reply.getheader("Content-Encoding") or "identity").lower() == "identity"
        if reply.status != 200 or not fits or not plain:
            raise _failed()
        data = reply.read(self._config.max_bytes + 1)
        if len(data) > self._config.max_bytes or not data:
            raise _failed()
        return data

    def _begin(self, host: str) -> None:
        with self._mutex:
            if (
                sum(self._running.values()) >= self._config.at_once
                or self._running.get(host, 0) >= self._config.at_once_per_host
            ):
                raise Overloaded("Too many pictures are being fetched.", retry_after=1)
            self._running[host] = self._running.get(host, 0) + 1

    def _end(self, host: str) -> None:
        with self._mutex:
            self._running[host] = self._running.get(host, 0) - 1
            if self._running[host] <= 0:
                del self._running[host]


def public_address(host: str, port: int) -> str:
    """Return an address of the host; raises OSError unless every one that it has is public."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    addresses = [str(sockaddr[0]) for *_, sockaddr in found]
    if not addresses or not all(is_public(address) for address in addresses):
        raise OSError("not public")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether the address is one of the public Internet, written plainly."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv4Address):
        return not any(parsed in network for network in _FORBIDDEN_4)
    if parsed.scope_id is not None or parsed not in _PUBLIC_6:
        return False
    return not any(parsed in network for network in _FORBIDDEN_6)


def _connected(address: str, target: _Target, deadline: float) -> socket.socket:
    left = max(deadline - time.monotonic(), 0.001)
    plain = socket.create_connection((address, target.port), timeout=left)
    if target.scheme == "http":
        return plain
    try:
        # the name that was asked for, the address that was checked
        return ssl.create_default_context().wrap_socket(plain, server_hostname=target.host)
    except BaseException:
        plain.close()
        raise


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _spelled(target: _Target) -> str:
    return f"{target.scheme}://{target.host}{target.path}"


def _refused() -> ApiError:
    return ApiError(
        403,
        "url_not_allowed",
        "Pictures are not fetched from that address.",
        hint="Send the picture itself, or start the server with --allow-url HOST.",
    )


def _failed() -> PictureError:
    return PictureError("picture_url", "No picture could be fetched from that address.")
