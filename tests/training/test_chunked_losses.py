"""Losses in chunks against the whole, forms against formulas, prefixes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from triptych.errors import InvalidInput
from triptych.training.losses import attract, cross_modal, joint, matryoshka, sigmoid

GROUP_I, GROUP_T = (
    torch.tensor([0, 1, 2, 3, 1, 5, 6]),
    torch.tensor([0, 0, 1, 2, 3, 3, 9, 1, 5, 6, 6]),
)


def unit(count: int, width: int = 16) -> Tensor:
    return functional.normalize(torch.randn(count, width, dtype=torch.float64), dim=-1)


def both(rows: int | None) -> Callable[..., Tensor]:
    return lambda p, t, s: cross_modal(p, t, group_I=GROUP_I, group_T=GROUP_T, scale=s, rows=rows)


def among_all(rows: int | None) -> Callable[..., Tensor]:
    group_N = torch.cat([GROUP_I, GROUP_T])
    return lambda p, t, s: joint(torch.cat([p, t]), group_N=group_N, scale=s, rows=rows)


def pairs(rows: int | None) -> Callable[..., Tensor]:
    bias = torch.tensor(-3.0, dtype=torch.float64)
    return lambda p, t, s: sigmoid(
        p, t, group_I=GROUP_I, group_T=GROUP_T, scale=s, bias=bias, rows=rows
    )


def gradients(loss: Callable[..., Tensor], *inputs: Tensor) -> tuple[Tensor, ...]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    value = loss(*leaves)
    return (value.detach(), *torch.autograd.grad(value, leaves))


@pytest.mark.parametrize("form", [both, among_all, pairs], ids=lambda form: form.__name__)
@pytest.mark.parametrize("rows", [1, 3, 7, 100])
def test_in_chunks_loss_and_gradients_are_those_of_the_whole(
    form: Callable[[int | None], Callable[..., Tensor]], rows: int
) -> None:
    torch.manual_seed(rows)
    inputs = (unit(7), unit(11), torch.tensor(9.0, dtype=torch.float64))
    whole, chunked = gradients(form(None), *inputs), gradients(form(rows), *inputs)
    for expected, found in zip(whole, chunked, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


def test_with_one_partner_each_it_is_the_loss_of_clip() -> None:
    pictures_NM, texts_NM, group_N = unit(9), unit(9), torch.arange(9)
    logits_NN = 7.0 * pictures_NM @ texts_NM.T
    expected = (
        functional.cross_entropy(logits_NN, group_N)
        + functional.cross_entropy(logits_NN.T, group_N)
    ) / 2
    found = cross_modal(
        pictures_NM, texts_NM, group_I=group_N, group_T=group_N, scale=torch.tensor(7.0)
    )
    torch.testing.assert_close(found, expected)


def test_sigmoid_is_the_loss_of_siglip() -> None:
    pictures_NM, texts_NM, group_N = unit(5), unit(5), torch.arange(5)
    sign_NN = 2 * torch.eye(5, dtype=torch.float64) - 1
    expected = -functional.logsigmoid(sign_NN * (7.0 * pictures_NM @ texts_NM.T - 4.0)).sum() / 5
    found = sigmoid(
        pictures_NM,
        texts_NM,
        group_I=group_N,
        group_T=group_N,
        scale=torch.tensor(7.0),
        bias=torch.tensor(-4.0),
    )
    torch.testing.assert_close(found, expected)


def test_where_nothing_has_a_positive_or_a_negative_the_loss_is_zero_and_so_is_its_gradient() -> (
    None
):
    for positive in (False, True):
        logits_QN = torch.randn(3, 4, requires_grad=True)
        loss = attract(logits_QN, positive_QN=torch.full((3, 4), positive))
        loss.backward()
        assert loss.item() == 0.0
        assert logits_QN.grad is not None and not logits_QN.grad.any()


@pytest.mark.slow
def test_memory_at_4096_pairs_is_under_two_fifths_and_the_gradients_are_the_same() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.losses", "--json"], capture_output=True, check=True
    )
    found = json.loads(done.stdout)
    assert found["difference"] <= 1e-5
    assert found["share"] <= 0.4


def test_prefixes_are_weighted_and_made_unit_again() -> None:
    pictures_NM, texts_NM, group_N = unit(6), unit(6), torch.arange(6)

    def loss(p: Tensor, t: Tensor) -> Tensor:
        return cross_modal(p, t, group_I=group_N, group_T=group_N, scale=torch.tensor(5.0))

    short = [functional.normalize(emb_NM[:, :4], dim=-1) for emb_NM in (pictures_NM, texts_NM)]
    expected = (3 * loss(pictures_NM, texts_NM) + loss(*short)) / 4
    found = matryoshka(loss, pictures_NM, texts_NM, prefixes={16: 3.0, 4: 1.0})
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("prefixes", [{}, {17: 1.0}, {0: 1.0}, {8: 0.0}])
def test_prefixes_that_cannot_be_are_refused(prefixes: dict[int, float]) -> None:
    with pytest.raises(InvalidInput, match="prefixes"):
        matryoshka(lambda emb_NM: emb_NM.sum(), unit(2), prefixes=prefixes)


def test_shapes_that_do_not_belong_together_are_refused() -> None:
    scale, group_N = torch.tensor(1.0), torch.arange(3)
    with pytest.raises(InvalidInput, match="one width"):
        cross_modal(unit(3, 8), unit(3, 9), group_I=group_N, group_T=group_N, scale=scale)
    with pytest.raises(InvalidInput, match=r"\(N, M\) with \(N,\)"):
        cross_modal(unit(3), unit(4), group_I=group_N, group_T=group_N, scale=scale)
    with pytest.raises(InvalidInput, match=r"\(N, M\) with \(N,\)"):
        joint(unit(3)[0], group_N=group_N, scale=scale)
    with pytest.raises(InvalidInput, match="at least 1"):
        joint(unit(3), group_N=group_N, scale=scale, rows=0)
