"""One server for the tests that do not need one of their own."""

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.api.live import Live, serving


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server on loopback without keys, with one collection `photos`."""
    with serving(tmp_path_factory.mktemp("data"), pool=4) as running:
        running.json("POST", "/v1/collections", {"name": "photos"})
        yield running


@pytest.fixture(scope="session")
def red() -> bytes:
    """A small red PNG."""
    return png("red")


def png(colour: str, size: tuple[int, int] = (64, 48)) -> bytes:
    """Return an encoded picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An empty data folder."""
    return tmp_path / "data"
