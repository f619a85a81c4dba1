"""Servers in processes of their own: any, and ours."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx2

Process = subprocess.Popen[bytes]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def running(command: list[str], port: int, path: str) -> Iterator[Process]:
    """Yield a server that answers."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                httpx2.get(f"http://127.0.0.1:{port}{path}")
                break
            except httpx2.TransportError:
                time.sleep(0.05)
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def our_server(
    data: Path, *options: str, ready: str = "/livez", under: Sequence[str] = ()
) -> Iterator[tuple[str, Process]]:
    """Yield the address of our server on a data folder, and its process, run by `under`."""
    port = free_port()
    command = [*under, sys.executable, "-m", "triptych", "serve"]
    command += ["--port", str(port), "--data", str(data), *options]
    with running(command, port, ready) as process:
        yield f"http://127.0.0.1:{port}", process
