"""One fork server for all tests of the folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.crash import shim
from tests.crash.server import ForkServer

_FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    if not shim.available():
        pytest.skip("needs gcc")
    library = shim.build(tmp_path_factory.mktemp("shim"))
    with ForkServer(preload=library) as started:
        yield started


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    item.stash[_FAILED] = item.stash.get(_FAILED, False) or report.failed
    return report


@pytest.fixture
def home(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Return a folder in memory where there is one: no process here outlives the kernel, so what a
    sync costs on a disk would only make the same calls slower. It is kept where the test failed."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="triptych-", dir=memory))
    yield folder
    if not request.node.stash.get(_FAILED, False):
        shutil.rmtree(folder)
