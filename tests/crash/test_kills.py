"""SIGKILL at any moment: what was acknowledged is there, nothing is half there."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.kills import kill_often
from tests.crash.server import ForkServer


@pytest.mark.slow
def test_a_kill_loses_nothing(
    server: ForkServer, home: Path, pytestconfig: pytest.Config, report: Callable[[str], None]
) -> None:
    kills, seed = pytestconfig.getoption("kills"), pytestconfig.getoption("seed")
    began = time.perf_counter()
    tally = kill_often(server, home, kills=kills, seed=seed)
    seconds = time.perf_counter() - began
    report(f"{tally}\n{seconds:.0f} s, {tally.kills / seconds * 60:.0f} kills a minute")
    assert not tally.wrong, "\n".join(tally.wrong[:10])
    if kills >= 500:
        # each kind of call was met
        met = {"add", "upsert", "delete", "compact", "recovery", "reopen"}
        assert met | {"migrate", "export", "import", "repair"} <= set(tally.during)


def test_a_child_that_others_keep_off_the_core_is_not_slow(server: ForkServer) -> None:
    core = min(os.sched_getaffinity(0))
    busy = f"import os; os.sched_setaffinity(0, {{{core}}})\nwhile True: pass"
    others = [subprocess.Popen([sys.executable, "-c", busy]) for _ in range(3)]
    try:
        assert server.run("toil", seconds=1.0, core=core, limit=2.0).value is not None
        assert server.run("toil", seconds=30.0, core=core, limit=0.2).slow
    finally:
        for other in others:
            other.kill()
            other.wait()


def test_an_endless_child_is_ended(server: ForkServer) -> None:
    assert server.run("linger", seconds=30, limit=0.1).slow
    assert server.run("linger", seconds=30, kill_after=0.1).killed
