"""How the experts of the models are loaded, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from triptych.encoders.base import EmbeddingModel


class ExpertCollector(Collector):
    """Reads what the models have counted since they were loaded, whenever it is asked for.

    A model with experts has `expert_tokens`, the tokens that each expert was given (E,), and
    `expert_steps`, the tokens that were routed; a token goes to several experts.
    """

    def __init__(self, models: Callable[[], Iterable[EmbeddingModel]]) -> None:
        self._models = models

    def describe(self) -> list[Metric]:
        """Return nothing: what there will be is not known before a model is loaded."""
        return []

    def collect(self) -> Iterator[Metric]:
        tokens = CounterMetricFamily(
            "triptych_expert_tokens", "Tokens given to an expert", labels=("model", "expert")
        )
        steps = CounterMetricFamily(
            "triptych_expert_steps", "Tokens routed to experts", labels=("model",)
        )
        active = GaugeMetricFamily(
            "triptych_expert_active", "Experts of a token, on average", labels=("model",)
        )
        skew = GaugeMetricFamily(
            "triptych_expert_skew", "Load of the busiest expert, 1: all alike", labels=("model",)
        )
        for model in self._models():
            counted, routed = _counted(model)
            if counted is None:
                continue
            name = f"{model.name}@{model.fingerprint[:8]}"  # there may be two of a name
            for expert, number in enumerate(counted.tolist()):
                tokens.add_metric((name, str(expert)), number)
            steps.add_metric((name,), routed)
            if routed and (total := int(counted.sum())):
                active.add_metric((name,), total / routed)
                skew.add_metric((name,), int(counted.max()) * len(counted) / total)
        yield from (tokens, steps, active, skew)


def _counted(model: EmbeddingModel) -> tuple[np.ndarray[Any, Any] | None, int]:
    """Return the tokens of each expert, None where there are none, and the tokens routed."""
    inner: Any = getattr(model, "model", model)  # behind the queue that requests share
    counted = getattr(inner, "expert_tokens", None)
    return (None, 0) if counted is None else (np.asarray(counted), int(inner.expert_steps))
