"""A real server on a free port, in a thread of this process."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2

from triptych.api.config import Limits, ServerConfig, Times
from triptych.api.server import HttpServer, _Server
from triptych.cache.config import CacheConfig
from triptych.keys import Key
from triptych.settings import Settings


class Live:
    """A running server, and a client for it."""

    def __init__(self, server: HttpServer, port: int, stop: Callable[[], None]) -> None:
        self.server, self.port, self.stop = server, port, stop
        self.services = server.application.services
        self.url = f"http://127.0.0.1:{port}"
        self.client = httpx2.Client(base_url=self.url, timeout=30)

    def json(self, method: str, path: str, body: Any = None, **more: Any) -> Any:
        """Return the JSON of a reply that must be a success."""
        reply = self.client.request(method, path, json=body, **more)
        assert reply.status_code < 300, (reply.status_code, reply.text)
        return reply.json() if reply.content else None

    def error(self, method: str, path: str, body: Any = None, **more: Any) -> tuple[int, str]:
        """Return status and code of a reply that must be an error of our shape."""
        if body is not None:
            more["json"] = body
        return told(self.client.request(method, path, **more))

    def raw(self, data: bytes, *, wait: float = 10.0) -> bytes:
        """Return all that the server says to these bytes until it hangs up or `wait` is over."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=wait) as connected:
            connected.sendall(data)
            return read_all(connected)


def told(reply: httpx2.Response) -> tuple[int, str]:
    """Return status and code; every error has one shape."""
    body = json.loads(reply.content)
    assert set(body) == {"error"}, body
    assert set(body["error"]) - {"taken_in"} == {"code", "message", "hint"}, body
    assert body["error"].get("taken_in", 1) > 0, body
    assert body["error"]["message"], body
    assert reply.headers["x-request-id"]
    return reply.status_code, body["error"]["code"]


def read_all(connected: socket.socket) -> bytes:
    """Return what comes until the other side hangs up, or nothing comes any more."""
    found = b""
    try:
        while data := connected.recv(65536):
            found += data
    except (TimeoutError, ConnectionResetError):
        pass
    return found


@contextmanager
def serving(
    data: Path,
    *,
    key_file: Path | None = None,
    keys: Sequence[Key] = (),
    limits: Limits | None = None,
    times: Times | None = None,
    wrap: Any = None,
    **config: Any,
) -> Iterator[Live]:
    """Serve the folder with the model without weights, unless another is said."""
    model = config.pop("model", "hashing:64")
    settings = Settings(data=data, model=model, cache=config.pop("cache", CacheConfig()))
    server = HttpServer(
        settings,
        ServerConfig(
            port=0,
            model=model,
            log="off",
            limits=limits or Limits(),
            times=times or Times(drain=5),
            **config,
        ),
        key_file=key_file,
        keys=list(keys),
    )
    if wrap is not None:
        server.traced = wrap
    listener = server.bind()
    running = _Server(server.uvicorn_config(), server.application)
    thread = threading.Thread(target=_run, args=(running, listener), daemon=True)
    thread.start()
    until = time.monotonic() + 20
    while not running.started:
        assert thread.is_alive() and time.monotonic() < until, "the server did not start"
        time.sleep(0.005)

    def stop() -> None:
        running.should_exit = True

    live = Live(server, listener.getsockname()[1], stop)
    try:
        yield live
    finally:
        live.client.close()
        stop()
        thread.join(20)
        assert not thread.is_alive(), "the server did not stop"


def _run(running: _Server, listener: socket.socket) -> None:
    factory = running.config.get_loop_factory()
    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(running.serve(sockets=[listener]))
