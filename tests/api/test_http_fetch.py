"""Addresses of pictures: 150 hostile ones on every entry, and no socket to where none may go.

What counts is which sockets were opened, not what was returned.
"""

import http.server
import ipaddress
import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.api.conftest import png
from tests.api.live import Live, serving
from triptych.api import fetch
from triptych.api.errors import ApiError
from triptych.api.fetch import FetchConfig, Fetcher, is_public
from triptych.errors import PictureError

FORBIDDEN = (
    "127.0.0.1", "127.8.8.8", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "169.254.169.254", "169.254.169.253", "100.64.0.1", "100.100.100.200", "168.63.129.16",
    "0.0.0.0", "0.1.2.3", "192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.1", "203.0.113.9",
    "224.0.0.1", "239.255.255.250", "240.0.0.1", "255.255.255.255", "192.88.99.1",
    "::", "::1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "64:ff9b::a9fe:a9fe",
    "64:ff9b:1::1", "2002:7f00:1::", "2001::1", "2001:db8::1", "fe80::1", "fc00::1", "fd00:ec2::254",
    "fec0::1", "ff02::1", "100::1", "3fff::1", "5f00::1", "2001:20::1",
)  # fmt: skip

SPELLINGS = (
    "http://{}/x.png", "http://{}:80/x.png", "https://{}/x.png", "http://user@{}/x.png",
    "http://allowed.example@{}/x.png",
)  # fmt: skip

ODD = (
    "http://2130706433/", "http://0x7f000001/", "http://0177.0.0.1/", "http://127.1/", "http://0/",
    "http://１２７.０.０.１/", "http://127。0。0。1/", "http://[::1]/", "http://[::ffff:7f00:1]/",
    "http://[fe80::1%25eth0]/", "http://allowed.example:22/", "http://allowed.example:6379/",
    "http://allowed.example:0/", "http://allowed.example:99999/", "http://127.0.0.1:6666\\@allowed.example/",
    "http://allowed.example\\@127.0.0.1/", "http://allowed.example#@127.0.0.1/",
    "http://127.0.0.1#@allowed.example/", "http://allowed.example@127.0.0.1:80/",
    "http://a@b@127.0.0.1/", "http:///127.0.0.1/", "http:127.0.0.1", "http:/127.0.0.1/",
    "http://allowed.example\t.evil/", "http://allowed.example\r\nHost: x/", "http:// allowed.example/",
    "http://allowed.example%2f@127.0.0.1/", "http://%61llowed.example/", "http://allowed.example./",
    "http://.allowed.example/", "http://allowed.example.evil/", "http://notallowed.example/",
    "http://metadata.google.internal/", "http://localhost/", "http://LOCALHOST/", "http://localhost.localdomain/",
    "ftp://allowed.example/", "gopher://allowed.example/", "file:///etc/passwd", "dict://127.0.0.1:11211/",
    "jar:http://allowed.example!/", "ldap://127.0.0.1/", "HTTP://127.0.0.1/", "http://ⓛocalhost/",
    "http://allowed.example:80:80/", "http://allowed.example:/", "http://-allowed.example/",
    "http://allowed_example/", "http://1.2.3/", "http://256.256.256.256/", "http://allowed.example/ x",
    "http://allowed.example/\x00", "http://xn--/", "http://a..example/", "http://" + "a" * 300 + ".example/",
)  # fmt: skip

HOSTILE = [
    form.format(f"[{address}]" if ":" in address else address)
    for address, form in itertools.product(FORBIDDEN, SPELLINGS)
][:200] + list(ODD)


