"""Small trainings on a made-up task: eight domains, each with a function of its own.

A token is a domain's centre plus noise, the target a random two-layer network of that domain.
S domains, N tokens, D width, E experts.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from triptych.moe.layer import MoE, MoEConfig
from triptych.moe.metrics import load_report, shuffled_specialisation, specialisation
from triptych.moe.router import RouterKind

WIDTH, DOMAINS, STEPS, TOKENS = 64, 8, 400, 512
CONFIG = MoEConfig(width=WIDTH, hidden=16)


class Task:
    """Domains of unequal size: the first has eight times the tokens of the last."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        self.centre_SD = torch.randn(DOMAINS, WIDTH, generator=draw)
        self.first_SDD = torch.randn(DOMAINS, WIDTH, WIDTH, generator=draw) / WIDTH**0.5
        self.second_SDD = torch.randn(DOMAINS, WIDTH, WIDTH, generator=draw) / WIDTH**0.5
        # domains differ in how sharply their tokens differ: a fixed threshold suits only one
        self.spread_S = torch.linspace(0.4, 1.6, DOMAINS)
        self.share_S = torch.arange(DOMAINS, 0, -1).float()

    def batch(self, num: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return tokens_ND, target_ND, domain_N."""
        draw = torch.Generator().manual_seed(seed)
        domain_N = self.share_S.multinomial(num, replacement=True, generator=draw)
        noise_ND = torch.randn(num, WIDTH, generator=draw)
        tokens_ND = self.centre_SD[domain_N] + self.spread_S[domain_N, None] * noise_ND
        target_ND = torch.empty_like(tokens_ND)
        for at in range(DOMAINS):
            here_N = domain_N == at
            target_ND[here_N] = (tokens_ND[here_N] @ self.first_SDD[at]).relu() @ self.second_SDD[
                at
            ]
        return functional.layer_norm(tokens_ND, (WIDTH,)), target_ND, domain_N


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    explained: float  # share of the target's variance, held out
    active: float
    active_std: float
    active_S: list[float]
    imbalance: float
    cv: float
    dead: int
    nmi: float
    nmi_by_chance: float
    milliseconds: float  # of a step


def train(config: MoEConfig, *, budget_weight: float = 0.1, balance_weight: float = 0.0) -> Result:
    torch.manual_seed(0)
    task, moe = Task(), MoE(config)
    optimiser = torch.optim.AdamW(moe.parameters(), lr=3e-3, weight_decay=0.0)
    start = time.thread_time()
    for step in range(STEPS):
        tokens_ND, target_ND, domain_N = task.batch(TOKENS, seed=step)
        order_N = domain_N.argsort()  # items of 16 tokens, mostly of one domain
        items_BTD = tokens_ND[order_N].view(-1, 16, WIDTH)
        out = moe(items_BTD, torch.ones(items_BTD.shape[:2], dtype=torch.bool))
        loss = functional.mse_loss(out.tokens_BTD.flatten(0, 1), target_ND[order_N])
        loss = loss + 1e-3 * out.router_z_loss + balance_weight * out.balance_loss
        optimiser.zero_grad()
        (loss + budget_weight * out.budget_loss).backward()
        optimiser.step()
        moe.adapt(out.load_E, float(out.num_active))
    return _held_out(task, moe.eval(), 1e3 * (time.thread_time() - start) / STEPS)


@torch.no_grad()
def _held_out(task: Task, moe: MoE, milliseconds: float) -> Result:
    tokens_ND, target_ND, domain_N = task.batch(20_000, seed=10**6)
    found = moe.router(tokens_ND)
    out = moe(tokens_ND[None], torch.ones(1, len(tokens_ND), dtype=torch.bool))
    error = (out.tokens_BTD[0] - target_ND).square().mean() / target_ND.var()
    load_SE = np.stack(
        [moe.router(tokens_ND[domain_N == at]).load_E.numpy() for at in range(DOMAINS)]
    )
    report = load_report(load_SE.sum(axis=0))
    return Result(
        explained=1 - float(error),
        active=float(out.num_active),
        active_std=float(found.count_N.std()),
        active_S=[float(found.count_N[domain_N == at].mean()) for at in range(DOMAINS)],
        imbalance=report.imbalance,
        cv=report.cv,
        dead=report.dead,
        nmi=specialisation(load_SE),
        nmi_by_chance=shuffled_specialisation(load_SE),
        milliseconds=milliseconds,
    )


def _line(name: str, found: Result) -> None:
    domains = f"{min(found.active_S):.2f} to {max(found.active_S):.2f} by domain"
    print(
        f"  {name:26} explains {found.explained:5.1%}  active {found.active:4.2f} +- "
        f"{found.active_std:4.2f} ({domains})  "
        f"max/mean {found.imbalance:5.2f}  CV {found.cv:4.2f}  dead {found.dead:3}  "
        f"NMI {found.nmi:.3f} (chance {found.nmi_by_chance:.3f})  {found.milliseconds:.1f} ms/step"
    )


def balance() -> None:
    print("balancing, after training:")
    for num in (8, 32, 128):
        config = replace(CONFIG, num_experts=num)
        _line(f"{num} experts, none", train(replace(config, balance_rate=0.0)))
        _line(f"{num} experts, bias", train(config))
        loss = train(replace(config, balance_rate=0.0), balance_weight=0.1)
        _line(f"{num} experts, loss of 0.1", loss)
        _line(f"{num} experts, both", train(config, balance_weight=0.1))


def variants() -> None:
    print("routers, 128 experts:")
    for kind in get_args(RouterKind):
        _line(kind, train(replace(CONFIG, router=kind)))
    for budget in (2.0, 4.0):
        _line(f"top_k, {budget:.0f}", train(replace(CONFIG, router="top_k", budget=budget)))


def budget() -> None:
    print("the budget's loss, per item, beside the threshold's controller:")
    for weight in (0.0, 0.1, 1.0):
        _line(f"weight {weight:g}", train(CONFIG, budget_weight=weight))


def heat() -> None:
    print("temperature held by the load's CV, with a slow balancing bias:")
    slow = replace(CONFIG, balance_rate=0.01)
    _line("fixed", train(slow))
    _line("target CV 0.4", train(replace(slow, target_cv=0.4)))
