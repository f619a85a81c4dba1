"""How experts are loaded, as Prometheus is told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from tests.api.live import Live


def numbers(live: Live) -> dict[tuple[str, str], float]:
    """Return what /metrics says of experts, by name and expert."""
    text = live.client.get("/metrics").text
    return {
        (sample.name, sample.labels.get("expert", "")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "expert" in sample.name
    }


def model(name: str, **said: Any) -> Any:
    """Return a model as it lies behind the queue that requests share."""
    return SimpleNamespace(
        name=name, fingerprint=f"{name}-1", model=SimpleNamespace(name=name, **said)
    )


def test_a_model_without_experts_has_no_numbers_of_them(live: Live) -> None:
    assert not numbers(live)


def test_experts_are_counted_while_the_model_runs(live: Live, monkeypatch: Any) -> None:
    tokens = np.array([60, 0, 30, 6], dtype=np.int64)
    inner = {"expert_tokens": tokens, "expert_steps": 30}
    models = {"=a": model("mixture", **inner), "=b": model("plain"), "a": model("mixture", **inner)}
    models["=c"] = model("none yet", expert_tokens=None)
    monkeypatch.setattr(live.services.catalog, "_models", models)
    said = numbers(live)
    assert [said["triptych_expert_tokens_total", str(at)] for at in range(4)] == [60, 0, 30, 6]
    assert said["triptych_expert_steps_total", ""] == 30
    assert said["triptych_expert_active", ""] == 3.2
    assert said["triptych_expert_skew", ""] == 2.5  # 60 of 96, where each of four has a quarter
    tokens[1] += 4
    assert numbers(live)["triptych_expert_tokens_total", "1"] == 4


def test_a_model_that_was_not_asked_yet_has_no_average(live: Live, monkeypatch: Any) -> None:
    fresh = model("mixture", expert_tokens=np.zeros(2, dtype=np.int64), expert_steps=0)
    monkeypatch.setattr(live.services.catalog, "_models", {"=a": fresh})
    said = numbers(live)
    assert said["triptych_expert_tokens_total", "1"] == said["triptych_expert_steps_total", ""] == 0
    assert ("triptych_expert_active", "") not in said
