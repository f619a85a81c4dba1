"""Masks at every event, weights that stay zero, runs that go on after a checkpoint."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

from triptych.errors import InvalidInput
from triptych.training.importance import Score, importance
from triptych.training.sparsity import (
    SparsityConfig,
    SparsityScheduler,
    layer_densities,
    plan,
    shape_densities,
)

CUTS = [0.8, 0.64, 0.512, 0.4096, 0.32768, 0.30]
OPTIMIZERS = {
    "sgd": lambda ps: torch.optim.SGD(ps, lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adamw": lambda ps: torch.optim.AdamW(ps, lr=0.01, weight_decay=0.1),
}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(10, 33), nn.GELU(), nn.Linear(33, 33), nn.GELU(), nn.Linear(33, 7)
    )


def layers(model: nn.Module) -> list[dict[str, nn.Parameter]]:
    return [{name: p} for name, p in model.named_parameters() if p.ndim == 2]


class Run:
    """A training run with an average of the weights, as the loop has it."""

    def __init__(self, kind: str = "adamw", *, steps: int = 40, config: SparsityConfig) -> None:
        self.model = network()
        self.optimizer = OPTIMIZERS[kind](self.model.parameters())
        self.sparsity = SparsityScheduler(config, layers=layers(self.model), steps=steps)
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.step = 0

    def one(self) -> None:
        draw = torch.Generator().manual_seed(self.step)
        inputs_BW = torch.randn(16, 10, generator=draw)
        target_B = inputs_BW[:, :7].argmax(dim=1)
        self.optimizer.zero_grad()
        functional.cross_entropy(self.model(inputs_BW), target_B).backward()
        self.step += 1
        self.sparsity.before_step(self.step)
        self.optimizer.step()
        self.sparsity.after_step(self.step, self.optimizer)
        for name, parameter in self.model.named_parameters():
            self.average[name].lerp_(parameter.detach(), 0.3)
        self.sparsity.mask_(self.average)

    def weights(self) -> dict[str, Tensor]:
        return {name: self.model.get_parameter(name) for name in self.sparsity.masks}


def same(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_the_plan_is_dense_then_six_cuts_then_moves() -> None:
    events = plan(SparsityConfig(), steps=1000)
    assert [step for step, event in events.items() if event.kind == "cut"] == [
        100,
        150,
        200,
        250,
        300,
        350,
    ]
    assert [event.density for event in events.values() if event.kind == "cut"] == pytest.approx(
        CUTS
    )
    moves = {step: event for step, event in events.items() if event.kind == "move"}
    assert list(moves) == [400, 450, 500, 550, 600, 650, 700]
    assert all(event.density == 0.30 for event in moves.values())
    shares = [event.share for event in moves.values()]
    assert shares == sorted(shares, reverse=True) and 0 < shares[-1] < shares[0] < 0.3


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_counts_are_exact_at_every_event_and_masked_weights_stay_zero(kind: str) -> None:
    run = Run(kind, config=SparsityConfig())
    density, moved = 1.0, 0
    while run.step < 40:
        before = run.sparsity.state_dict()
        run.one()
        event = run.sparsity.events.get(run.step)
        density = event.density if event else density
        for name, weight in run.weights().items():
            mask = run.sparsity.masks[name]
            assert int(mask.sum()) == round(density * mask.numel())
            assert not weight[~mask].any() and not run.average[name][~mask].any()
            assert weight.grad is not None and not weight.grad[~before[name]].any()
            moments = [m for m in run.optimizer.state[weight].values() if m.shape == weight.shape]
            assert moments and not any(moment[~mask].any() for moment in moments)
        if event is None:
            assert same(before, run.sparsity.masks), "masks change at events only"
        elif event.kind == "move":
            moved += not same(before, run.sparsity.masks)
    assert abs(run.sparsity.density() - 0.30) < 0.001
    assert moved > 3


def test_a_cut_takes_the_least_magnitudes_and_gives_none_back() -> None:
    run = Run(config=SparsityConfig())
    while run.step < 7:
        run.one()
    before = run.sparsity.state_dict()
    snapshot = {}

    def keep(optimizer: object, args: object, kwargs: object) -> None:
        snapshot.update({name: p.detach().clone() for name, p in run.weights().items()})

    run.optimizer.register_step_post_hook(keep)
    run.one()
    assert run.sparsity.events[8].kind == "cut"
    for name, mask in run.sparsity.masks.items():
        gone = before[name] & ~mask
        assert not (mask & ~before[name]).any()
        assert snapshot[name][gone].abs().max() <= snapshot[name][mask].abs().min()


def test_a_move_grows_where_the_gradient_is_greatest_and_starts_from_zero() -> None:
    parameter = nn.Parameter(torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 0.5, 0.2, 0.1, 0.05, 0.01]))
    config = SparsityConfig(density=0.5, cut=0.5, move=1.0, move_until=1.0)
    sparsity = SparsityScheduler(config, layers=[{"w": parameter}], steps=20)
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    sparsity.after_step(2, optimizer)
    assert sparsity.masks["w"].tolist() == [True] * 5 + [False] * 5
    parameter.grad = torch.tensor([0.0, 0, 0, 0, 0, 1, 2, 9, 8, 3])
    sparsity.before_step(3)
    assert not parameter.grad[5:].any()
    event = sparsity.after_step(3, optimizer)
    assert event is not None and round(event.share * 5) == 5  # all of the active may move
    assert sparsity.masks["w"].tolist() == [False] * 5 + [True] * 5
    assert not parameter.any()


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("stop", [1, 9, 14, 17, 23])
def test_a_run_that_was_stopped_goes_on_bit_for_bit(kind: str, stop: int) -> None:
    whole, first = Run(kind, config=SparsityConfig()), Run(kind, config=SparsityConfig())
    while whole.step < 30:
        whole.one()
    while first.step < stop:
        first.one()
    second = Run(kind, config=SparsityConfig())
    second.model.load_state_dict(first.model.state_dict())
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.average, second.step = first.average, first.step
    second.sparsity.load_state_dict(first.sparsity.state_dict())
    while second.step < 30:
        second.one()
    assert same(whole.model.state_dict(), second.model.state_dict())
    assert same(whole.average, second.average)
    assert same(whole.sparsity.masks, second.sparsity.masks)


sizes_of = st.lists(st.integers(1, 5000), min_size=1, max_size=12)


@given(sizes_of, st.floats(0.05, 1.0), st.floats(0.05, 1.0), st.floats(0.05, 1.0))
@settings(deadline=None)
def test_a_pyramid_keeps_the_whole(
    sizes: list[int], density: float, low: float, high: float
) -> None:
    config = SparsityConfig(density=density, pyramid=(low, high))
    found = layer_densities(config, sizes=sizes)
    assert sum(d * n for d, n in zip(found, sizes, strict=True)) == pytest.approx(
        density * sum(sizes)
    )
    assert all(0 < d <= 1 for d in found)
    rising = sorted(found) if low <= high else sorted(found, reverse=True)
    assert found == pytest.approx(rising)


def test_layers_of_one_size_have_the_densities_of_the_pyramid() -> None:
    config = SparsityConfig(pyramid=(0.1, 0.5))
    assert layer_densities(config, sizes=[100] * 5) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


def test_a_pyramid_keeps_the_count_of_all_exactly_at_every_event() -> None:
    run = Run(config=SparsityConfig(pyramid=(0.1, 0.5)))
    total = sum(mask.numel() for mask in run.sparsity.masks.values())
    density = 1.0
    while run.step < 32:
        run.one()
        event = run.sparsity.events.get(run.step)
        density = event.density if event else density
        assert sum(int(mask.sum()) for mask in run.sparsity.masks.values()) == round(
            density * total
        )
    shares = [float(mask.float().mean()) for mask in run.sparsity.masks.values()]
    assert shares == sorted(shares) and shares[0] < 0.2 < 0.4 < shares[-1]


@given(
    shapes=st.lists(st.lists(st.integers(1, 12), min_size=2, max_size=3), min_size=1, max_size=6),
    density=st.floats(0.05, 1.0),
)
def test_by_shape_the_whole_is_kept_and_nothing_exceeds_one(
    shapes: list[list[int]], density: float
) -> None:
    found = shape_densities(shapes, density=density)
    sizes = [math.prod(shape) for shape in shapes]
    assert all(0 < one <= 1 + 1e-9 for one in found)
    assert sum(d * size for d, size in zip(found, sizes, strict=True)) == pytest.approx(
        density * sum(sizes)
    )


def test_by_shape_large_tensors_lose_more_and_small_ones_stay_whole() -> None:
    small, square, stacked = shape_densities([(4, 8), (64, 64), (16, 64, 64)], density=0.1)
    assert small == 1.0
    assert square / stacked == pytest.approx((128 / 64**2) / (144 / (16 * 64**2)))
    run = Run(config=SparsityConfig(by_shape=True))
    for _ in range(40):
        run.one()
    masks = run.sparsity.masks.values()
    assert sum(int(mask.sum()) for mask in masks) == round(0.3 * sum(m.numel() for m in masks))
    assert run.sparsity.density() == pytest.approx(0.3, abs=1e-3)


def test_taylor_scores_are_first_order_changes_of_the_loss() -> None:
    weight, gradient = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([4.0, 0.5, 0.0])
    assert importance(weight, gradient, score="taylor").tolist() == [4.0, 1.0, 0.0]
    assert importance(weight, score="magnitude").tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(InvalidInput, match="needs the gradient"):
        importance(weight, score="taylor")
    with pytest.raises(InvalidInput, match="'magnitude' or 'taylor'"):
        importance(weight, score="luck")  # type: ignore[arg-type]


def test_cutting_by_taylor_keeps_what_the_loss_feels() -> None:
    run = Run(config=SparsityConfig(score="taylor"))
    while run.step < 20:
        run.one()
    assert abs(run.sparsity.density() - 0.30) < 0.001


@pytest.mark.parametrize("score", ["magnitude", "taylor"])
def test_weights_that_nothing_reached_are_cut_at_a_later_event(score: Score) -> None:
    run = Run(config=SparsityConfig(score=score))
    while run.step < 20:
        run.model[0].requires_grad_(run.step % 4 != 3)  # at every other event
        run.one()
    assert abs(run.sparsity.density() - 0.30) < 0.001


@pytest.mark.parametrize(
    "wrong",
    [
        {"cut": 0.0},
        {"cut": 1.0},
        {"density": 0.0},
        {"every": 0.0},
        {"dense_until": -0.1},
        {"move": 2.0},
        {"pyramid": (0.0, 0.5)},
        {"pyramid": (0.1, 0.5), "by_shape": True},
    ],
    ids=str,
)
def test_a_configuration_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        SparsityConfig(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("steps", [5, 12, 19])
def test_a_run_too_short_for_its_events_is_refused(steps: int) -> None:
    with pytest.raises(InvalidInput, match="at least 20 steps"):
        plan(SparsityConfig(), steps=steps)


def test_in_the_shortest_run_every_event_has_a_step_of_its_own() -> None:
    kinds = [event.kind for event in plan(SparsityConfig(), steps=20).values()]
    assert kinds.count("cut") == 6


def test_nothing_to_cut_is_refused() -> None:
    with pytest.raises(InvalidInput, match="no weights"):
        SparsityScheduler(SparsityConfig(), layers=[], steps=100)


def test_masks_of_another_model_are_refused() -> None:
    sparsity = Run(config=SparsityConfig()).sparsity
    state = sparsity.state_dict()
    with pytest.raises(InvalidInput, match="other weights"):
        sparsity.load_state_dict({"else": torch.ones(3, dtype=torch.bool)})
    name = next(iter(state))
    for mask in (state[name].float(), state[name][:1]):
        with pytest.raises(InvalidInput, match=f"mask for {name}"):
            sparsity.load_state_dict({**state, name: mask})
