"""One suite for every router."""

from __future__ import annotations

from typing import get_args

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from triptych.errors import InvalidInput
from triptych.moe.router import Router, RouterConfig, RouterKind, Routing

WIDTH = 32
KINDS: list[RouterKind] = list(get_args(RouterKind))
HELD = [kind for kind in KINDS if kind != "top_k"]  # those with a threshold to move


def tokens(num: int, *, seed: int = 0) -> Tensor:
    return torch.randn(num, WIDTH, generator=torch.Generator().manual_seed(seed))


def router(kind: RouterKind, **changes: object) -> Router:
    torch.manual_seed(1)
    return Router(RouterConfig(width=WIDTH, kind=kind, **changes))  # type: ignore[arg-type]


def gates_by_expert(found: Routing, num_experts: int) -> Tensor:
    gates_NK = found.gates_NK.masked_fill(~found.chosen_NK, 0.0)
    return torch.zeros(len(gates_NK), num_experts).scatter_add(1, found.ids_NK, gates_NK)


@pytest.mark.parametrize("kind", KINDS)
class TestEveryRouter:
    def test_at_least_one_and_at_most_the_cap_and_gates_sum_to_one(self, kind: RouterKind) -> None:
        for threshold in (0.02, 0.9, 30.0):
            one = router(kind)
            one.threshold.fill_(threshold)
            found = one(10 * tokens(500))
            num_N = found.chosen_NK.sum(dim=1)
            assert num_N.min() >= 1 and num_N.max() <= 8
            assert found.chosen_NK[:, 0].all()
            torch.testing.assert_close(found.gates_NK.sum(dim=1), torch.ones(500))
            assert (found.gates_NK >= 0).all()
            assert (found.gates_NK[~found.chosen_NK] == 0).all()
            assert all(len(set(row)) == 8 for row in found.ids_NK.tolist())

    def test_the_best_experts_are_chosen(self, kind: RouterKind) -> None:
        one = router(kind)
        one.bias_E.normal_()
        found = one(tokens(200))
        score_NE = tokens(200) @ one.weight_ED.T + one.bias_E
        for row, scores in enumerate(score_NE):
            chosen = set(found.ids_NK[row][found.chosen_NK[row]].tolist())
            assert chosen == set(scores.argsort(descending=True)[: len(chosen)].tolist())

    @pytest.mark.parametrize("size", [1, 7, 64])
    def test_alone_equals_in_a_batch(self, kind: RouterKind, size: int) -> None:
        one, batch_ND = router(kind), tokens(size)
        together_NE = gates_by_expert(one(batch_ND), 128)
        alone_NE = torch.cat(
            [gates_by_expert(one(batch_ND[at : at + 1]), 128) for at in range(size)]
        )
        torch.testing.assert_close(alone_NE, together_NE, atol=1e-5, rtol=0)

    def test_no_expert_starts_saturated(self, kind: RouterKind) -> None:
        one = router(kind)
        probs_NE = (tokens(1000) @ one.weight_ED.T).softmax(dim=1)
        assert probs_NE.max(dim=1).values.mean() < 0.2

    def test_its_start_is_near_the_budget(self, kind: RouterKind) -> None:
        num_N = router(kind)(tokens(2000)).chosen_NK.sum(dim=1).float()
        assert abs(float(num_N.mean()) - 3.2) < 0.5

    def test_load_counts_tokens(self, kind: RouterKind) -> None:
        found = router(kind)(tokens(300))
        brute_E = torch.zeros(128)
        for expert in found.ids_NK[found.chosen_NK].tolist():
            brute_E[expert] += 1
        assert torch.equal(found.load_E, brute_E)

    def test_nothing_gives_nothing(self, kind: RouterKind) -> None:
        found = router(kind)(tokens(0))
        assert found.ids_NK.shape == (0, 8) and found.load_E.sum() == 0
        assert found.balance_loss.item() == found.router_z_loss.item() == 0

    def test_equal_scores_have_a_choice(self, kind: RouterKind) -> None:
        found = router(kind)(torch.zeros(3, WIDTH))
        torch.testing.assert_close(found.gates_NK.sum(dim=1), torch.ones(3))

    def test_gates_pull_on_the_router(self, kind: RouterKind) -> None:
        one = router(kind)
        found = one(tokens(64))
        (found.gates_NK * torch.arange(8.0)).sum().backward()
        assert one.weight_ED.grad is not None and one.weight_ED.grad.abs().sum() > 0

    def test_the_bias_gets_no_gradient_and_scores_stay_float32(self, kind: RouterKind) -> None:
        one = router(kind)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = one(tokens(20))
        assert found.gates_NK.dtype == torch.float32
        torch.testing.assert_close(found.gates_NK, one(tokens(20)).gates_NK)
        assert not one.bias_E.requires_grad

    @pytest.mark.parametrize("seed", [0, 1])
    def test_a_checkpoint_resumes_bit_for_bit(self, kind: RouterKind, seed: int) -> None:
        first = router(kind, target_cv=0.3)
        for at in range(5):
            found = first(tokens(100, seed=at + seed))
            first.adapt(found.load_E, found.count_N.mean().item())
        second = router(kind, target_cv=0.3)
        second.load_state_dict(first.state_dict())
        for one in (first, second):
            for at in range(5, 9):
                found = one(tokens(100, seed=at + seed))
                one.adapt(found.load_E, found.count_N.mean().item())
        for name, tensor in first.state_dict().items():
            assert torch.equal(tensor, second.state_dict()[name]), name

    def test_eval_moves_nothing(self, kind: RouterKind) -> None:
        one = router(kind)
        before = {name: tensor.clone() for name, tensor in one.state_dict().items()}
        one.eval()(tokens(50))
        one.train()(tokens(50))
        assert all(torch.equal(tensor, before[name]) for name, tensor in one.state_dict().items())


