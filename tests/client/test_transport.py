"""What is sent again and what is not, against a server that does what it is told."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from triptych import connect, connect_async
from triptych.client.calls import Calls
from triptych.client.failures import error_from, retry_after
from triptych.errors import (
    CollectionBusy,
    InvalidInput,
    ModelMismatch,
    NotAvailable,
    NotFound,
    Overloaded,
    PictureError,
    RemoteError,
    TimedOut,
    TriptychError,
)
from triptych.retrieval import prepare

Script = list[Any]
"""What the server does, one for each request: (status, JSON, headers), "hang up", or "wait"."""


class Fake:
    """A server that follows a script and notes what it was sent."""

    def __init__(self) -> None:
        self.script: Script = []
        self.got: list[tuple[str, str, dict[str, str], bytes]] = []
        self.peers: set[Any] = set()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                fake.got.append((self.command, self.path, headers, body))
                fake.peers.add(self.client_address)
                todo = fake.script.pop(0) if fake.script else (200, {"count": 7}, {})
                if todo == "hang up":
                    self.close_connection = True
                    self.connection.close()
                    return
                if todo == "wait":
                    time.sleep(0.4)
                    todo = (200, {"count": 7}, {})
                status, said, more = todo
                sent = said if isinstance(said, bytes) else json.dumps(said).encode()
                self.send_response(status)
                for name, value in {"Content-Length": str(len(sent)), **more}.items():
                    self.send_header(name, value)
                with suppress(ConnectionError):  # a client that was told to wait may have gone
                    self.end_headers()
                    self.wfile.write(sent)

            do_GET = do_POST = do_PUT = do_DELETE = handle_any

            def log_message(self, format: str, *args: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def fake() -> Iterator[Fake]:
    made = Fake()
    yield made
    made.close()


def failure(code: str, message: str = "No.", hint: str | None = None) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "hint": hint}}


ITEM = {"id": "a", "text": "b"}
WRITTEN = (200, {"written": 1, "errors": [], "num_errors": 0}, {})
BUSY = (503, failure("collection_busy"), {"Retry-After": "0"})
FULL = (429, failure("overloaded"), {"Retry-After": "0"})


@pytest.mark.parametrize("waits", [True, False], ids=["waiting", "awaiting"])
@pytest.mark.parametrize(
    ("second", "taken_in"),
    [
        ((503, {"error": {**failure("timed_out")["error"], "taken_in": 3}}, {}), 259),
        ((503, failure("timed_out"), {}), 256),
        ((200, {"written": 43, "num_errors": 1, "errors": [
            {"index": 7, "id": "x", **failure("already_exists")}]}, {}), 300),
        ("hang up", 256),
        (None, 256),
    ],
    ids=["midway", "at once", "one refused", "hangs up", "no item"],
)  # fmt: skip
def test_an_add_that_breaks_off_says_how_much_was_taken_in(
    fake: Fake, waits: bool, second: Any, taken_in: int
) -> None:
    fake.script = [(200, {"written": 256, "errors": [], "num_errors": 0}, {}), second]
    items = [{"id": str(at), "text": "b"} for at in range(300)]
    if second is None:
        items[280] = {"id": 280, "text": "b"}  # type: ignore[dict-item]

    async def add() -> None:
        async with connect_async(fake.url, retries=0) as remote:
            await remote.add(items)

    with pytest.raises(TriptychError) as raised:
        if waits:
            with connect(fake.url, retries=0) as remote:
                remote.add(items)
        else:
            asyncio.run(add())
    assert raised.value.taken_in == taken_in


def test_an_add_of_which_nothing_was_taken_in_says_nothing(fake: Fake) -> None:
    fake.script = [FULL]
    with connect(fake.url, retries=0) as remote, pytest.raises(Overloaded) as raised:
        remote.add(ITEM)
    assert raised.value.taken_in is None


def test_a_key_goes_along_and_a_connection_is_kept(fake: Fake) -> None:
    with connect(fake.url, key="secret", collection="my photos") as remote:
        assert remote.count() == remote.count() == 7
        assert "secret" not in repr(remote.address)
        assert repr(remote) == f"<RemoteCollection 'my photos' of {fake.url}>"
    assert [path for _, path, _, _ in fake.got] == ["/v1/collections/my%20photos/items/count"] * 2
    assert all(headers["authorization"] == "Bearer secret" for _, _, headers, _ in fake.got)
    assert len(fake.peers) == 1


@pytest.mark.parametrize("hindrance", [BUSY, FULL, "hang up"])
def test_what_is_safe_is_sent_again(fake: Fake, hindrance: Any) -> None:
    with connect(fake.url) as remote:
        fake.script = [hindrance, hindrance]
        assert remote.count() == 7
        fake.script = [hindrance, WRITTEN]
        assert remote.upsert([ITEM]) == 1
    assert len(fake.got) == 5
    assert fake.got[3] == fake.got[4]


def test_after_a_lost_reply_an_add_is_not_sent_again(fake: Fake) -> None:
    with connect(fake.url) as remote:
        for write in (lambda: remote.add([ITEM]), lambda: remote.delete("a"), remote.drop):
            fake.script = ["hang up"]
            with pytest.raises(RemoteError) as caught:
                write()
            assert caught.value.code == "no_reply"
        fake.script = [BUSY]
        with pytest.raises(CollectionBusy):
            remote.add([ITEM])
        assert len(fake.got) == 4
        fake.script = [FULL, WRITTEN]  # refused before anything was done
        assert remote.add([ITEM]) == 1


def test_it_waits_as_long_as_it_is_told_and_not_for_ever(fake: Fake) -> None:
    with connect(fake.url, retries=1) as remote:
        fake.script = [(429, failure("overloaded"), {"Retry-After": "1"})]
        start = time.monotonic()
        assert remote.count() == 7
        assert time.monotonic() - start >= 1
        fake.script = [(429, failure("quota_exceeded"), {"Retry-After": "3600"})]
        with pytest.raises(Overloaded) as caught:
            remote.count()
        assert caught.value.retry_after == 3600
        fake.script = [BUSY, BUSY, BUSY]
        with pytest.raises(CollectionBusy):
            remote.count()
        assert len(fake.script) == 1


def test_a_server_that_does_not_answer_is_given_up(fake: Fake) -> None:
    fake.script = ["wait"]
    with (
        connect(fake.url, timeout=0.1, retries=0) as remote,
        pytest.raises(RemoteError, match="ReadTimeout"),
    ):
        remote.count()


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("not_found", NotFound),
        ("invalid_input", InvalidInput),
        ("already_exists", InvalidInput),
        ("picture_truncated", PictureError),
        ("model_mismatch", ModelMismatch),
        ("not_available", NotAvailable),
        ("rate_limited", Overloaded),
        ("timed_out", TimedOut),
        ("unauthorized", RemoteError),
        ("internal", RemoteError),
    ],
)
def test_a_servers_error_is_the_one_of_a_collection_here(
    fake: Fake, code: str, kind: type[Exception]
) -> None:
    fake.script = [(418, failure(code, "It is so.", "Do that."), {})]
    with connect(fake.url) as remote, pytest.raises(kind) as caught:
        remote.count()
    assert type(caught.value) is kind
    assert str(caught.value) == "It is so. Do that."
    if kind in (RemoteError, PictureError):
        assert caught.value.code == code  # type: ignore[attr-defined]
    if kind is RemoteError:
        assert caught.value.status == 418  # type: ignore[attr-defined]


@pytest.mark.parametrize("body", [b"", b"<html>Bad gateway</html>", b"[]", b'{"error": "x"}'])
def test_what_no_triptych_says_is_named_as_such(fake: Fake, body: bytes) -> None:
    fake.script = [(502, body, {}), (200, body, {})]
    with connect(fake.url) as remote:
        with pytest.raises(RemoteError, match="502"):
            remote.count()
        if body not in (b"[]", b'{"error": "x"}'):
            with pytest.raises(RemoteError, match="no JSON"):
                remote.count()


def test_much_is_sent_in_batches_as_it_is_made(fake: Fake) -> None:
    made = 0

    def items() -> Iterator[dict[str, Any]]:
        nonlocal made
        for at in range(600):
            made += 1
            yield {"id": f"{at}", "text": "x" * (40_000 if at >= 512 else 1)}

    sizes = [256, 256, 26, 52, 10]  # none took long, so twice the bytes each time
    fake.script = [(200, {"written": n, "errors": [], "num_errors": 0}, {}) for n in sizes]
    with connect(fake.url) as remote:
        assert remote.upsert(items()) == 600
        fake.script = [WRITTEN] * 3
        remote.upsert({"id": f"{n}", "text": "x" * 5_000_000} for n in range(3))
        made = 0
        fake.script = [(403, failure("read_only"), {})]
        with pytest.raises(RemoteError):
            remote.upsert(items())
        assert made == 257
    lines = [body.splitlines() for method, _, headers, body in fake.got]
    assert [len(batch) for batch in lines] == [*sizes, 1, 1, 1, 256]
    assert json.loads(lines[0][0]) == {"id": "0", "text": "x", "metadata": {}}
    assert all(headers["content-type"] == "application/x-ndjson" for _, _, headers, _ in fake.got)


def test_what_takes_long_is_sent_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server stores for longer than anybody waits without a byte: 256 long texts."""
    monkeypatch.setattr(prepare, "_GO", 0.1)
    sizes = []
    long = ({"id": f"{at}", "text": "x" * 30_000} for at in range(30))
    for call in Calls("x").writes(long, replace=True):
        assert call.body is not None
        sizes.append(len(call.body.splitlines()))
        time.sleep(0.05 * sizes[-1])
    assert sizes[0] == 8 and max(sizes[1:]) <= 4 and sum(sizes) == 30  # two, give or take


