"""A damaged folder gives the same answers, or says that it cannot; never others in silence."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.references import damage_often
from tests.crash.server import ForkServer


@pytest.mark.slow
def test_damaged_folders(
    server: ForkServer, home: Path, pytestconfig: pytest.Config, report: Callable[[str], None]
) -> None:
    began = time.perf_counter()
    damaged, seed = pytestconfig.getoption("damaged"), pytestconfig.getoption("seed")
    tally = damage_often(server, home, damaged=damaged, seed=seed)
    report(f"{tally}\n{time.perf_counter() - began:.0f} s")
    assert not tally.wrong, f"{len(tally.wrong)} of them:\n" + "\n".join(tally.wrong[:30])
