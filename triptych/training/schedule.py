"""How much each of the four terms weighs while a run goes on.

Every schedule gives positive weights that sum to 1, and keeps its state as plain numbers: written
to JSON and read again they are the same to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from triptych.errors import InvalidInput
from triptych.training.objective import Terms, Weights

Kind = Literal["fixed", "staged", "dwa", "uncertainty"]
State = dict[str, list[float]]
NUM_TERMS = len(Terms._fields)


class WeightSchedule(Protocol):
    """Gives weights before a step and learns from the terms after it."""

    def weights(self, progress: float) -> Weights:
        """Return the weights at a share of the run between 0 and 1."""
        ...

    def observe(self, values: Sequence[float | None]) -> None:
        """Take note of the step's terms; None for one that was not there."""
        ...

    def state_dict(self) -> State:
        """Return everything that later weights depend on but progress and configuration."""
        ...

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        """Go on where `state_dict` was taken."""
        ...


def make(kind: Kind, *, base: Weights | None = None) -> WeightSchedule:
    """Return a schedule by name, starting from `base` (0.4, 0.3, 0.2, 0.1)."""
    base = base or Weights()
    if kind == "fixed":
        return Staged({0.0: base})
    if kind == "staged":
        return Staged({**STAGES, 0.35: base})
    if kind == "dwa":
        return DynamicAverage(base)
    if kind == "uncertainty":
        return Uncertainty(base)
    raise InvalidInput(
        f"Got the weight schedule {kind!r}, expected fixed, staged, dwa or uncertainty."
    )


def normalised(values: Sequence[float]) -> Weights:
    """Return positive values as weights that sum to 1."""
    total = sum(values)
    if len(values) != NUM_TERMS or not all(v > 0 for v in values) or not math.isfinite(total):
        raise InvalidInput(
            f"Got the weights {list(values)}, expected {NUM_TERMS} positive finite numbers."
        )
    return Weights(*(value / total for value in values))


# first what is alike, without cutting; then the budgets; at the end the search itself
STAGES: Mapping[float, Weights] = {
    0.0: Weights(0.55, 0.30, 0.05, 0.10),
    0.35: Weights(),
    1.0: Weights(0.55, 0.20, 0.15, 0.10),
}


class Staged:
    """Weights by progress, linear between the stages' beginnings: no step jumps.

    A single stage has the same weights throughout.
    """

    def __init__(self, stages: Mapping[float, Weights] = STAGES) -> None:
        if not stages or not all(0 <= at <= 1 for at in stages):
            raise InvalidInput(f"Got stages at {sorted(stages)}, expected progress from 0 to 1.")
        self._stages = [(at, normalised(stages[at])) for at in sorted(stages)]

    def weights(self, progress: float) -> Weights:
        if not 0 <= progress <= 1:
            raise InvalidInput(f"Got progress {progress}, expected a share from 0 to 1.")
        before = [stage for stage in self._stages if stage[0] <= progress]
        after = [stage for stage in self._stages if stage[0] > progress]
        if not before or not after:
            return before[-1][1] if before else after[0][1]
        (start, first), (stop, second) = before[-1], after[0]
        way = (progress - start) / (stop - start)
        return normalised([a + way * (b - a) for a, b in zip(first, second, strict=True)])

    def observe(self, values: Sequence[float | None]) -> None:
        _check_values(values)

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        _check_state(state, {})


