"""How the tiers of the cache do, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from triptych.cache.base import TierStats
from triptych.cache.memory import NAME as MEMORY


class TierCollector(Collector):
    """Reads what the tiers have counted since the start, whenever it is asked for."""

    def __init__(self, stats: Callable[[], Mapping[str, TierStats]]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        asked = CounterMetricFamily(
            "triptych_cache_lookups", "Values that a tier was asked for", labels=("tier", "outcome")
        )
        errors = CounterMetricFamily(
            "triptych_cache_errors",
            "What a tier could not do or refused, and values that were not what was put",
            labels=("tier",),
        )
        aside = GaugeMetricFamily(
            "triptych_cache_left_aside", "Whether a tier is given up for now", labels=("tier",)
        )
        for name, counted in self._stats().items():
            tier = "process" if name == MEMORY else name  # as a reply's header names it
            asked.add_metric((tier, "hit"), counted.hits)
            asked.add_metric((tier, "miss"), counted.misses)
            errors.add_metric((tier,), counted.errors)
            aside.add_metric((tier,), counted.open)
        yield from (asked, errors, aside)
