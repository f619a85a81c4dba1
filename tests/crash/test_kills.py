"""SIGKILL at any moment: what was acknowledged is there, nothing is half there."""

from __future__ import annotations

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


def test_an_endless_child_is_ended(server: ForkServer) -> None:
    assert server.run("linger", seconds=30, limit=0.1).slow
    assert server.run("linger", seconds=30, kill_after=0.1).killed
