"""The training that all parts share: Adam, a warm-up, a rate that falls to nothing."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from triptych.model import inverse_temperature

RATE = 1e-3


class Scaled(nn.Module):
    """A model and the temperature that it is trained at."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.log_scale = nn.Parameter(torch.tensor(math.log(12.0)))

    def scale(self) -> Tensor:
        return inverse_temperature(self.log_scale)


def train(
    model: nn.Module,
    loss: Callable[[torch.Generator], Tensor],
    *,
    steps: int,
    seed: int,
) -> None:
    """Minimise `loss`, which draws its own batches."""
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.01)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (step + 1) / 20) * (1 - step / steps)
        optimizer.zero_grad()
        loss(draw).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()


def draw_rows(count: int, *, of: int, draw: torch.Generator) -> list[int]:
    """Return `count` different rows."""
    return torch.randperm(of, generator=draw)[:count].tolist()
