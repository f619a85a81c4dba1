"""The layer: router, experts, an optional shared expert; padding goes nowhere.

B batch, T tokens, D model width, E experts, N real tokens of the batch, K candidates of a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.errors import InvalidInput
from triptych.moe.experts import Experts, ExpertsConfig, Form
from triptych.moe.router import Router, RouterConfig, RouterKind, Routing
from triptych.moe.serving import Floats, MoEWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class MoEConfig:
    """128 experts, of which a token uses 3.2 on average."""

    width: int
    hidden: int  # of one expert
    num_experts: int = 128
    router: RouterKind = "sparsemax"
    cap: int = 8  # at most so many experts for a token; at least one
    budget: float = 3.2  # mean number of experts of a token; a shared one does not count
    shared_hidden: int = 0  # of an expert that every token uses; 0: none
    form: Form = "auto"
    temperature: float = 1.0
    balance_rate: float = 0.1  # step of the balancing bias; 0 switches it off
    target_cv: float | None = None  # of the load; by way of the temperature; None: fixed
    zero_output: bool = False  # start with an output of zero

    def router_config(self) -> RouterConfig:
        return RouterConfig(
            width=self.width,
            num_experts=self.num_experts,
            kind=self.router,
            cap=self.cap,
            budget=self.budget,
            temperature=self.temperature,
            balance_rate=self.balance_rate,
            target_cv=self.target_cv,
        )

    def experts_config(self) -> ExpertsConfig:
        return ExpertsConfig(
            width=self.width,
            hidden=self.hidden,
            num_experts=self.num_experts,
            form=self.form,
            zero_output=self.zero_output,
        )


class MoEOutput(NamedTuple):
    """What the layer returns; the losses are plain, the caller weighs them.

    Statistics are over real, finite tokens; all are zero where there is none. The losses are zero
    where no gradient is wanted, too.
    """

    tokens_BTD: Tensor  # zero where there is padding; NaN for a token that is not finite
    balance_loss: Tensor  # 1 where the load is even, up to E
    router_z_loss: Tensor
    budget_loss: Tensor  # mean over items of (mean count / budget - 1) squared
    load_E: Tensor  # float32: tokens that went to each expert
    num_active: Tensor  # mean number of chosen experts of a token


class MoE(nn.Module):
    """A mixture of experts in place of a feed-forward layer.

    Adds no residual and normalises nothing: the model writes `x + moe(norm(x), mask).tokens_BTD`.
    No expert has a capacity limit, so that a token never depends on its neighbours.
    """

    def __init__(self, config: MoEConfig) -> None:
        super().__init__()
        self.config = config
        self.experts = Experts(config.experts_config())
        self.router = Router(config.router_config())
        self.shared = _shared(config) if config.shared_hidden else None

    def forward(self, tokens_BTD: Tensor, mask_BT: Tensor) -> MoEOutput:
        """`mask_BT` is True where there is a token; raises InvalidInput for other shapes.

        A token that is not finite stays so, and changes no other.
        """
        self._check(tokens_BTD, mask_BT)
        flat_MD, flat_M = tokens_BTD.flatten(0, 1), mask_BT.flatten()
        finite_M = flat_MD.detach().sum(dim=1).isfinite()
        real_M = flat_M & finite_M
        every = bool(real_M.all())  # then there is nothing to pick out and to put back
        tokens_ND = flat_MD if every else flat_MD[real_M]
        routing: Routing = self.router(tokens_ND)
        made_ND = self._made(tokens_ND, routing).to(tokens_BTD.dtype)
        out_MD = made_ND if every else _put_back(made_ND, real_M, broken_M=flat_M & ~finite_M)
        return MoEOutput(
            tokens_BTD=out_MD.view_as(tokens_BTD),
            balance_loss=routing.balance_loss,
            router_z_loss=routing.router_z_loss,
            budget_loss=self._budget_loss(routing.count_N, real_M.view_as(mask_BT)),
            load_E=routing.load_E,
            num_active=routing.load_E.sum() / max(len(tokens_ND), 1),
        )

    def adapt(self, load_E: Tensor, num_active: float) -> None:
        """Call after each optimiser step: balances the load and holds the budget.

        Forward itself changes nothing, so a second forward over the same batch (GradCache,
        checkpointing) does not count twice. Of micro-batches give the sum and the mean.
        """
        self.router.adapt(load_E, num_active)

    def weights(self) -> MoEWeights:
        """What serving needs, in numpy."""
        router, shared = self.router, self.shared
        return MoEWeights(
            kind=self.config.router,
            cap=self.config.cap,
            top_k=round(self.config.budget),
            threshold=router.threshold.item(),
            router_ED=_numbers(router.weight_ED / router.temperature),
            bias_E=_numbers(router.bias_E),
            widen_EDH=_numbers(self.experts.widen_EDH),
            narrow_EHD=_numbers(self.experts.narrow_EHD),
            shared_widen_HD=_numbers(shared.widen.weight) if shared else None,
            shared_narrow_DH=_numbers(shared.narrow.weight) if shared else None,
        )

    def _made(self, tokens_ND: Tensor, routing: Routing) -> Tensor:
        made_ND: Tensor = self.experts(
            tokens_ND,
            ids_NK=routing.ids_NK,
            gates_NK=routing.gates_NK,
            chosen_NK=routing.chosen_NK,
        )
        if self.shared is not None:
            made_ND = made_ND + self.shared(tokens_ND)
        return made_ND

    def _budget_loss(self, count_N: Tensor, real_BT: Tensor) -> Tensor:
        """Per item, so that the budget holds on every kind of item and not only on average."""
        if not torch.is_grad_enabled():
            return count_N.new_zeros(())
        count_BT = count_N.new_zeros(real_BT.shape).masked_scatter(real_BT, count_N)
        num_B = real_BT.sum(dim=1)
        off_B = count_BT.sum(dim=1) / num_B.clamp_min(1) / self.config.budget - 1
        some_B = num_B > 0
        return (off_B.square() * some_B).sum() / some_B.sum().clamp_min(1)

    def _check(self, tokens_BTD: Tensor, mask_BT: Tensor) -> None:
        shape = (*mask_BT.shape, self.config.width)
        if mask_BT.dtype != torch.bool or mask_BT.ndim != 2 or tokens_BTD.shape != shape:
            raise InvalidInput(
                f"Got tokens of shape {tuple(tokens_BTD.shape)} and a mask of shape "
                f"{tuple(mask_BT.shape)}, {mask_BT.dtype}.",
                hint=f"Expected (B, T, {self.config.width}) and a boolean (B, T).",
            )


def _put_back(made_ND: Tensor, real_M: Tensor, *, broken_M: Tensor) -> Tensor:
    """Real tokens to where they were taken from, zeros to padding, NaN to what is not finite."""
    out_MD = made_ND.new_zeros(len(real_M), made_ND.shape[1])
    out_MD = out_MD.index_copy(0, real_M.nonzero().squeeze(1), made_ND)
    return out_MD.masked_fill(broken_M.unsqueeze(1), torch.nan)


def _numbers(tensor: Tensor) -> Floats:
    return np.asarray(tensor.detach().float().cpu().numpy(), dtype=np.float32)


class _Shared(nn.Module):
    """The expert that every token uses."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.widen = nn.Linear(width, hidden, bias=False)
        self.narrow = nn.Linear(hidden, width, bias=False)

    def forward(self, tokens_ND: Tensor) -> Tensor:
        made: Tensor = self.narrow(functional.gelu(self.widen(tokens_ND), approximate="tanh"))
        return made


def _shared(config: MoEConfig) -> _Shared:
    shared = _Shared(config.width, config.shared_hidden)
    if config.zero_output:
        nn.init.zeros_(shared.narrow.weight)
    return shared