def skewed(num: int, seed: int) -> Tensor:
    """Tokens of which most lie around a few directions."""
    draw = torch.Generator().manual_seed(seed)
    centres = 2 * torch.randn(12, WIDTH, generator=torch.Generator().manual_seed(9))
    share = torch.arange(1, 13).float().reciprocal()
    which = torch.multinomial(share, num, replacement=True, generator=draw)
    mixed_ND = centres[which] + torch.randn(num, WIDTH, generator=draw)
    return torch.nn.functional.layer_norm(mixed_ND, (WIDTH,))


def imbalance(load_E: Tensor) -> float:
    return float(load_E.max() / load_E.mean())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("num_experts", [8, 32, 128])
def test_the_bias_balances_a_skewed_load_and_the_budget_holds(
    kind: RouterKind, num_experts: int
) -> None:
    one = router(kind, num_experts=num_experts)
    before = one(skewed(20_000, 99))
    for at in range(200):
        found = one(skewed(400, at))
        one.adapt(found.load_E, found.count_N.mean().item())
    after = one(skewed(20_000, 99))  # held out
    assert imbalance(before.load_E) > 1.5 * imbalance(after.load_E)
    assert imbalance(after.load_E) <= 2 and (after.load_E > 0).all()
    num_N = after.chosen_NK.sum(dim=1).float()
    if kind in HELD:
        assert abs(float(num_N.mean()) - 3.2) <= 0.1 and num_N.std() > 0
    else:
        assert (num_N == 3).all()


@pytest.mark.parametrize("kind", HELD)
def test_the_soft_count_points_the_way_of_the_count(kind: RouterKind) -> None:
    one, batch_ND = router(kind), tokens(2000)
    count = one(batch_ND).count_N.mean()
    (grad_ED,) = torch.autograd.grad(count, one.weight_ED)
    step = 0.2 / float(grad_ED.norm()) * grad_ED
    with torch.no_grad():
        one.weight_ED += step
    assert one(batch_ND).count_N.mean() > count


def test_sparsemax_is_continuous_where_the_others_flip() -> None:
    """Two experts trade places as a score passes another: the gates must pass through as well."""
    one = router("sparsemax", balance_rate=0.0)
    ahead, behind = tokens(20_000, seed=3), tokens(20_000, seed=4)
    last = None
    for share in torch.linspace(0, 1e-4, 5):
        gates_NE = gates_by_expert(one(ahead + share * behind), 128)
        if last is not None:
            assert (gates_NE - last).abs().sum(dim=1).max() < 2e-3
        last = gates_NE


def test_sparsemax_projects_onto_the_simplex() -> None:
    """The definition: the gates are the nearest point to score / threshold, by 300 steps of search."""
    one = router("sparsemax")
    one.threshold.fill_(1.3)
    batch_ND = tokens(50)
    aim_NE = (batch_ND @ one.weight_ED.T) / 1.3
    low_N1 = aim_NE.max(dim=1, keepdim=True).values - 1
    high_N1 = low_N1 + 1
    for _ in range(60):
        edge_N1 = (low_N1 + high_N1) / 2
        over_N1 = (aim_NE - edge_N1).clamp_min(0).sum(dim=1, keepdim=True) > 1
        low_N1, high_N1 = (
            torch.where(over_N1, edge_N1, low_N1),
            torch.where(over_N1, high_N1, edge_N1),
        )
    truth_NE = (aim_NE - low_N1).clamp_min(0)
    few_N = (truth_NE > 0).sum(dim=1) <= 8
    assert few_N.sum() > 30
    found_NE = gates_by_expert(one(batch_ND), 128)
    torch.testing.assert_close(found_NE[few_N], truth_NE[few_N], atol=1e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 9), st.floats(0.05, 20), st.integers(0, 10_000))
def test_any_tokens_have_gates(kind: RouterKind, num: int, scale: float, seed: int) -> None:
    found = router(kind)(scale * tokens(num, seed=seed))
    torch.testing.assert_close(found.gates_NK.sum(dim=1), torch.ones(num))
    assert found.load_E.sum() == found.chosen_NK.sum()


def test_heat_evens_the_load() -> None:
    """The temperature divides the scores before the bias, so that heat makes the bias weigh more."""

    def spread(target_cv: float | None) -> float:
        one = router("sparsemax", target_cv=target_cv, balance_rate=0.002)
        for at in range(250):
            found = one(skewed(400, at))
            one.adapt(found.load_E, found.count_N.mean().item())
        load_E = one(skewed(4000, 99)).load_E
        return float(load_E.std() / load_E.mean())

    assert spread(0.4) < 0.8 * spread(None)


def test_settings_that_cannot_work_are_refused() -> None:
    with pytest.raises(InvalidInput, match="Known: top_k"):
        RouterConfig(width=8, kind="best")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="budget <= cap"):
        RouterConfig(width=8, budget=9.0)
