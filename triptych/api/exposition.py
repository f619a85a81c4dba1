"""The numbers of several workers as one text: Prometheus asks one address, and gets all of them.

Each worker puts its own into a file once a second; whoever is asked adds the others' to its own.
Every number says of which worker it is, so that none is taken for the whole, and a worker that
begins anew counts anew without bending the others' curves.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client import generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

_OLD = 15.0  # seconds: who has written nothing since is gone
LABEL = "worker"


class Siblings:
    """What all workers have last said of themselves; this one is `number`."""

    def __init__(self, folder: Path, number: int) -> None:
        self._folder, self._number = folder, number

    def publish(self, text: bytes) -> None:
        """Let the others know."""
        scratch = self._folder / f"{self._number}.new"
        scratch.write_bytes(text)
        os.replace(scratch, self._folder / f"{self._number}.prom")

    def merged(self, text: bytes) -> bytes:
        """Return this worker's numbers and those of the others."""
        said = {str(self._number): text}
        for path in self._folder.glob("*.prom"):
            if path.stem != str(self._number) and time.time() - path.stat().st_mtime < _OLD:
                said[path.stem] = path.read_bytes()
        return labelled(said)


def labelled(said: Mapping[str, bytes]) -> bytes:
    """Return texts by worker as one, each sample with its worker's label."""
    return generate_latest(_Merged(said))


class _Merged(CollectorRegistry):
    def __init__(self, said: Mapping[str, bytes]) -> None:
        super().__init__()
        self._said = said

    def collect(self) -> Iterator[Metric]:
        merged: dict[str, Metric] = {}
        for worker, text in sorted(self._said.items()):
            for family in text_string_to_metric_families(text.decode()):
                target = merged.setdefault(
                    family.name, Metric(family.name, family.documentation, family.type)
                )
                for sample in family.samples:
                    labels = {**sample.labels, LABEL: worker}
                    target.add_sample(sample.name, labels, sample.value)
        yield from merged.values()
