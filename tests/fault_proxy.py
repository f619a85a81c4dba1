"""A proxy that makes what is behind it slow, silent, cut off or lying, and lets it be well again."""

from __future__ import annotations

import socket
import struct
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

Fault = Callable[[socket.socket, bytes], None]
"""Sends a reply on to the client, or something else."""


def honest(client: socket.socket, reply: bytes) -> None:
    client.sendall(reply)


def late(seconds: float) -> Fault:
    def send(client: socket.socket, reply: bytes) -> None:
        time.sleep(seconds)
        client.sendall(reply)

    return send


def silent(client: socket.socket, reply: bytes) -> None:
    pass


def trickling(client: socket.socket, reply: bytes) -> None:
    """Send a byte every 10 ms: no single wait is long."""
    for at in range(len(reply)):
        time.sleep(0.01)
        client.sendall(reply[at : at + 1])


def cut(client: socket.socket, reply: bytes) -> None:
    client.sendall(reply[: len(reply) // 2])
    # a reset instead of an end
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def lying(answer: bytes) -> Fault:
    def send(client: socket.socket, reply: bytes) -> None:
        client.sendall(answer)

    return send


class Swapping:
    """Gives each the answer to the question before."""

    def __init__(self) -> None:
        self._last = b"$-1\r\n"

    def __call__(self, client: socket.socket, reply: bytes) -> None:
        client.sendall(self._last)
        self._last = reply


class FaultProxy:
    """Listens on a socket of its own and passes all on to `target`, replies by way of `fault`."""

    def __init__(self, target: Path) -> None:
        self.fault: Fault = honest
        self._target = target
        self._folder = tempfile.TemporaryDirectory(prefix="triptych-proxy-")
        self.socket = Path(self._folder.name) / "proxy.sock"
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.accept()

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def accept(self) -> None:
        """Take connections; from now on, where they were refused."""
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.socket))
        listener.listen(64)
        self._listener = listener
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def refuse(self) -> None:
        """Refuse connections, and end those that there are."""
        if self._listener is not None:
            self.socket.unlink()
            self._end(self._listener)
            self._listener = None
        for one in self._open:
            self._end(one)
        self._open.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.refuse()
        self._folder.cleanup()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(str(self._target))
                self._open += [client, server]
                for pump in (self._ask, self._answer):
                    threading.Thread(target=pump, args=(client, server), daemon=True).start()

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 20):
                server.sendall(data)
        self._end(server)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 20):
                self.fault(client, data)
        self._end(client)

    def _end(self, one: socket.socket) -> None:
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)
        one.close()
