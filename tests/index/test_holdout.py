"""Every position has one number, the held back have the last, and their choice has no rhythm."""

from __future__ import annotations

import numpy as np
import pytest

from triptych.index.holdout import Holdout


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 257, 4_000, 4_001, 100_003])
def test_numbers_are_a_permutation_with_the_held_back_at_its_end(count: int) -> None:
    holdout = Holdout(count)
    held = holdout.positions_H
    assert len(held) == min(400, count // 10)
    assert (np.diff(held) > 0).all() and ((held >= 0) & (held < count)).all()
    positions = holdout.positions_of(np.arange(count))
    assert sorted(positions.tolist()) == list(range(count))
    assert positions[holdout.num_others :].tolist() == held.tolist()
    others = positions[: holdout.num_others]
    assert (np.diff(others) > 0).all(), "read in the order of the file"


@pytest.mark.parametrize("count", [5, 300, 20_000])
def test_chosen_numbers_are_those_of_the_positions(count: int) -> None:
    holdout = Holdout(count)
    wanted = np.flatnonzero(np.random.default_rng(0).random(count) < 0.3)
    wanted = np.union1d(wanted, holdout.positions_H[:3])
    numbers = np.flatnonzero(holdout.chosen(wanted))
    assert sorted(holdout.positions_of(numbers).tolist()) == wanted.tolist()
    assert not holdout.chosen(np.empty(0, dtype=np.intp)).any()


@pytest.mark.parametrize("period", [2, 3, 10, 250])
def test_the_held_back_keep_no_step_with_the_order_of_the_items(period: int) -> None:
    share = np.bincount(Holdout(100_000).positions_H % period, minlength=period) * period / 400
    few = max(2, period) > 100
    assert (share > 0).mean() > 0.7 if few else (abs(share - 1) < 0.25).all(), share