@pytest.mark.alone
def test_tasks_share_a_client_and_do_not_wait_for_each_other(fake: Fake) -> None:
    async def many() -> list[int]:
        async with connect_async(fake.url, key="k") as remote:
            fake.script = ["wait"] * 8
            return await asyncio.gather(*(remote.count() for _ in range(8)))

    start = time.monotonic()
    assert asyncio.run(many()) == [7] * 8
    assert time.monotonic() - start < 2.5


def test_a_forked_child_has_connections_of_its_own(fake: Fake) -> None:
    with connect(fake.url) as remote:
        remote.count()
        child = multiprocessing.get_context("fork").Process(target=remote.count)
        child.start()
        child.join()
        assert child.exitcode == 0 and len(fake.got) == 2
        assert len(fake.peers) == 2, "the child spoke over the connection of its parent"
        remote.count()
        assert len(fake.peers) == 2


def test_one_event_loop_after_another_may_use_a_client(fake: Fake) -> None:
    # in a process of its own: connections are not closed by a loop that is gone, and said not to be
    code = f"""
import asyncio, triptych
remote = triptych.connect_async({fake.url!r})
async def ask():
    return await remote.count()
print([asyncio.run(ask()) for _ in range(3)])
asyncio.run(remote.close())  # what is of another loop is no error
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[7, 7, 7]\n"


@pytest.mark.parametrize("ask", [lambda c: c.count(), lambda c: c.thumbnail("a")])
def test_a_redirection_is_no_answer(fake: Fake, ask: Any) -> None:
    fake.script = [(301, b"<a href=https://other>moved</a>", {"Location": "https://other/"})]
    with connect(fake.url) as remote, pytest.raises(RemoteError, match="answered 301"):
        ask(remote)


def test_an_async_client_retries_and_writes_too(fake: Fake) -> None:
    async def write() -> int:
        async with connect_async(fake.url) as remote:
            fake.script = [BUSY, "hang up", WRITTEN, WRITTEN]
            return await remote.upsert(iter([ITEM])) + await remote.add([ITEM])

    assert asyncio.run(write()) == 2


@pytest.mark.parametrize(
    "url",
    ["localhost:8000", "ftp://x", "/data", "", "http://", "http://x:port", "http://[::1", None],
)
def test_an_address_is_an_address(url: Any) -> None:
    with pytest.raises(InvalidInput, match="expected http"):
        connect(url)


def test_a_connection_that_was_closed_says_so(fake: Fake) -> None:
    async def ask_late() -> None:
        remote = connect_async(fake.url)
        assert await remote.count() == 7
        await remote.close()
        with pytest.raises(NotAvailable, match="closed"):
            await remote.count()

    remote = connect(fake.url)
    remote.close()
    with pytest.raises(NotAvailable, match="closed"):
        remote.count()
    asyncio.run(ask_late())


def test_a_password_in_an_address_is_not_shown() -> None:
    with pytest.raises(RemoteError, match=r"No answer from http://127\.0\.0\.1:9 ") as caught:
        connect("http://me:secret@127.0.0.1:9", retries=0).count()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:1", "ftp://127.0.0.1:1"])
def test_a_proxy_that_cannot_be_used(monkeypatch: pytest.MonkeyPatch, proxy: str) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy)
    monkeypatch.setitem(sys.modules, "socksio", None)
    with pytest.raises(NotAvailable, match="proxy"):
        connect("http://127.0.0.1:9")


def test_an_address_in_capitals_is_one(fake: Fake) -> None:
    with connect(fake.url.replace("http", "HTTP")) as remote:
        assert remote.count() == 7


@pytest.mark.parametrize("key", ["", "tt_abc\n", " tt_abc", "tt abc", "ключ"])
def test_a_key_that_is_none_is_refused_and_not_shown(key: str) -> None:
    with pytest.raises(InvalidInput, match="The key is empty") as caught:
        connect("http://127.0.0.1:1", key=key)
    assert "strip" in str(caught.value) and (not key or key not in str(caught.value))


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0}, {"timeout": -1}, {"timeout": None}, {"timeout": "5"},
        {"timeout": float("nan")}, {"timeout": float("inf")},
        {"retries": -1}, {"retries": None}, {"retries": 1.5},
    ],
)  # fmt: skip
def test_patience_is_a_number(options: dict[str, Any]) -> None:
    (name,) = options
    with pytest.raises(InvalidInput, match=name):
        connect_async("http://127.0.0.1:1", **options)


def test_codes_and_waits_are_read_with_care() -> None:
    assert retry_after({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}) is None
    assert retry_after({"retry-after": "-3"}) == 0
    assert retry_after({}) is None
    unknown = error_from("teapot", "Short and stout.", None, status=418)
    assert isinstance(unknown, RemoteError) and unknown.code == "teapot"


def test_connecting_loads_neither_torch_nor_a_server() -> None:
    code = (
        "import sys, triptych\n"
        "triptych.connect('http://127.0.0.1:1').close()\n"
        "print({'torch', 'fastapi', 'uvicorn', 'onnxruntime', 'faiss', 'apsw'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
