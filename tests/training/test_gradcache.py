"""Gradients through micro-batches against those of one pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.errors import InvalidInput
from triptych.moe.layer import MoE, MoEConfig
from triptych.training.gradcache import Tower, TowerOutput, backward
from triptych.training.losses import cross_modal, joint

PICTURES, TEXTS = 7, 11
GROUP_I = torch.arange(PICTURES)
GROUP_T = torch.arange(TEXTS) % PICTURES


class Side(nn.Module):
    """A small tower with dropout and a routed layer that has an auxiliary loss of its own."""

    def __init__(self, width: int, *, dropout: float, experts: int = 4) -> None:
        super().__init__()
        self.first, self.dropout = nn.Linear(width, 16), nn.Dropout(dropout)
        self.router = nn.Linear(16, experts)
        self.experts_EDD = nn.Parameter(torch.randn(experts, 16, 16) * 0.25)
        self.double()

    def forward(self, inputs_BW: Tensor) -> tuple[Tensor, Tensor]:
        hidden_BD = self.dropout(functional.gelu(self.first(inputs_BW)))
        logits_BE = self.router(hidden_BD)
        gates_BE = torch.softmax(logits_BE, dim=-1) * (
            logits_BE >= logits_BE.amax(-1, keepdim=True)
        )
        mixed_BD = torch.einsum("be,bd,edf->bf", gates_BE, hidden_BD, self.experts_EDD)
        z_loss = logits_BE.logsumexp(dim=-1).square().mean()
        return functional.normalize(hidden_BD + mixed_BD, dim=-1), z_loss


@pytest.fixture
def sides() -> tuple[Side, Side, nn.Parameter]:
    torch.manual_seed(3)
    scale = nn.Parameter(torch.tensor(8.0, dtype=torch.float64))
    return Side(5, dropout=0.0), Side(9, dropout=0.0), scale


def inputs() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)
    return tuple(
        torch.randn(count, width, generator=draw, dtype=torch.float64)
        for count, width in ((PICTURES, 5), (TEXTS, 9))
    )  # type: ignore[return-value]


def tower(side: Side, inputs_NW: Tensor, *, micro: int) -> Tower:
    def forward(start: int, stop: int) -> TowerOutput:
        emb_BM, auxiliary = side(inputs_NW[start:stop])
        return TowerOutput(emb_BM, 0.1 * auxiliary)

    return Tower(forward=forward, size=len(inputs_NW), micro=micro)


def gradients(*parts: nn.Module | nn.Parameter) -> Iterator[Tensor]:
    for part in parts:
        for parameter in [part] if isinstance(part, nn.Parameter) else part.parameters():
            assert parameter.grad is not None
            yield parameter.grad.clone()
            parameter.grad = None


def in_one_pass(sides: tuple[Side, Side, nn.Parameter], *, micros: tuple[int, int]) -> list[Tensor]:
    """The oracle: a single graph, with random numbers drawn micro-batch by micro-batch."""
    embeddings, auxiliary = [], torch.zeros((), dtype=torch.float64)
    for side, inputs_NW, micro in zip(sides[:2], inputs(), micros, strict=True):
        parts = [side(chunk_BW) for chunk_BW in inputs_NW.split(micro)]
        embeddings.append(torch.cat([emb_BM for emb_BM, _ in parts]))
        for emb_BM, z_loss in parts:
            auxiliary = auxiliary + 0.1 * z_loss * len(emb_BM) / len(inputs_NW)
    loss = cross_modal(*embeddings, group_I=GROUP_I, group_T=GROUP_T, scale=sides[2])
    (loss + auxiliary).backward()
    return [loss.detach(), auxiliary.detach(), *gradients(*sides)]


def in_micro_batches(
    sides: tuple[Side, Side, nn.Parameter], *, micros: tuple[int, int]
) -> list[Tensor]:
    towers = [tower(s, x, micro=m) for s, x, m in zip(sides[:2], inputs(), micros, strict=True)]
    found = backward(
        towers, lambda p, t: cross_modal(p, t, group_I=GROUP_I, group_T=GROUP_T, scale=sides[2])
    )
    return [found.loss, found.auxiliary, *gradients(*sides)]


@pytest.mark.parametrize("micros", [(7, 11), (1, 1), (3, 4), (2, 100), (7, 2)], ids=str)
def test_gradients_are_those_of_the_whole_batch(
    sides: tuple[Side, Side, nn.Parameter], micros: tuple[int, int]
) -> None:
    expected = in_one_pass(sides, micros=(PICTURES, TEXTS))
    found = in_micro_batches(sides, micros=micros)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("micros", [(1, 1), (3, 4), (7, 2)], ids=str)
def test_dropout_falls_the_same_way_in_both_passes(micros: tuple[int, int]) -> None:
    torch.manual_seed(1)
    scale = nn.Parameter(torch.tensor(8.0, dtype=torch.float64))
    sides = Side(5, dropout=0.4), Side(9, dropout=0.4), scale
    torch.manual_seed(2)
    expected = in_one_pass(sides, micros=micros)
    after = torch.rand(3)
    torch.manual_seed(2)
    found = in_micro_batches(sides, micros=micros)
    for one, other in zip(expected, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12)
    assert torch.equal(torch.rand(3), after), "what comes after must not depend on the second pass"


@pytest.mark.parametrize("micro", [1, 3, 5])
def test_through_the_experts_gradients_are_those_of_the_whole_batch(micro: int) -> None:
    torch.manual_seed(4)
    config = MoEConfig(width=8, hidden=16, num_experts=8, cap=4, budget=2.0, form="dense")
    layer, project = MoE(config).double(), nn.Linear(8, 6).double()
    tokens_NTD = torch.randn(7, 4, 8, dtype=torch.float64)
    mask_NT = torch.arange(4)[None, :] < torch.tensor([4, 1, 3, 2, 4, 4, 1])[:, None]

    def forward(start: int, stop: int) -> TowerOutput:
        mask_BT = mask_NT[start:stop]
        routed = layer(tokens_NTD[start:stop], mask_BT)
        emb_BM = functional.normalize(project(routed.tokens_BTD.sum(dim=1)), dim=-1)
        return TowerOutput(emb_BM, 0.1 * routed.router_z_loss, float(mask_BT.sum()))

    def loss(emb_NM: Tensor) -> Tensor:
        group_N = torch.arange(7) // 2
        return joint(emb_NM, group_N=group_N, scale=torch.tensor(5.0, dtype=torch.float64))

    found = {}
    for size in (7, micro):
        value = backward([Tower(forward=forward, size=7, micro=size)], loss)
        moved = [p for part in (layer, project) for p in part.parameters() if p.grad is not None]
        found[size] = [*value, *(p.grad for p in moved if p.grad is not None)]
        for parameter in moved:
            parameter.grad = None
    assert len(found[7]) == len(found[micro]) > 5
    for one, other in zip(found[7], found[micro], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-6)  # gates are float32


def test_it_holds_the_graph_of_one_micro_batch_at_a_time() -> None:
    layers = [layer for _ in range(6) for layer in (nn.Linear(64, 64), nn.GELU())]
    deep, inputs_NW = nn.Sequential(*layers), torch.randn(64, 64)
    fixed = {parameter.data_ptr() for parameter in deep.parameters()}
    alive = most = 0

    def size(tensor: Tensor) -> int:
        return 0 if tensor.data_ptr() in fixed else tensor.nbytes

    def pack(tensor: Tensor) -> Tensor:
        nonlocal alive, most
        alive += size(tensor)
        most = max(most, alive)
        return tensor

    def unpack(tensor: Tensor) -> Tensor:
        nonlocal alive
        alive -= size(tensor)
        return tensor

    found = {}
    for micro in (64, 8):
        alive = most = 0
        side = Tower(forward=lambda a, b: TowerOutput(deep(inputs_NW[a:b])), size=64, micro=micro)
        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            backward([side], lambda emb_NM: emb_NM.square().sum())
        found[micro] = most
    assert found[8] < 0.15 * found[64]


def test_a_frozen_tower_is_left_alone(sides: tuple[Side, Side, nn.Parameter]) -> None:
    sides[0].requires_grad_(False)
    towers = [tower(s, x, micro=2) for s, x in zip(sides[:2], inputs(), strict=True)]
    backward(
        towers, lambda p, t: cross_modal(p, t, group_I=GROUP_I, group_T=GROUP_T, scale=sides[2])
    )
    assert all(p.grad is None for p in sides[0].parameters())
    assert all(p.grad is not None for p in sides[1].parameters())


def test_an_auxiliary_loss_over_tokens_is_weighed_by_tokens() -> None:
    weight = nn.Parameter(torch.tensor([1.0, 2.0, 4.0], dtype=torch.float64))
    tokens = [1.0, 3.0, 2.0]  # of each item

    def forward(start: int, stop: int) -> TowerOutput:
        count = sum(tokens[start:stop])
        mean = (weight[start:stop] * torch.tensor(tokens[start:stop])).sum() / count
        return TowerOutput(weight[start:stop, None], mean, count)

    found = backward([Tower(forward=forward, size=3, micro=1)], lambda emb_NM: emb_NM.sum() * 0)
    assert found.auxiliary.item() == pytest.approx((1 + 6 + 8) / 6)
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.tensor(tokens, dtype=torch.float64) / 6)


@pytest.mark.parametrize(("size", "micro"), [(0, 1), (3, 0)])
def test_a_batch_of_nothing_is_refused(size: int, micro: int) -> None:
    with pytest.raises(InvalidInput, match="at least 1 of 1"):
        Tower(forward=lambda start, stop: TowerOutput(torch.zeros(0, 1)), size=size, micro=micro)


def test_a_tower_that_loses_an_item_is_named() -> None:
    lossy = Tower(forward=lambda start, stop: TowerOutput(torch.zeros(1, 4)), size=4, micro=2)
    with pytest.raises(InvalidInput, match="1 embeddings of 2 items"):
        backward([lossy], lambda emb_NM: emb_NM.sum())
