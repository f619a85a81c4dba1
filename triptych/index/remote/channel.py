"""A local socket: where it lies, who is at its other end, whole messages through it."""

from __future__ import annotations

import os
import socket
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from triptych.errors import NotAvailable
from triptych.index.remote.wire import Buffer, Frame, read_frame

SOCKET = "writer.sock"
_LONGEST = 107  # bytes of a path that fit into sun_path, its zero left out
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid


@contextmanager
def address(folder: Path) -> Iterator[str]:
    """Yield a path of the folder's socket that is short enough for the kernel."""
    path = str(folder / SOCKET)
    if len(os.fsencode(path)) <= _LONGEST:
        yield path
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{opened}/{SOCKET}"
    finally:
        os.close(opened)


def check_peer(connection: socket.socket) -> None:
    """Raise NotAvailable where one end is another user's process and neither is root's."""
    size = _CREDENTIALS.size
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, user, _ = _CREDENTIALS.unpack(raw)
    if user not in (os.geteuid(), 0):
        raise NotAvailable(
            f"Got a connection of user {user}, expected user {os.geteuid()} or root.",
            hint="Run both as the same user.",
        )


def send(connection: socket.socket, parts: Sequence[Buffer], *, timeout: float) -> None:
    """Send one message; raises OSError where the other end is gone, or stalls for `timeout` s."""
    connection.settimeout(timeout)
    for part in parts:
        view = memoryview(part)
        while view:  # sendall would count the seconds of the whole, not those without progress
            view = view[connection.send(view) :]


def receive(connection: socket.socket, *, stall: float | None, total: float | None = None) -> Frame:
    """Return the next message.

    Raises EOFError at its end, OSError where it breaks, brings nothing for `stall` seconds or
    takes more than `total`, InvalidInput and NotAvailable as `read_frame`.
    """
    end = None if total is None else time.monotonic() + total

    def read(count: int) -> memoryview:
        # not zeroed: what a liar announces costs no memory until it comes
        view = np.empty(count, dtype=np.uint8).data
        filled = 0
        while filled < count:
            connection.settimeout(_patience(stall, end))
            got = connection.recv_into(view[filled:])
            if not got:
                raise EOFError
            filled += got
        return view

    return read_frame(read)


def _patience(stall: float | None, end: float | None) -> float | None:
    if end is None:
        return stall
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left if stall is None else min(stall, left)
