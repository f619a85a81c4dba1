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
from triptych.index.snapshot import Snapshots
from triptych.retrieval.folder import INDEX

KINDS = ["flat", "hnsw"]


@pytest.fixture
def during(kind: str, pytestconfig: pytest.Config) -> str | None:
    """What is made to fail: with a graph where that is written, and in earnest everything too."""
    in_earnest = pytestconfig.getoption("kills") > 500
    return None if kind == "flat" or in_earnest else "optimize"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name.lower())
def test_a_fault_at_every_call(
    server: ForkServer,
    home: Path,
    mode: Mode,
    kind: str,
    during: str | None,
    report: Callable[[str], None],
) -> None:
    began = time.perf_counter()
    tally = fail_everywhere(server, home, kind, mode, during=during)
    report(f"{kind}: {tally}; {time.perf_counter() - began:.0f} s; {dict(tally.errors)}")
    assert not tally.wrong, "\n".join(tally.wrong[:10])
    assert tally.tried[mode.name] > (20 if during else 100)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_power_cut_at_every_call(
    server: ForkServer,
    home: Path,
    kind: str,
    during: str | None,
    pytestconfig: pytest.Config,
    report: Callable[[str], None],
) -> None:
    began = time.perf_counter()
    seed = pytestconfig.getoption("seed")
    tally = cut_the_power_everywhere(server, home, kind, seed=seed, during=during)
    report(f"{kind}: {tally}; {time.perf_counter() - began:.0f} s")
    assert not tally.wrong, "\n".join(tally.wrong[:10])
    assert tally.tried["torn"] > (20 if during else 100)


@pytest.mark.parametrize("kind", KINDS)
def test_the_trace_holds_every_byte(server: ForkServer, home: Path, kind: str) -> None:
    """Else a power cut would be played with too little: a library may write by other ways."""
    folder, trace, copy = home / "c", home / "trace", home / "copy"
    server.run("record", folder=folder, trace=trace, kind=kind)
    saved = Snapshots(folder / INDEX).manifest()
    assert saved is not None and saved.kind == kind
    disk = Disk(str(folder.resolve()))
    for event in read_trace(trace):
        disk.apply(event)
    disk.materialise(copy, "all", random.Random(0))
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert names == {path.relative_to(copy) for path in copy.rglob("*") if path.is_file()}
    for name in names:
        assert (copy / name).read_bytes() == (folder / name).read_bytes(), name
