"""Ports for servers of the tests that must know theirs before they bind it, or bind it again."""

from __future__ import annotations

import itertools
import os
import socket
from pathlib import Path

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_EACH = 500  # ports that a process of the tests has for itself
_numbers = itertools.count()


def free_port() -> int:
    """Return one that nobody has, and that nobody is given until the server has bound it.

    One that the system chose is free again at once: any connection may get it before the server.
    """
    lowest = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 32_768
    ours = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = lowest - _EACH * (ours % 32 + 1)
    for at in _numbers:
        port = first + at % _EACH
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:  # somebody has it
            continue
    raise AssertionError("unreachable")
