"""Collections for the frameworks: in a folder, and on a server."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import triptych
from tests.api.live import Live, serving

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"  # read at import: no test calls anybody


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("served")) as running:
        yield running


@pytest.fixture(params=["folder", "server"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """An empty collection."""
    if request.param == "folder":
        with triptych.open(tmp_path / "collection", model="hashing:64") as here:
            yield here
        return
    yield request.getfixturevalue("served")


@pytest.fixture
def served(live: Live) -> Iterator[Any]:
    """An empty collection of a server."""
    with triptych.connect(live.url, collection="framework") as remote:
        remote.create(model="hashing:64")
        yield remote
        remote.drop()


@pytest.fixture
def red(tmp_path: Path) -> Path:
    path = tmp_path / "red.png"
    Image.new("RGB", (32, 32), (220, 10, 10)).save(path)
    return path


@pytest.fixture
def blue(tmp_path: Path) -> Path:
    path = tmp_path / "blue.png"
    Image.new("RGB", (32, 32), (10, 10, 220)).save(path)
    return path


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
