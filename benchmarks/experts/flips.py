"""How often a token changes experts for a difference of float32's own rounding."""

from __future__ import annotations

from typing import get_args

import torch
from torch import Tensor

from triptych.moe.router import Router, RouterConfig, RouterKind

NOISE = 1e-6  # of a score: what another batch size or another kernel leaves after a few layers
ROUNDS, TOKENS = 20, 50_000


def _gates(router: Router, score_NE: Tensor) -> Tensor:
    found = router(score_NE)
    gates_NK = found.gates_NK * found.chosen_NK
    return torch.zeros_like(score_NE).scatter(1, found.ids_NK, gates_NK)


@torch.inference_mode()
def main() -> None:
    print(f"of a million tokens, with noise of {NOISE:g} on the scores:")
    for kind in get_args(RouterKind):
        # the weights are one, so that the tokens are the scores
        router = Router(RouterConfig(width=128, kind=kind))
        router.weight_ED.copy_(torch.eye(128))
        for step in (0.0, 1e-4):
            torch.manual_seed(0)
            flipped, worst = 0, 0.0
            for _ in range(ROUNDS):
                score_NE = torch.randn(TOKENS, 128)
                both = [score_NE, score_NE + NOISE * torch.randn_like(score_NE)]
                if step:
                    both = [(score / step).round() * step for score in both]
                change_N = (_gates(router, both[0]) - _gates(router, both[1])).abs().sum(dim=1)
                flipped += int((change_N > 0.01).sum())
                worst = max(worst, float(change_N.max()))
            rounded = f"rounded to {step:g}" if step else "not rounded"
            print(
                f"  {kind:9} {rounded:17} {flipped:4} flip; the gates change by up to {worst:.1e}"
            )
