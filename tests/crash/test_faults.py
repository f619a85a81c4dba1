"""The disk fails at any of its calls: nothing acknowledged is lost, and the error is one of ours."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.disk import Disk, read_trace
from tests.crash.faults import MODES, cut_the_power_everywhere, fail_everywhere
from tests.crash.server import ForkServer
from tests.crash.shim import Mode

# the vectors' index differs by kind, the calls of the disk hardly
KIND = "flat"


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.lower())
def test_a_fault_at_every_call(
    server: ForkServer, home: Path, mode: Mode, report: Callable[[str], None]
) -> None:
    began = time.perf_counter()
    tally = fail_everywhere(server, home, KIND, mode)
    report(f"{tally}; {time.perf_counter() - began:.0f} s; {dict(tally.errors)}")
    assert not tally.wrong, "\n".join(tally.wrong[:10])
    assert tally.points > 100


@pytest.mark.slow
def test_a_power_cut_at_every_call(
    server: ForkServer,
    home: Path,
    pytestconfig: pytest.Config,
    report: Callable[[str], None],
) -> None:
    began = time.perf_counter()
    seed = pytestconfig.getoption("seed")
    tally = cut_the_power_everywhere(server, home, KIND, seed=seed)
    report(f"{tally}; {time.perf_counter() - began:.0f} s")
    assert not tally.wrong, "\n".join(tally.wrong[:10])


def test_the_trace_holds_every_byte(server: ForkServer, home: Path) -> None:
    """Else a power cut would be played with too little: a library may write by other ways."""
    folder, trace, copy = home / "c", home / "trace", home / "copy"
    server.run("record", folder=folder, trace=trace, kind=KIND)
    disk = Disk(str(folder.resolve()))
    for event in read_trace(trace):
        disk.apply(event)
    disk.materialise(copy, "all", random.Random(0))
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert names == {path.relative_to(copy) for path in copy.rglob("*") if path.is_file()}
    for name in names:
        assert (copy / name).read_bytes() == (folder / name).read_bytes(), name
