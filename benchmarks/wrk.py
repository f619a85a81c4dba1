"""`wrk` of Debian: connections that ask again as soon as they are answered."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

_NONE: Mapping[str, str] = MappingProxyType({})
_MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


class Load(NamedTuple):
    """How a server answered."""

    rate: float  # requests a second
    p50_ms: float


def require() -> None:
    """End the program where there is no wrk."""
    if shutil.which("wrk") is None:
        sys.exit("There is no wrk here. Run: scripts/find-program wrk")


def load(
    url: str,
    bodies: Sequence[str],
    *,
    connections: int,
    seconds: float,
    headers: Mapping[str, str] = _NONE,
) -> Load:
    """Post the bodies in turn, and again from the first, each a line; all must be answered."""
    said = {"Content-Type": "application/json", **headers}
    with tempfile.TemporaryDirectory() as folder:
        lines, script = Path(folder) / "bodies", Path(folder) / "ask.lua"
        lines.write_text("\n".join(bodies))
        script.write_text(
            "wrk.method='POST'\n"
            + "".join(f"wrk.headers['{name}']='{value}'\n" for name, value in said.items())
            + "local made,at={},0\n"
            f"init=function() for line in io.lines('{lines}') do "
            "made[#made+1]=wrk.format(nil,nil,nil,line) end end\n"
            "request=function() at=at+1; return made[(at-1)%#made+1] end\n"
        )
        options = ["-t1", f"-c{connections}", f"-d{seconds}s", "--latency", "-s", str(script)]
        told = subprocess.run(["wrk", *options, url], capture_output=True, text=True, check=True)
    return _read(told.stdout)


def _read(told: str) -> Load:
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    p50 = re.search(r"50%\s+([\d.]+)(us|ms|s)", told)
    assert "Non-2xx" not in told and rate is not None and p50 is not None, told
    return Load(rate=float(rate[1]), p50_ms=float(p50[1]) * _MILLISECONDS[p50[2]])
