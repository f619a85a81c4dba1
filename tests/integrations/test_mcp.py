"""The MCP server as clients meet it: over a pipe and over HTTP, with garbage too."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx2
import pytest
from PIL import Image

import triptych
from triptych.api.config import ServerConfig, Times
from triptych.api.server import _Server
from triptych.integrations.mcp import McpHttpServer
from triptych.integrations.mcp_tools import McpConfig, Tools
from triptych.keys import new_key
from triptych.settings import Settings

ROOT = Path(__file__).parent.parent.parent
HELLO = {
    "protocolVersion": "2025-06-18",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


NO_IDS = (b'"id": {}, ', b'"id": [1], ', b'"id": null, ', b'"id": true, ', b'"id": 1.5, ', b"")


def asked(method: str, params: Any = None, *, id: int = 1) -> dict[str, Any]:
    return {
        "jsonrpc": "2.0",
        "id": id,
        "method": method,
        "params": {} if params is None else params,
    }


def called(name: str, arguments: Any, *, id: int = 1) -> dict[str, Any]:
    return asked("tools/call", {"name": name, "arguments": arguments}, id=id)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    data = tmp_path_factory.mktemp("data")
    Image.new("RGB", (32, 32), (220, 10, 10)).save(data / "red.png")
    with triptych.open(data / "default" / "default", model="hashing:64") as collection:
        collection.upsert([{"id": "note", "text": "a note on apples"}])
        collection.upsert([{"id": "red", "image": data / "red.png"}])
    return data


class Piped:
    """`triptych mcp` in a process of its own."""

    def __init__(self, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "triptych", "mcp", "--model", "hashing:64", *options],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def say(self, line: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the reply with the message's id; others are answers to garbage."""
        self.say(json.dumps(message).encode())
        while (reply := self.reply())["id"] != message["id"]:
            pass
        return reply

    def reply(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, f"the server ended: {self.process.communicate()[1].decode()}"
        return dict(json.loads(line))


@contextmanager
def piped(*options: str) -> Iterator[Piped]:
    server = Piped(*options)
    try:
        assert "result" in server.ask(asked("initialize", HELLO))
        server.say(b'{"jsonrpc": "2.0", "method": "notifications/initialized"}')
        yield server
    finally:
        said = server.process.communicate(timeout=30)[1].decode()
        assert server.process.returncode == 0, said
        assert "Traceback" not in said, said


def test_a_client_over_a_pipe_finds_pictures_and_sends_garbage(data: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    with piped("--data", str(data), "--folder", str(data)) as server:
        listed = server.ask(asked("tools/list", id=2))["result"]["tools"]
        assert [tool["name"] for tool in listed] == ["search", "get", "add", "count", "list"]
        found = server.ask(called("search", {"image": "red.png", "limit": 1}, id=3))["result"]
        assert found["structuredContent"]["hits"][0]["id"] == "red"
        picture = found["content"][-1]
        assert (picture["type"], picture["mimeType"]) == ("image", "image/jpeg")
        assert Image.open(BytesIO(base64.b64decode(picture["data"]))).size == (32, 32)
        for garbage in (
            b"{",
            b"\xff\xfe\x00",
            b"[]",
            b"null",
            b'{"jsonrpc": "2.0", "id": 90, "method": 7}',
            b"[" * 100_000,
            b'"' + b"x" * 2_000_000,
        ):
            server.say(garbage)
            refused = server.reply()
            assert (
                refused["id"] is None and "expected one JSON object" in refused["error"]["message"]
            )
        for id in NO_IDS:
            server.say(b'{"jsonrpc": "2.0", %s"method": "tools/list"}' % id)
            refused = server.reply()
            assert refused["id"] is None and "needs an id" in refused["error"]["message"], id
        for number, message in enumerate(
            [
                called("drop", {}),
                called("search", {"query": 7}),
                called("search", {"image": str(tmp_path / "secret.txt")}),
                called("get", {"ids": "note"}),
            ],
            start=10,
        ):
            reply = server.ask({**message, "id": number})["result"]
            assert reply["isError"] and len(reply["content"][0]["text"]) > 20
            assert "secret" not in reply["content"][0]["text"].replace("secret.txt", "")
        refused = server.ask(called("search", [1], id=20))["error"]
        assert refused["message"].startswith("The parameters of tools/call cannot be used: ")
        assert "error" in server.ask(asked("tools/burn", id=21))
        counted = server.ask(called("count", {}, id=30))["result"]
        assert counted["structuredContent"] == {"count": 2}


def test_a_call_over_a_pipe_has_its_time(data: Path) -> None:
    with piped("--data", str(data), "--request-timeout", "0.000001") as server:
        item = {"items": [{"id": "late", "text": "x"}]}
        for name, arguments, hint in (
            ("search", {"query": "x"}, "Ask for fewer hits"),
            ("add", item, "fewer at a time"),
            ("list", {}, "Try again later."),
        ):
            reply = server.ask(called(name, arguments, id=40))["result"]
            said = reply["content"][0]["text"]
            assert reply["isError"] and said.startswith(f"{name} took longer than 1e-06 s. ")
            assert hint in said
        assert "result" in server.ask(asked("tools/list", id=41))


def test_a_call_that_hangs_is_answered_and_others_go_on(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs = threading.Event()
    really = Tools._count

    def count(self: Tools, tenant: str, given: Any) -> Any:
        hangs.wait(20)
        return really(self, tenant, given)

    monkeypatch.setattr(Tools, "_count", count)
    with over_http(data, McpConfig(seconds=0.3)) as client:
        for _ in range(3):
            reply = client.post("/mcp", json=called("count", {})).json()["result"]
            assert reply["isError"] and "took longer than 0.3 s" in reply["content"][0]["text"]
        reply = client.post("/mcp", json=called("list", {})).json()["result"]
        assert reply["structuredContent"] == {"collections": ["default"]}
        gone = client.post("/mcp", json=called("get", {"ids": ["a"], "collection": "gone"}))
        assert "the tool list." in gone.json()["result"]["content"][0]["text"]
        hangs.set()
        reply = client.post("/mcp", json=called("count", {})).json()["result"]
        assert reply["structuredContent"] == {"count": 2}


@contextmanager
def over_http(data: Path, tools: McpConfig | None = None, **options: Any) -> Iterator[Any]:
    """Yield a client of the server at /mcp."""
    keys = options.pop("keys", [])
    server = McpHttpServer(
        Settings(data=data, model="hashing:64"),
        ServerConfig(port=0, model="hashing:64", log="off", times=Times(drain=5), **options),
        tools=tools or McpConfig(),
        keys=keys,
    )
    listener = server.bind()
    running = _Server(server.uvicorn_config(), server.application)
    thread = threading.Thread(
        target=lambda: asyncio.run(running.serve(sockets=[listener])), daemon=True
    )
    thread.start()
    until = time.monotonic() + 20
    while not running.started:
        assert thread.is_alive() and time.monotonic() < until, "the server did not start"
        time.sleep(0.005)
    headers = {"Accept": "application/json, text/event-stream"}
    port = listener.getsockname()[1]
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30) as client:
        yield client
    running.should_exit = True
    thread.join(20)
    assert not thread.is_alive(), "the server did not stop"


def test_http_finds_and_refuses(data: Path) -> None:
    with over_http(data) as client:

        def ask(message: Any, **headers: str) -> httpx2.Response:
            return client.post("/mcp", json=message, headers=headers)

        assert ask(asked("initialize", HELLO)).json()["result"]["serverInfo"]["name"] == "triptych"
        found = ask(called("search", {"query": "apples", "limit": 2})).json()["result"]
        assert found["structuredContent"]["hits"][0]["id"] == "note"
        assert {block["type"] for block in found["content"]} == {"text", "image"}
        # no folder is allowed: not even a file that is there
        refused = ask(called("search", {"image": str(data / "red.png")})).json()["result"]
        assert refused["isError"]
        for headers in (
            {"Host": "evil.example"},
            {"Origin": "http://evil.example"},
            {"Sec-Fetch-Site": "cross-site"},
        ):
            reply = ask(called("count", {}), **headers)
            assert reply.status_code == 403 and reply.json()["error"]["code"].startswith("wrong_")
        as_json = {"Content-Type": "application/json"}
        no_version = json.dumps({"id": 1, "method": "tools/list"}).encode()
        for body in (b"{", b"\xff", b"[]", b"null", b"[" * 100_000, b"", no_version):
            reply = client.post("/mcp", content=body, headers=as_json)
            assert reply.status_code == 400, (body[:9], reply.text)
            assert "expected one JSON object" in reply.json()["error"]["message"]
        for id in NO_IDS:
            body = b'{"jsonrpc": "2.0", %s"method": "tools/list"}' % id
            reply = client.post("/mcp", content=body, headers=as_json)
            assert reply.status_code == 400, id
            assert "needs an id" in reply.json()["error"]["message"]
        told = client.post("/mcp", json={"jsonrpc": "2.0", "method": "notifications/initialized"})
        assert (told.status_code, told.content) == (202, b"")
        for method in ("GET", "DELETE"):
            reply = client.request(method, "/mcp")
            assert (reply.status_code, reply.headers["allow"]) == (405, "POST"), method
            assert "Send a message with POST" in reply.json()["error"]["message"]
        assert client.post("/mcp", content=b"x" * (33 * 2**20)).status_code == 413
        assert client.get("/v1/collections").status_code == 404
        assert ask(called("count", {})).json()["result"]["structuredContent"] == {"count": 2}


def test_http_takes_the_same_keys(data: Path) -> None:
    reads, reader = new_key("reader")
    other, stranger = new_key("stranger", tenant="other", role="write")
    with over_http(data, keys=[reader, stranger]) as client:

        def ask(message: Any, key: str | None) -> httpx2.Response:
            headers = {} if key is None else {"Authorization": f"Bearer {key}"}
            return client.post("/mcp", json=message, headers=headers)

        assert ask(called("count", {}), None).status_code == 401
        assert ask(called("count", {}), "wrong" * 10).status_code == 401
        assert ask(called("count", {}), reads).json()["result"]["structuredContent"] == {"count": 2}
        item = {"items": [{"id": "x", "text": "y"}]}
        refused = ask(called("add", item), reads).json()["result"]
        assert refused["isError"] and "role write" in refused["content"][0]["text"]
        elsewhere = ask(called("count", {}), other).json()["result"]
        assert elsewhere["isError"] and "no collection" in elsewhere["content"][0]["text"]
        assert ask(called("list", {}), other).json()["result"]["structuredContent"] == {
            "collections": []
        }


def test_a_server_may_be_behind_it(live: Any) -> None:
    with triptych.connect(live.url, collection="behind") as remote:
        remote.create(model="hashing:64")
        remote.upsert([{"id": "1", "text": "apples"}])
        with piped("--url", live.url, "-c", "behind") as server:
            found = server.ask(called("search", {"query": "apples"}, id=5))["result"]
            assert found["structuredContent"]["hits"][0]["id"] == "1"
            added = called("add", {"items": [{"id": "2", "text": "pears"}]}, id=6)
            assert server.ask(added)["result"]["structuredContent"] == {"written": 1}
        assert remote.count() == 2
        remote.drop()
