"""From nothing to the first search: the wheel into an empty environment, and `make demo`, timed.

Both with pip's cache as it is, so run it twice to see a warm one. `make demo` runs in a clean
clone of HEAD.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.common import seconds

ROOT = Path(__file__).parent.parent


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder) / "triptych"
        _run("git", "clone", "--quiet", str(ROOT), str(clone))
        _run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, str(clone))
        (wheel,) = Path(folder).glob("*.whl")
        python = f"{folder}/venv/bin/python"
        _run("python3", "-m", "venv", f"{folder}/venv")
        constraints = str(clone / "constraints.txt")
        install = [python, "-m", "pip", "install", "-q", "-c", constraints, str(wheel)]
        print(f"wheel        {wheel.stat().st_size / 2**20:.1f} MB", flush=True)
        took = seconds(lambda: _run(*install))
        print(f"pip install  {took:.1f} s, the wheel and its dependencies", flush=True)
        _run(python, "-c", "import importlib.util as u; assert u.find_spec('torch') is None")
        took = seconds(lambda: _run("make", "-C", str(clone), "demo"))
        print(f"make demo    {took:.1f} s, in a clean clone")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


if __name__ == "__main__":
    main()
