from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from triptych.cli.main import main


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty data folder and a model without weights."""
    monkeypatch.setenv("TRIPTYCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("TRIPTYCH_MODEL", "hashing")
    return tmp_path / "data"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four plain pictures named by their colour."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for colour in ("red", "green", "blue", "yellow"):
        Image.new("RGB", (64, 48), colour).save(folder / f"{colour}.png")
    return folder


@pytest.fixture
def run(data: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Call the command line; returns exit code, standard output, standard error."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(arguments)
        out, err = capsys.readouterr()
        return code, out, err

    return call
