"""Every model passes one suite."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.encoder_suite import EncoderSuite, TokenSuite
from triptych.settings import Settings

without_torch = pytest.mark.skipif(find_spec("open_clip") is None, reason="needs open_clip")

NAMES = [
    pytest.param("hashing:64", id="hashing"),
    pytest.param("open_clip:ViT-S-32-alt:random", id="open_clip", marks=without_torch),
    pytest.param("default", id="default"),
]


@cache
def made(name: str) -> Any:
    return Settings(data=Path("unused")).open_model(name)


@pytest.mark.parametrize("name", NAMES)
class TestModels(EncoderSuite):
    @pytest.fixture
    def model(self, name: str) -> Any:
        return made(name)

    @pytest.fixture
    def is_quantised(self, name: str) -> bool:
        return name.startswith("default")

    @pytest.fixture
    def fuses(self, name: str) -> bool:
        """Whether an item's text and picture see each other."""
        return name.startswith("default")

    def test_the_fingerprint_is_the_same_in_another_process(self, model: Any, name: str) -> None:
        code = (
            "import sys; from tests.conformance.test_encoders import made;"
            "from tests.conformance.encoder_suite import items;"
            f"model = made({name!r});"
            "sys.stdout.buffer.write(model.fingerprint.encode() + model.embed(items(2)).tobytes())"
        )
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            check=True,
            cwd=Path(__file__).parents[2],
        )
        assert done.stdout[:64].decode() == model.fingerprint


@pytest.mark.parametrize("name", NAMES)
class TestTokenStates(TokenSuite):
    @pytest.fixture
    def model(self, name: str) -> Any:
        return made(name)
