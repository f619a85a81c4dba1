"""Training computes in bfloat16 where that is quick, and in float32 where it would be made up."""

import pytest

torch = pytest.importorskip("torch")

from triptych.training.precision import autocast  # noqa: E402


@pytest.mark.parametrize(
    ("capability", "expected"), [("AVX512", torch.bfloat16), ("AVX2", torch.float32)]
)
def test_a_cpu_computes_in_what_it_has_instructions_for(
    monkeypatch: pytest.MonkeyPatch, capability: str, expected: "torch.dtype"
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    with autocast(torch.device("cpu")):
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == expected