class DynamicAverage:
    """Dynamic weight average (1803.10704): a term that falls more slowly weighs more.

    The weight goes by exp(ratio / temperature) of the term's mean over the last window of steps to
    its mean over the one before; the paper's window is an epoch.
    """

    def __init__(self, base: Weights, *, window: int = 50, temperature: float = 2.0) -> None:
        if window < 1 or temperature <= 0:
            raise InvalidInput(
                f"Got window={window}, temperature={temperature}, expected >= 1 and > 0."
            )
        self._base, self._window, self._temperature = normalised(base), window, temperature
        self._sums, self._counts = [0.0] * NUM_TERMS, [0.0] * NUM_TERMS
        self._last, self._ratios = [0.0] * NUM_TERMS, [1.0] * NUM_TERMS  # 0.0: none yet
        self._seen = 0.0

    def weights(self, progress: float) -> Weights:
        return normalised(
            [
                share * math.exp(ratio / self._temperature)
                for share, ratio in zip(self._base, self._ratios, strict=True)
            ]
        )

    def observe(self, values: Sequence[float | None]) -> None:
        _check_values(values)
        for at, value in enumerate(values):
            if value is not None:
                self._sums[at] += value
                self._counts[at] += 1
        self._seen += 1
        if self._seen == self._window:
            self._turn()

    def _turn(self) -> None:
        for at in range(NUM_TERMS):
            if not self._counts[at]:
                continue
            mean = self._sums[at] / self._counts[at]
            if self._last[at] > 0 and mean > 0:
                # a term that was nearly nothing must not drown the others
                self._ratios[at] = min(mean / self._last[at], 4.0)
            self._last[at] = mean
        self._sums, self._counts, self._seen = [0.0] * NUM_TERMS, [0.0] * NUM_TERMS, 0.0

    def state_dict(self) -> State:
        return {
            "sums": list(self._sums),
            "counts": list(self._counts),
            "last": list(self._last),
            "ratios": list(self._ratios),
            "seen": [self._seen],
        }

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        _check_state(state, self.state_dict())
        self._sums, self._counts = list(state["sums"]), list(state["counts"])
        self._last, self._ratios = list(state["last"]), list(state["ratios"])
        (self._seen,) = state["seen"]


class Uncertainty:
    """Homoscedastic uncertainty (1705.07115): a noisier, so larger, term weighs less.

    Each term has a log-variance s; the paper minimises sum(exp(-s) L + s), here by its own
    gradient 1 - exp(-s) L. The weights are base * exp(-s), brought to a sum of 1, which the paper's
    are not: otherwise a falling loss would raise the learning rate.
    """

    def __init__(self, base: Weights, *, rate: float = 0.01) -> None:
        if not 0 < rate < 1:
            raise InvalidInput(f"Got rate={rate}, expected one between 0 and 1.")
        self._base, self._rate = normalised(base), rate
        self._log_variance = [0.0] * NUM_TERMS

    def weights(self, progress: float) -> Weights:
        return normalised(
            [
                share * math.exp(-log_variance)
                for share, log_variance in zip(self._base, self._log_variance, strict=True)
            ]
        )

    def observe(self, values: Sequence[float | None]) -> None:
        _check_values(values)
        for at, value in enumerate(values):
            if value is not None:
                gradient = 1 - math.exp(-self._log_variance[at]) * max(value, 0.0)
                moved = self._log_variance[at] - self._rate * min(max(gradient, -10.0), 10.0)
                self._log_variance[at] = min(max(moved, -3.0), 3.0)  # e^3 = 20 times, at most

    def state_dict(self) -> State:
        return {"log_variance": list(self._log_variance)}

    def load_state_dict(self, state: Mapping[str, Sequence[float]]) -> None:
        _check_state(state, self.state_dict())
        self._log_variance = list(state["log_variance"])


def _check_values(values: Sequence[float | None]) -> None:
    if len(values) != NUM_TERMS or not all(v is None or math.isfinite(v) for v in values):
        raise InvalidInput(
            f"Got the terms {list(values)}, expected {NUM_TERMS}, each finite or None."
        )


def _check_state(state: Mapping[str, Sequence[float]], like: State) -> None:
    found = {name: len(values) for name, values in state.items()}
    expected = {name: len(values) for name, values in like.items()}
    if found != expected:
        raise InvalidInput(
            f"Got the state of another weight schedule, {found}, expected {expected}.",
            hint="Resume with the configuration that wrote the checkpoint.",
        )
