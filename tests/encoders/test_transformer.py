"""The text tower with and without the states of its blocks kept."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from triptych.encoders.towers.transformer import Transformer, TransformerConfig

CONFIG = TransformerConfig(
    vocabulary=50, width=16, num_layers=4, num_heads=2, hidden=64, dropout=0.3
)


def trained(*, checkpoint: bool) -> tuple[list[Tensor], int]:
    """Gradients of a seeded step with dropout, and the bytes that its graph kept."""
    torch.manual_seed(0)
    tower = Transformer(replace(CONFIG, checkpoint=checkpoint))
    ids_BT = torch.randint(0, 50, (5, 9))
    mask_BT = torch.arange(9)[None, :] < torch.tensor([9, 3, 1, 7, 5])[:, None]
    kept = 0

    def pack(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.nbytes
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        states_BTD = tower(ids_BT, mask_BT)
    states_BTD[mask_BT].square().mean().backward()
    return [p.grad for p in tower.parameters() if p.grad is not None], kept


def test_without_kept_states_gradients_are_the_same_and_memory_is_less() -> None:
    (kept_grads, kept), (again_grads, again) = (trained(checkpoint=on) for on in (False, True))
    assert len(kept_grads) == len(again_grads) == 3 + 1 + 4 * 16
    for one, other in zip(kept_grads, again_grads, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-5, atol=1e-7)
    assert again < 0.3 * kept


def test_without_gradients_nothing_differs() -> None:
    torch.manual_seed(0)
    tower = Transformer(CONFIG).eval()
    torch.manual_seed(0)
    again = Transformer(replace(CONFIG, checkpoint=True)).eval()
    ids_BT = torch.randint(0, 50, (2, 4))
    with torch.no_grad():
        mask_BT = torch.ones_like(ids_BT, dtype=torch.bool)
        assert torch.equal(tower(ids_BT, mask_BT), again(ids_BT, mask_BT))
