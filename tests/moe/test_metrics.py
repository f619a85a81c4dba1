"""Measures of the experts, against their definitions."""

from __future__ import annotations

from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays
from PIL import Image

from triptych.errors import InvalidInput
from triptych.moe.metrics import load_report, shuffled_specialisation, specialisation
from triptych.moe.plot import plot_experts


def test_an_even_load() -> None:
    report = load_report(np.full(8, 5))
    assert (report.imbalance, report.cv, report.dead) == (1, 0, 0)
    assert report.entropy == pytest.approx(1)


def test_one_expert_does_all() -> None:
    report = load_report(np.array([12, 0, 0, 0]))
    assert (report.imbalance, report.dead, report.entropy) == (4, 3, 0)
    assert report.cv == pytest.approx(np.sqrt(3))


def test_a_data_set_of_its_own_experts_is_all_specialisation() -> None:
    assert specialisation(np.kron(np.eye(3), [[4, 4]])) == pytest.approx(
        2 * np.log(3) / (np.log(3) + np.log(6))
    )
    assert specialisation(7 * np.eye(5)) == pytest.approx(1)


def test_data_sets_that_use_experts_alike_have_none() -> None:
    assert specialisation(np.outer([1, 5], [3, 2, 9])) == pytest.approx(0, abs=1e-12)
    assert specialisation(np.array([[3, 4]])) == 0


@given(arrays(np.int64, (3, 5), elements=st.integers(0, 40)).filter(lambda a: a.sum() > 0))
def test_specialisation_is_a_share_and_blind_to_order(load: np.ndarray) -> None:
    found = specialisation(load)
    assert 0 <= found <= 1 + 1e-9
    assert specialisation(load[::-1, [2, 0, 1, 4, 3]]) == pytest.approx(found, abs=1e-9)
    assert specialisation(load.T) == pytest.approx(found, abs=1e-9)


def test_chance_gives_less_than_true_domains_and_keeps_the_totals() -> None:
    draw = np.random.default_rng(1)
    mixed = draw.multinomial(2000, np.full(16, 1 / 16), size=3)
    apart = mixed.copy()
    for at in range(3):
        apart[at, 5 * at : 5 * at + 5] += 400
    assert specialisation(apart) > 10 * shuffled_specialisation(apart)
    assert specialisation(mixed) == pytest.approx(shuffled_specialisation(mixed), rel=0.5)


@pytest.mark.parametrize("wrong", [np.zeros(4), np.array([1, -1]), np.array([np.nan, 1])])
def test_loads_that_are_none_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(InvalidInput):
        load_report(wrong)
    with pytest.raises(InvalidInput):
        specialisation(wrong)


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    load = np.random.default_rng(0).integers(0, 90, (3, 128))
    plot_experts(load, names=["captions", "photos", "titles"], path=tmp_path / "experts.png")
    with Image.open(tmp_path / "experts.png") as picture:
        assert picture.size[0] > 800 and len(set(picture.convert("L").tobytes())) > 50
    with pytest.raises(InvalidInput, match="2 names"):
        plot_experts(load, names=["captions", "photos"], path=tmp_path / "x.png")