class Watch:
    """Stands where sockets are opened and names are looked up."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.true_connect, self.true_look_up = socket.create_connection, socket.getaddrinfo
        self.connected: list[str] = []
        self.names: dict[str, list[list[str]]] = {}
        self.route: Callable[[str, int], tuple[str, int]] | None = None
        monkeypatch.setattr(fetch.socket, "create_connection", self.connect)
        monkeypatch.setattr(fetch.socket, "getaddrinfo", self.look_up)

    def connect(self, address: tuple[str, int], timeout: float, **more: Any) -> socket.socket:
        if more:  # the client of these tests
            return self.true_connect(address, timeout, **more)
        self.connected.append(address[0])
        if self.route is None:
            raise ConnectionRefusedError
        plain = socket.socket()
        plain.settimeout(timeout)
        plain.connect(self.route(*address))
        return plain

    def look_up(self, host: str, port: int, *args: Any, **more: Any) -> Any:
        if "proto" not in more:
            return self.true_look_up(host, port, *args, **more)
        answers = self.names.get(host)
        if answers is None:
            raise socket.gaierror
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            (
                socket.AF_INET6 if ":" in one else socket.AF_INET,
                socket.SOCK_STREAM,
                6,
                "",
                (one, port),
            )
            for one in addresses
        ]

    def assert_clean(self) -> None:
        assert all(is_public(address) for address in self.connected), self.connected


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Watch:
    return Watch(monkeypatch)


def test_there_are_enough_of_them() -> None:
    assert len(set(HOSTILE)) >= 150


@pytest.mark.parametrize("hosts", [(), ("allowed.example",), ("*",), ("*.example",)])
def test_no_hostile_address_opens_a_socket(watch: Watch, hosts: tuple[str, ...]) -> None:
    watch.names = {"allowed.example": [["127.0.0.1"]], "localhost": [["127.0.0.1"]]}
    fetcher = Fetcher(FetchConfig(hosts=hosts))
    for url in HOSTILE:
        with pytest.raises((ApiError, PictureError)):
            fetcher.fetch(url)
    assert watch.connected == []


@pytest.mark.slow
def test_no_entry_opens_a_socket(watch: Watch, tmp_path: Path) -> None:
    with serving(tmp_path, allow_urls=("allowed.example",)) as live:
        live.json("POST", "/v1/collections", {"name": "c"})
        watch.names = {"allowed.example": [["10.0.0.1"]]}
        for url in [*HOSTILE, "http://allowed.example/x.png"]:
            assert all(status in (400, 403, 415, 422) for status in enter_everywhere(live, url)), (
                url
            )
        job = live.json(
            "POST", "/v1/collections/c/jobs",
            {"items": [{"id": str(at), "image": url} for at, url in enumerate(HOSTILE)]},
        )  # fmt: skip
        until = time.monotonic() + 20
        while (state := live.json("GET", f"/v1/jobs/{job['id']}"))["status"] != "done":
            assert time.monotonic() < until
            time.sleep(0.05)
        assert (state["written"], state["num_errors"]) == (0, len(HOSTILE))
    assert watch.connected == []


def enter_everywhere(live: Live, url: str) -> Iterator[int]:
    """Yield the status that each entry gives which takes an address."""
    uri = {"url": url}
    bodies: list[tuple[str, Any]] = [
        ("collections/c/search", {"image": url}),
        ("collections/c/search", {"parts": [{"image": url}]}),
        ("collections/c/search", {"query": "x", "minus": [{"image": url}]}),
        ("embeddings", {"input": [{"image": url}]}),
        ("embeddings", {"input": url, "modality": "image"}),
        ("embeddings", {"messages": [{"content": [{"type": "image_url", "image_url": uri}]}]}),
        ("rerank", {"query": {"image": url}, "documents": ["x"]}),
        ("rerank", {"query": "x", "documents": [{"image": url}]}),
    ]
    for path, body in bodies:
        yield live.client.post(f"/v1/{path}", json=body).status_code
    items = {"items": [{"id": "a", "image": url}]}
    for lines in (False, True):
        path = "/v1/collections/c/items"
        kind = {"content-type": "application/x-ndjson" if lines else "application/json"}
        content = json.dumps(items["items"][0] if lines else items)
        reply = live.client.put(path, content=content, headers=kind).json()
        assert reply["written"] == 0
        yield 403
    assert live.client.post(
        "/v1/collections/c/search", data={"request": json.dumps({"image": url})}, files={"x": b"x"}
    ).status_code in (403, 415, 422)


@pytest.mark.parametrize(
    "addresses",
    [[one] for one in FORBIDDEN] + [["93.184.216.34", "10.0.0.1"], ["93.184.216.34", "::1"], []],
)
def test_a_name_that_leads_inside(watch: Watch, addresses: list[str]) -> None:
    watch.names = {"allowed.example": [addresses]}
    for scheme in ("http", "https"):
        with pytest.raises(PictureError) as failed:
            Fetcher(FetchConfig(hosts=("*",))).fetch(f"{scheme}://allowed.example/x.png")
        assert failed.value.message == "No picture could be fetched from that address."
    assert watch.connected == []


def test_a_name_that_changes_its_address_is_looked_up_once(watch: Watch) -> None:
    watch.names = {"allowed.example": [["93.184.216.34"], ["127.0.0.1"]]}
    with pytest.raises(PictureError):
        Fetcher(FetchConfig(hosts=("*",))).fetch("http://allowed.example/x.png")
    assert watch.connected == ["93.184.216.34"]


class Site(http.server.BaseHTTPRequestHandler):
    """A server that does what the path says."""

    seen: ClassVar[list[dict[str, str]]] = []

    def do_GET(self) -> None:
        type(self).seen.append(dict(self.headers.items()))
        kind, _, rest = self.path[1:].partition("/")
        if kind == "to":
            self.send_response(int(rest[:3]))
            self.send_header("Location", rest[4:])
            self.end_headers()
            return
        body = {"ok": png("red"), "huge": b"x" * 300_000, "empty": b""}.get(kind, b"<html>")
        self.send_response(500 if kind == "bad" else 200)
        self.send_header("Content-Type", "text/html" if kind == "html" else "image/png")
        if kind == "gzip":
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        with suppress(ConnectionError):  # who fetches hangs up on what is too slow or too large
            for _ in range(100 if kind == "slow" else 0):
                time.sleep(0.05)
                self.wfile.write(b"x")
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        return


@pytest.fixture
def site(watch: Watch) -> Iterator[Watch]:
    """Public names, all of which lead to a server of ours."""
    Site.seen.clear()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    watch.names = {"allowed.example": [["93.184.216.34"]], "inside.example": [["10.0.0.1"]]}
    watch.route = lambda host, port: ("127.0.0.1", server.server_port)
    yield watch
    server.shutdown()
    server.server_close()


def test_a_picture_is_fetched(site: Watch) -> None:
    fetcher = Fetcher(FetchConfig(hosts=("allowed.example",)))
    assert fetcher.fetch("http://allowed.example/ok") == png("red")
    assert fetcher.fetch("http://ALLOWED.example:80/to/302/http://allowed.example/ok") == png("red")
    assert fetcher.fetch("http://allowed.example/to/302//ok") == png("red")
    site.assert_clean()
    for headers in Site.seen:
        assert headers["Host"] == "allowed.example"
        assert not {"Cookie", "Authorization", "Referer"} & set(headers)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.1/ok", "http://inside.example/ok", "http://[::1]/ok", "file:///etc/passwd",
     "gopher://allowed.example/", "//127.0.0.1/ok", "https://allowed.example:6379/", "data:image/png,x", ""],
)  # fmt: skip
def test_a_redirection_is_checked_like_an_address(site: Watch, status: int, target: str) -> None:
    with pytest.raises((PictureError, ApiError)):
        Fetcher(FetchConfig(hosts=("*",))).fetch(f"http://allowed.example/to/{status}/{target}")
    site.assert_clean()


@pytest.mark.parametrize(
    "kind", ["huge", "html", "gzip", "bad", "empty", "to/302/http://allowed.example/to/302/"]
)
def test_what_is_no_picture(site: Watch, kind: str) -> None:
    config = FetchConfig(hosts=("*",), max_bytes=200_000)
    with pytest.raises(PictureError, match="No picture could be fetched"):
        Fetcher(config).fetch(f"http://allowed.example/{kind}")


def test_a_loop_ends(site: Watch) -> None:
    with pytest.raises(PictureError):
        path = "to/302//" * 30
        Fetcher(FetchConfig(hosts=("*",))).fetch(f"http://allowed.example/{path}")
    assert len(Site.seen) <= 4


@pytest.mark.alone
def test_a_slow_server_is_given_up(site: Watch) -> None:
    start = time.monotonic()
    with pytest.raises(PictureError):
        Fetcher(FetchConfig(hosts=("*",), seconds=0.4)).fetch("http://allowed.example/slow")
    assert time.monotonic() - start < 2


def test_no_host_is_flooded(site: Watch) -> None:
    fetcher = Fetcher(FetchConfig(hosts=("*",), seconds=1))

    def fetch_slowly() -> None:
        with pytest.raises(PictureError):
            fetcher.fetch("http://allowed.example/slow")

    threads = [threading.Thread(target=fetch_slowly) for _ in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    with pytest.raises(Exception, match="Too many pictures"):
        fetcher.fetch("http://allowed.example/ok")
    for thread in threads:
        thread.join()
    assert fetcher.fetch("http://allowed.example/ok") == png("red")


def test_who_leads_elsewhere_is_asked_again(site: Watch) -> None:
    site.names["other.example"] = [["93.184.216.35"]]
    fetcher = Fetcher(FetchConfig(hosts=("*",), at_once=2))
    for _ in range(3):
        url = "http://allowed.example/to/302/http://other.example/ok"
        assert fetcher.fetch(url) == png("red")


def test_a_search_with_an_address(site: Watch, tmp_path: Path) -> None:
    with serving(tmp_path, allow_urls=("allowed.example",)) as live:
        live.json("POST", "/v1/collections", {"name": "c"})
        item = {"id": "red", "image": "http://allowed.example/ok"}
        assert live.json("PUT", "/v1/collections/c/items", {"items": [item]})["written"] == 1
        for _ in range(2):  # never out of the cache: what lies there may be another picture now
            reply = live.client.post(
                "/v1/collections/c/search", json={"image": "http://allowed.example/ok"}
            )
            assert reply.json()["hits"][0]["score"] == pytest.approx(1, abs=1e-5)
            assert reply.headers["x-triptych-tier"] == "index"


def test_public_addresses_are_public() -> None:
    for address in ("93.184.216.34", "8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450::1"):
        assert is_public(address)
    for address in (*FORBIDDEN, "fe80::1%eth0", "x", "", "127.1", "0x7f.1"):
        assert not is_public(address)
    assert all(ipaddress.ip_address(address) for address in FORBIDDEN)
