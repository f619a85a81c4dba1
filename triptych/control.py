"""The one setpoint controller: a measured value is held at a setpoint by moving a bounded knob.

Pure: the state goes in and comes out as plain floats, so a checkpoint that keeps them resumes bit
for bit. Integral control with clamped steps (Åström and Hägglund 1995, section 3.5): the knob's
bounds end the integration too, so nothing winds up behind them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from triptych.errors import InvalidInput


class ControlState(NamedTuple):
    """What a controller remembers between two steps."""

    knob: float
    measured: float  # smoothed; begins at the setpoint
    acting: float  # 1.0 while the knob moves, 0.0 while the error lies in the dead band


@dataclass(frozen=True, slots=True, kw_only=True)
class Controller:
    """Holds `measured` at `setpoint`."""

    setpoint: float
    start: float  # the knob, before the first step
    low: float  # bounds of the knob
    high: float
    gain: float  # knob per unit of (setpoint - measured) and step; negative: more knob, less value
    max_step: float = math.inf  # of the knob
    dead_band: float = 0.0  # errors up to this leave a resting knob alone ...
    settle: float = 0.5  # ... and a moving one moves until the error is this share of it
    smoothing: float = 0.0  # share of the old mean that a new measurement leaves

    def __post_init__(self) -> None:
        if not self.low <= self.start <= self.high:
            raise InvalidInput(
                f"The knob starts at {self.start}, outside {self.low} to {self.high}.",
                hint="Start within the bounds.",
            )
        if not (0 <= self.smoothing < 1 and 0 <= self.settle <= 1 and self.dead_band >= 0):
            raise InvalidInput(
                f"Got smoothing {self.smoothing}, settle {self.settle}, band {self.dead_band}.",
                hint="Expected smoothing from 0 to below 1, settle from 0 to 1, dead_band from 0.",
            )
        if self.gain == 0 or self.max_step <= 0:
            raise InvalidInput(
                f"Got gain {self.gain} and max_step {self.max_step}: the knob would never move.",
                hint="Give a gain other than 0 and a max_step above 0.",
            )

    def initial(self) -> ControlState:
        return ControlState(self.start, self.setpoint, 0.0)

    def step(self, state: ControlState, measured: float) -> ControlState:
        """Return the next state; raises InvalidInput for a measurement that is not finite."""
        if not math.isfinite(measured):
            raise InvalidInput(
                f"A controller measured {measured}, expected a finite number.",
                hint="Look for NaN in the batch, or lower the learning rate.",
            )
        mean = measured + self.smoothing * (state.measured - measured)
        error = self.setpoint - mean
        edge = self.dead_band * (self.settle if state.acting else 1.0)
        if abs(error) <= edge:
            return ControlState(state.knob, mean, 0.0)
        move = max(-self.max_step, min(self.max_step, self.gain * error))
        return ControlState(max(self.low, min(self.high, state.knob + move)), mean, 1.0)
