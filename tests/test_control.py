"""The controller holds a value, stays in its bounds, and rests in its dead band."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import pytest
from hypothesis import given

from triptych.control import Controller, ControlState
from triptych.errors import InvalidInput


def controller(**changes: float) -> Controller:
    settings = {"setpoint": 3.2, "start": 1.0, "low": 0.1, "high": 5.0, "gain": 0.3}
    return Controller(**(settings | changes))


@pytest.mark.parametrize("sign", [1, -1])
def test_it_finds_the_knob_that_gives_the_setpoint(sign: int) -> None:
    held = controller(gain=sign * 0.2)
    state = held.initial()
    for _ in range(200):
        state = held.step(state, 3.2 + sign * (state.knob - 2.5))
    assert state.knob == pytest.approx(2.5, abs=1e-3)


def test_it_rests_in_the_dead_band_and_settles_once_it_moves() -> None:
    held = controller(dead_band=0.4, settle=0.5)
    resting = held.step(held.initial(), 3.5)
    assert resting.knob == 1.0 and not resting.acting
    moving = held.step(resting, 3.7)
    assert moving.knob < 1.0 and moving.acting
    still = held.step(moving, 3.5)
    assert still.knob < moving.knob
    assert held.step(still, 3.3).knob == still.knob


def test_steps_are_clamped() -> None:
    held = controller(max_step=0.01)
    assert held.step(held.initial(), -100.0).knob == pytest.approx(1.01)


def test_smoothing_keeps_a_share_of_the_old_mean() -> None:
    held = controller(smoothing=0.75)
    assert held.step(held.initial(), 7.2).measured == pytest.approx(4.2)


@given(st.lists(st.floats(-1e6, 1e6), max_size=30), st.integers(0, 29))
def test_it_stays_in_bounds_and_resumes_bit_for_bit(values: list[float], cut: int) -> None:
    held = controller(smoothing=0.3, dead_band=0.1)
    state = held.initial()
    for at, value in enumerate(values):
        if at == cut:
            state = ControlState(*[float.fromhex(number.hex()) for number in state])
        state = held.step(state, value)
        assert held.low <= state.knob <= held.high
    again = held.initial()
    for value in values:
        again = held.step(again, value)
    assert again == state


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_a_number_is_refused(value: float) -> None:
    held = controller()
    with pytest.raises(InvalidInput, match="expected a finite number"):
        held.step(held.initial(), value)


@pytest.mark.parametrize(
    "wrong", [{"start": 9.0}, {"smoothing": 1.0}, {"settle": 2.0}, {"gain": 0.0}, {"max_step": 0.0}]
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        controller(**wrong)
