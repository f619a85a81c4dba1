"""The layer: its forms are equal, its neighbours do not matter, padding goes nowhere."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from triptych.errors import InvalidInput
from triptych.moe.experts import Form
from triptych.moe.layer import MoE, MoEConfig, MoEOutput

CONFIG = MoEConfig(width=32, hidden=16)
FORMS: list[Form] = list(get_args(Form))


def layer(config: MoEConfig = CONFIG) -> MoE:
    torch.manual_seed(2)
    return MoE(config)


def batch(*lengths: int, seed: int = 0, width: int = 32) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    tokens_BTD = torch.randn(len(lengths), max(lengths), width, generator=draw)
    mask_BT = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return tokens_BTD, mask_BT


def by_hand(moe: MoE, token_D: Tensor) -> Tensor:
    """One token, expert by expert."""
    found = moe.router(token_D[None])
    out_D = torch.zeros_like(token_D)
    for expert, gate, chosen in zip(
        found.ids_NK[0], found.gates_NK[0], found.chosen_NK[0], strict=True
    ):
        if chosen:
            hidden_H = torch.nn.functional.gelu(
                token_D @ moe.experts.widen_EDH[expert], approximate="tanh"
            )
            out_D = out_D + gate * (hidden_H @ moe.experts.narrow_EHD[expert])
    return out_D


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_the_sum_written_by_hand(form: Form) -> None:
    moe = layer(replace(CONFIG, form=form))
    tokens_BTD, mask_BT = batch(5, 3)
    out_BTD = moe(tokens_BTD, mask_BT).tokens_BTD
    for b, t in mask_BT.nonzero().tolist():
        torch.testing.assert_close(
            out_BTD[b, t], by_hand(moe, tokens_BTD[b, t]), atol=1e-5, rtol=1e-5
        )


@pytest.mark.parametrize("shared_hidden", [0, 24])
def test_forms_agree_in_values_and_gradients(shared_hidden: int) -> None:
    tokens_BTD, mask_BT = batch(20, 1, 13)
    found: dict[Form, list[Tensor]] = {}
    for form in FORMS:
        moe = layer(replace(CONFIG, form=form, shared_hidden=shared_hidden))
        entering_BTD = tokens_BTD.clone().requires_grad_()
        out = moe(entering_BTD, mask_BT)
        # an expanded gradient, which grouped products do not take by themselves
        (out.tokens_BTD.sum() + out.budget_loss + out.balance_loss + out.router_z_loss).backward()
        grads = [weight.grad for weight in moe.parameters()]
        assert entering_BTD.grad is not None and all(grad is not None for grad in grads)
        found[form] = [out.tokens_BTD, entering_BTD.grad, *[g for g in grads if g is not None]]
    for form in FORMS:
        for one, other in zip(found[form], found["dense"], strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num", [1, 20, 60, 400])  # streamed, streamed, grouped, by oneDNN
@torch.inference_mode()
def test_without_gradients_whatever_is_fastest_agrees(num: int) -> None:
    wide = MoEConfig(width=128, hidden=128, num_experts=8)
    tokens_BTD, mask_BT = batch(num, width=128)
    truth_BTD = layer(replace(wide, form="dense"))(tokens_BTD, mask_BT).tokens_BTD
    for form in FORMS:
        found_BTD = layer(replace(wide, form=form))(tokens_BTD, mask_BT).tokens_BTD
        torch.testing.assert_close(found_BTD, truth_BTD, atol=1e-5, rtol=1e-5)


def test_one_token_streams_with_its_gradients_too() -> None:
    found = []
    for form in ("streamed", "dense"):
        moe = layer(replace(CONFIG, form=form))
        tokens_BTD, mask_BT = batch(1)
        with torch.inference_mode():
            moe(tokens_BTD, mask_BT)
        made_BTD = moe(tokens_BTD, mask_BT).tokens_BTD
        made_BTD.square().sum().backward()
        found.append([made_BTD, moe.experts.widen_EDH.grad, moe.experts.narrow_EHD.grad])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


def test_losses_are_for_training_only() -> None:
    moe = layer()
    tokens_BTD, mask_BT = batch(20, 7)
    trained = moe(tokens_BTD, mask_BT)
    with torch.no_grad():
        served = moe(tokens_BTD, mask_BT)
    torch.testing.assert_close(served.tokens_BTD, trained.tokens_BTD)
    assert torch.equal(served.load_E, trained.load_E)
    for one, other in zip(statistics(served)[:3], statistics(trained)[:3], strict=True):
        assert one == 0 < other


@pytest.mark.parametrize("form", [form for form in FORMS if form != "streamed"])
def test_autocast_computes_in_bfloat16_and_stays_near(form: Form) -> None:
    moe = layer(replace(CONFIG, form=form))
    tokens_BTD, mask_BT = batch(20, 7)
    exact = moe(tokens_BTD, mask_BT)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = moe(tokens_BTD, mask_BT)
        out.tokens_BTD.square().sum().backward()
    assert torch.equal(out.load_E, exact.load_E)
    worst = (out.tokens_BTD - exact.tokens_BTD).abs().max()
    assert 0 < worst < 0.05


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [1, 7, 64])
@torch.inference_mode()  # where `auto` streams a few tokens and groups many
def test_alone_equals_in_a_batch(form: Form, size: int) -> None:
    moe = layer(replace(CONFIG, form=form, shared_hidden=8))
    tokens_BTD, mask_BT = batch(*[1 + at % 14 for at in range(size)])
    together_BTD = moe(tokens_BTD, mask_BT).tokens_BTD
    for at in range(size):
        length = int(mask_BT[at].sum())
        alone_TD = moe(tokens_BTD[at : at + 1, :length], mask_BT[at : at + 1, :length]).tokens_BTD
        torch.testing.assert_close(alone_TD[0], together_BTD[at, :length], atol=1e-5, rtol=0)


def statistics(out: MoEOutput) -> list[Tensor]:
    return [
        out.balance_loss,
        out.router_z_loss,
        out.budget_loss,
        out.load_E,
        out.num_active,
    ]


@pytest.mark.parametrize("form", FORMS)
def test_padding_goes_nowhere_whatever_it_holds(form: Form) -> None:
    moe = layer(replace(CONFIG, form=form, shared_hidden=8))
    tokens_BTD, mask_BT = batch(9, 4)
    clean = moe(tokens_BTD, mask_BT)
    tokens_BTD[~mask_BT] = torch.nan
    more_BTD = torch.cat([tokens_BTD, torch.full((2, 9, 32), torch.inf)])
    more_BT = torch.cat([mask_BT, torch.zeros(2, 9, dtype=torch.bool)])
    out = moe(more_BTD, more_BT)
    torch.testing.assert_close(out.tokens_BTD[:2], clean.tokens_BTD)
    assert (out.tokens_BTD[~more_BT] == 0).all()
    for one, other in zip(statistics(out), statistics(clean), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(2, 3), (0, 3), (2, 0)])
def test_nothing_but_padding_has_zeros_and_gradients(form: Form, shape: tuple[int, int]) -> None:
    moe = layer(replace(CONFIG, form=form))
    tokens_BTD = torch.randn(*shape, 32, requires_grad=True)
    out = moe(tokens_BTD, torch.zeros(shape, dtype=torch.bool))
    assert (out.tokens_BTD == 0).all() and out.tokens_BTD.shape == tokens_BTD.shape
    assert all((value == 0).all() for value in statistics(out))
    (out.tokens_BTD.sum() + out.budget_loss + out.balance_loss + out.router_z_loss).backward()
    moe.adapt(out.load_E, float(out.num_active))
    assert float(moe.router.threshold) == pytest.approx(0.9)


@pytest.mark.parametrize("form", FORMS)
def test_nan_stays_in_its_token(form: Form) -> None:
    moe = layer(replace(CONFIG, form=form, shared_hidden=8))
    tokens_BTD, mask_BT = batch(6, 6)
    clean_BTD = moe(tokens_BTD, mask_BT).tokens_BTD
    tokens_BTD[1, 2, 30] = torch.nan
    out = moe(tokens_BTD, mask_BT)
    assert out.tokens_BTD[1, 2].isnan().all()
    there_BT = mask_BT.clone()
    there_BT[1, 2] = False
    torch.testing.assert_close(out.tokens_BTD[there_BT], clean_BTD[there_BT])
    without = moe(tokens_BTD.nan_to_num(), there_BT)
    for one, other in zip(statistics(out), statistics(without), strict=True):
        torch.testing.assert_close(one, other)


def test_an_output_of_zero_still_learns() -> None:
    moe = layer(replace(CONFIG, zero_output=True, shared_hidden=8))
    tokens_BTD, mask_BT = batch(5, 5)
    out_BTD = moe(tokens_BTD, mask_BT).tokens_BTD
    assert (out_BTD == 0).all()
    (out_BTD - 1).square().sum().backward()
    assert moe.experts.narrow_EHD.grad is not None
    assert moe.experts.narrow_EHD.grad.abs().sum() > 0


def test_the_budget_loss_holds_items_that_differ() -> None:
    """Two kinds of item, one sharp and one flat: their mean is right, each alone is not."""
    moe = layer(MoEConfig(width=32, hidden=8))
    tokens_BTD, mask_BT = batch(*[40] * 8)
    tokens_BTD[::2] *= 0.6
    tokens_BTD[1::2] *= 2.0
    optimiser = torch.optim.Adam(moe.router.parameters(), lr=3e-3)

    def means() -> Tensor:
        counts = moe.router(tokens_BTD.flatten(0, 1)).count_N.detach().view(8, 40)
        return torch.stack([counts[::2].mean(), counts[1::2].mean()])

    before = means()
    for _ in range(80):
        out = moe(tokens_BTD, mask_BT)
        optimiser.zero_grad()
        out.budget_loss.backward()
        optimiser.step()
    assert (before - 3.2).abs().min() > 0.4
    assert (means() - 3.2).abs().max() < 0.25


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any), st.integers(0, 99))
def test_any_lengths_match_the_dense_form(lengths: list[int], seed: int) -> None:
    tokens_BTD, mask_BT = batch(*lengths, seed=seed)
    sparse, dense = layer(), layer(replace(CONFIG, form="dense"))
    out, truth = sparse(tokens_BTD, mask_BT), dense(tokens_BTD, mask_BT)
    torch.testing.assert_close(out.tokens_BTD, truth.tokens_BTD, atol=1e-5, rtol=1e-5)
    assert float(out.num_active) == pytest.approx(float(out.load_E.sum()) / sum(lengths))


@pytest.mark.parametrize(
    ("tokens_BTD", "mask_BT"),
    [
        (torch.zeros(2, 3, 16), torch.ones(2, 3, dtype=torch.bool)),
        (torch.zeros(2, 3, 32), torch.ones(2, 4, dtype=torch.bool)),
        (torch.zeros(2, 3, 32), torch.ones(2, 3)),
    ],
)
def test_other_shapes_are_refused(tokens_BTD: Tensor, mask_BT: Tensor) -> None:
    with pytest.raises(InvalidInput, match="boolean"):
        layer()(tokens_BTD, mask_BT)


@pytest.mark.parametrize(
    "wrong", [{"hidden": 12}, {"width": 0}, {"form": "fast"}, {"router": "best"}, {"budget": 0.5}]
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        MoE(replace(CONFIG, **wrong))  # type: ignore[arg-type]
