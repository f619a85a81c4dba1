"""The other end of worker.py: starts a contestant and asks it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

ROOT = Path(__file__).parent.parent.parent
PEERS = ROOT / ".work" / "peers" / "bin" / "python"


class Contestant:
    """A process that answers `ask`; `under` is a command to run it under."""

    def __init__(self, name: str, count: int, *, under: Sequence[str] = ()) -> None:
        self.name = name
        python = sys.executable if name.startswith("triptych") else str(PEERS)
        self._process = subprocess.Popen(
            [*under, python, "-m", "benchmarks.peers.worker", name, str(count)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._answer()

    def ask(self, do: str, **arguments: Any) -> Any:
        """Return the answer; raises RuntimeError where the process is gone."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, **arguments}) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def stop(self) -> None:
        """Let the process end."""
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self._process.wait()}.")
        return json.loads(line)


def installed() -> bool:
    """Return whether the peers' environment is there."""
    return PEERS.exists()
