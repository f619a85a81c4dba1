"""Numbers for Prometheus. No tenant, collection or query is named in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.registry import Collector

from triptych.api.exposition import Siblings

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10,
    30, 60,
)  # fmt: skip


class Metrics:
    """All numbers of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.siblings: Siblings | None = None  # the other workers, where there are some
        self.requests = self._counter(
            "triptych_requests", "Requests answered", "route", "method", "status"
        )
        self.seconds = self._histogram("triptych_request_seconds", "Until the reply", "route")
        self.stages = self._histogram("triptych_stage_seconds", "Time by stage", "stage")
        self.tiers = self._counter("triptych_answers", "Searches by who answered", "tier")
        self.items = self._counter("triptych_items", "Items by what became of them", "outcome")
        self.refused = self._counter("triptych_refused", "Requests refused early", "code")

    def count_items(self, outcome: str, number: int) -> None:
        """Note that so many items were written, refused or deleted."""
        self.items.labels(outcome).inc(number)

    def count_answer(self, tier: str, stages: Mapping[str, float]) -> None:
        """Note who answered a search, and the seconds of each stage."""
        self.tiers.labels(tier).inc()
        for stage, seconds in stages.items():
            self.stages.labels(stage).observe(seconds)

    def gauge(self, name: str, help: str, read: Callable[[], float]) -> None:
        """Show a number that is read whenever it is asked for."""
        Gauge(name, help, registry=self.registry).set_function(read)

    def add(self, collector: Collector) -> None:
        """Show what a collector reads whenever it is asked."""
        self.registry.register(collector)

    def text(self) -> bytes:
        """Return all of them in Prometheus's text form, and those of the other workers."""
        mine = generate_latest(self.registry)
        return mine if self.siblings is None else self.siblings.merged(mine)

    def publish(self) -> None:
        """Let the other workers know them."""
        if self.siblings is not None:
            self.siblings.publish(generate_latest(self.registry))

    def _counter(self, name: str, help: str, *labels: str) -> Counter:
        return Counter(name, help, labels, registry=self.registry)

    def _histogram(self, name: str, help: str, label: str) -> Histogram:
        return Histogram(name, help, [label], buckets=_SECONDS, registry=self.registry)
