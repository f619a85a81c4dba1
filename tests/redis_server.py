"""A real Redis for the tests: in a folder of its own, on a socket, kept nowhere, stopped after."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import redis


class RedisServer:
    """One redis-server; `start` and `stop` may follow each other."""

    def __init__(self, *options: str) -> None:
        self._options = options
        # the path of a socket holds 107 bytes, and those of pytest are long
        self.folder = Path(tempfile.mkdtemp(prefix="triptych-redis-"))
        self.socket = self.folder / "redis.sock"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def client(self, *, password: str | None = None) -> redis.Redis:
        """Return a plain client, to look at what lies there and to spoil it."""
        return redis.Redis(unix_socket_path=str(self.socket), password=password)

    def start(self, *, password: str | None = None) -> None:
        server = shutil.which("redis-server")
        assert server, "run scripts/find-program redis-server"
        settings = ["--port", "0", "--unixsocket", str(self.socket), "--save", ""]
        settings += ["--appendonly", "no", "--dir", str(self.folder), *self._options]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen([server, *settings], stdout=log, stderr=log)
        until = time.monotonic() + 10
        while not self._answers(password):
            assert time.monotonic() < until, (self.folder / "log").read_text()
            time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    def _answers(self, password: str | None) -> bool:
        with self.client(password=password) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False
