"""`triptych serve` in a process of its own, as users run it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


@contextmanager
def served(data: Path, *options: str, **variables: str) -> Iterator[str]:
    """Yield the address of a server of the folder `data`; it must stop in peace."""
    with started(data, *options, **variables) as (url, _):
        yield url


@contextmanager
def started(
    data: Path, *options: str, **variables: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Yield address and process of a server; it must stop in peace, if it was not killed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("TRIPTYCH_")}
    env |= variables
    command = [sys.executable, "-m", "triptych", "serve", "--port", "0", "--log", "off"]
    server = subprocess.Popen(
        [*command, "--data", str(data), "--model", "hashing:64", *options],
        cwd=ROOT,
        env=env,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    try:
        said = server.stderr.readline()
        found = re.search(r"http://\S+", said)
        assert found is not None, said + server.stderr.read()
        yield found[0], server
    finally:
        server.send_signal(signal.SIGTERM)
        rest = server.communicate(timeout=30)[1]
        assert server.returncode in (0, -signal.SIGKILL), rest
