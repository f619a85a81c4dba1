"""Which experts a token goes to, and how much each counts.

N tokens, D model width, E experts, K candidates (the cap).

Five ways behind one interface. Each looks at the K best experts of a token (the cap), gives each a
margin (chosen where it is positive; the best one always is) and a gate (the gates of a token sum
to 1; an expert that is not chosen has 0). They differ in the rule:

    top_k      the first k = round(budget)
    top_p      until the chosen hold more than `threshold` of the probability (Huang et al. 2024)
    relu       scores above `threshold` (ReMoE, Wang et al. 2024), normalised
    sigmoid    sigmoid scores above `threshold`, plus a bias (DeepSeek-V3 2024)
    sparsemax  the projection of the scores onto the simplex (Martins and Astudillo 2016): the
               better experts' lead, summed, is below `threshold`

Of these sparsemax is continuous: an expert enters with weight zero (relu is, but where no score
passes). So a difference of 1e-6 in a score (another batch, another kernel) changes the output by
as little, where the others flip a whole expert. Rounding the scores does not help them: it moves
the edges, and as many tokens lie on those (`python -m benchmarks moe` counts). Hence the default.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.control import Controller, ControlState
from triptych.errors import InvalidInput

TINY = 1e-30  # a gate that is nothing beside any other, and not zero

RouterKind = Literal["top_k", "top_p", "relu", "sigmoid", "sparsemax"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterConfig:
    """The defaults hold 3.2 experts of 128 per token."""

    width: int
    num_experts: int = 128
    kind: RouterKind = "sparsemax"
    cap: int = 8  # at most so many experts for a token
    budget: float = 3.2  # mean number of experts of a token
    temperature: float = 1.0  # divides the scores, before the bias
    balance_rate: float = 0.1  # a step of the bias at full imbalance; 0 switches it off
    target_cv: float | None = None  # hold the load's std / mean there by way of the temperature

    def __post_init__(self) -> None:
        if self.kind not in get_args(RouterKind):
            known = ", ".join(get_args(RouterKind))
            raise InvalidInput(f"Unknown router {self.kind!r}.", hint=f"Known: {known}.")
        if not 1 <= self.budget <= self.cap <= self.num_experts:
            raise InvalidInput(
                f"Got budget {self.budget}, cap {self.cap}, num_experts {self.num_experts}.",
                hint="Expected 1 <= budget <= cap <= num_experts.",
            )


class Routing(NamedTuple):
    """Where the real tokens go, and what that says about the router.

    The losses are for training: where no gradient is wanted they are not computed, and zero.
    """

    ids_NK: Tensor  # int64, best first
    gates_NK: Tensor  # float32, rows sum to 1
    chosen_NK: Tensor  # bool
    count_N: Tensor  # chosen experts; differentiable through a soft count
    balance_loss: Tensor  # Switch (Fedus et al. 2021, eq. 4): 1 where the load is even
    router_z_loss: Tensor  # ST-MoE (Zoph et al. 2022, eq. 5)
    load_E: Tensor  # tokens that went to each expert


class _Candidates(NamedTuple):
    """The K best of each token by biased score, best first."""

    biased_NK: Tensor
    ids_NK: Tensor
    plain_NE: Tensor  # every expert's score without the bias
    all_NE: Tensor  # every expert's biased score
    threshold: Tensor
    top_k: int

    def plain_NK(self) -> Tensor:
        return self.plain_NE.gather(1, self.ids_NK)


def _top_k(found: _Candidates) -> tuple[Tensor, Tensor]:
    rank_K = torch.arange(found.biased_NK.shape[1], device=found.biased_NK.device)
    margin_NK = (found.top_k - 0.5 - rank_K).expand_as(found.biased_NK)
    return margin_NK, _softmax_of_chosen(found, margin_NK)


def _top_p(found: _Candidates) -> tuple[Tensor, Tensor]:
    prob_NK = (found.biased_NK - found.all_NE.logsumexp(dim=1, keepdim=True)).exp()
    margin_NK = found.threshold - (prob_NK.cumsum(dim=1) - prob_NK)
    return margin_NK, _softmax_of_chosen(found, margin_NK)


def _relu(found: _Candidates) -> tuple[Tensor, Tensor]:
    margin_NK = found.biased_NK - found.threshold
    return margin_NK, margin_NK.clamp_min(0)


def _sigmoid(found: _Candidates) -> tuple[Tensor, Tensor]:
    margin_NK = found.biased_NK.sigmoid() - found.threshold
    return margin_NK, found.plain_NK().sigmoid()


def _sparsemax(found: _Candidates) -> tuple[Tensor, Tensor]:
    score_NK = found.biased_NK
    rank_K = torch.arange(1, score_NK.shape[1] + 1, device=score_NK.device)
    # the edges of the first 1, 2, .. experts rise up to the right one, then fall
    edges_NK = (score_NK.cumsum(dim=1) - found.threshold) / rank_K
    margin_NK = score_NK - edges_NK.amax(dim=1, keepdim=True)
    return margin_NK, margin_NK


def _softmax_of_chosen(found: _Candidates, margin_NK: Tensor) -> Tensor:
    away_NK = margin_NK <= 0
    away_NK[:, 0] = False
    return found.plain_NK().masked_fill(away_NK, -torch.inf).softmax(dim=1)


@dataclass(frozen=True, slots=True)
class _Rule:
    """A way to choose, and where its threshold may lie."""

    choose: Callable[[_Candidates], tuple[Tensor, Tensor]]
    start: float = 0.0
    low: float = 0.0
    high: float = 0.0
    gain: float = 0.0  # threshold per expert too few; 0: this rule has none
    softness: float = 1.0  # width of the soft count's step, in units of the margin

    def controller(self, budget: float) -> Controller | None:
        if self.gain == 0:
            return None
        return Controller(
            setpoint=budget,
            start=self.start,
            low=self.low,
            high=self.high,
            gain=self.gain,
            max_step=2 * abs(self.gain),
            dead_band=0.02,
            smoothing=0.8,
        )


# starts: 3.2 of 128 experts at unit variance of the scores
_RULES: dict[RouterKind, _Rule] = {
    "top_k": _Rule(_top_k),
    "top_p": _Rule(_top_p, start=0.136, low=0.005, high=0.995, gain=0.008, softness=0.05),
    "relu": _Rule(_relu, start=1.96, low=-10.0, high=50.0, gain=-0.02, softness=0.25),
    "sigmoid": _Rule(_sigmoid, start=0.877, low=0.01, high=0.999, gain=-0.002, softness=0.05),
    "sparsemax": _Rule(_sparsemax, start=0.9, low=0.01, high=50.0, gain=0.06, softness=0.1),
}


class Router(nn.Module):
    """A linear layer without a bias, and a rule.

    The threshold, the temperature and the balancing bias are buffers. Only `adapt` moves them, and
    only training calls it: in a checkpoint they are frozen.
    """

    bias_E: Tensor
    threshold: Tensor
    temperature: Tensor
    budget_state: Tensor
    heat_state: Tensor

    def __init__(self, config: RouterConfig) -> None:
        super().__init__()
        self.config = config
        self._rule = _RULES[config.kind]
        self._budget = self._rule.controller(config.budget)
        self._heat = _heat_controller(config)
        self.weight_ED = nn.Parameter(torch.empty(config.num_experts, config.width))
        # unit variance of the scores for a normalised token: no expert starts saturated
        nn.init.normal_(self.weight_ED, std=config.width**-0.5)
        self.register_buffer("bias_E", torch.zeros(config.num_experts))
        self.register_buffer("threshold", torch.tensor(self._rule.start))
        self.register_buffer("temperature", torch.tensor(config.temperature))
        for name, controller in (("budget_state", self._budget), ("heat_state", self._heat)):
            state = controller.initial() if controller else ControlState(0.0, 0.0, 0.0)
            self.register_buffer(name, torch.tensor(state, dtype=torch.float64))

    def forward(self, tokens_ND: Tensor) -> Routing:
        """Route tokens that are real and finite, in float32 whatever the autocast."""
        if torch.is_autocast_enabled(tokens_ND.device.type):
            with torch.autocast(tokens_ND.device.type, enabled=False):
                return self.forward(tokens_ND)
        score_NE = functional.linear(tokens_ND.float(), self.weight_ED.float())
        return self._route(score_NE / self.temperature)

    def _route(self, score_NE: Tensor) -> Routing:
        biased_NE = score_NE + self.bias_E
        top_NK, ids_NK = biased_NE.topk(self.config.cap, dim=1)
        margin_NK, gate_NK = self._rule.choose(
            _Candidates(
                biased_NK=top_NK,
                ids_NK=ids_NK,
                plain_NE=score_NE,
                all_NE=biased_NE,
                threshold=self.threshold,
                top_k=round(self.config.budget),
            )
        )
        chosen_NK = margin_NK > 0
        chosen_NK[:, 0] = True
        load_E = score_NE.new_zeros(self.config.num_experts)
        load_E.scatter_add_(0, ids_NK.flatten(), chosen_NK.flatten().to(load_E.dtype))
        balance, z_loss = _losses(score_NE, load_E)
        count_N = self._count(margin_NK, chosen_NK)
        gates_NK = _normalised(gate_NK, chosen_NK)
        return Routing(ids_NK, gates_NK, chosen_NK, count_N, balance, z_loss, load_E)

    def _count(self, margin_NK: Tensor, chosen_NK: Tensor) -> Tensor:
        """The value of the count, the gradient of a soft one."""
        count_N = chosen_NK.sum(dim=1).float()
        if not torch.is_grad_enabled():
            return count_N
        soft_N = (margin_NK / self._rule.softness).sigmoid().sum(dim=1)
        return count_N + soft_N - soft_N.detach()

    @torch.no_grad()
    def adapt(self, load_E: Tensor, num_active: float) -> None:
        """After a training step: move the bias, the threshold and the temperature.

        The bias as in DeepSeek's balancing without a loss (Wang et al. 2024), but in proportion
        near the mean, where a sign would make it tremble.
        """
        mean = load_E.mean()
        if mean == 0:
            return
        self.bias_E += self.config.balance_rate * (1 - load_E / mean).clamp(-1, 1)
        self.bias_E -= self.bias_E.mean()
        if self._budget:
            self.threshold.fill_(_advance(self._budget, self.budget_state, num_active))
        if self._heat:
            cv = float(load_E.std(correction=0) / mean)
            self.temperature.fill_(_advance(self._heat, self.heat_state, cv))


def _heat_controller(config: RouterConfig) -> Controller | None:
    if config.target_cv is None:
        return None
    return Controller(
        setpoint=config.target_cv,
        start=config.temperature,
        low=config.temperature / 4,
        high=config.temperature * 8,
        gain=-0.05 * config.temperature,
        dead_band=0.05 * config.target_cv,
        smoothing=0.8,
    )


def _advance(controller: Controller, state: Tensor, measured: float) -> float:
    new = controller.step(ControlState(*state.tolist()), measured)
    state.copy_(torch.tensor(new, dtype=torch.float64))
    return new.knob


def _normalised(gate_NK: Tensor, chosen_NK: Tensor) -> Tensor:
    """Gates that sum to 1; the best expert has all where every gate is zero."""
    kept_NK = gate_NK.masked_fill(~chosen_NK, 0.0)
    kept_NK[:, :1].clamp_min_(TINY)
    return kept_NK / kept_NK.sum(dim=1, keepdim=True)


def _losses(score_NE: Tensor, load_E: Tensor) -> tuple[Tensor, Tensor]:
    if not torch.is_grad_enabled():
        return score_NE.new_zeros(()), score_NE.new_zeros(())
    num = max(len(score_NE), 1)
    lse_N1 = score_NE.logsumexp(dim=1, keepdim=True)
    prob_E = (score_NE - lse_N1).exp().sum(dim=0) / num
    share_E = load_E / load_E.sum().clamp_min(1)
    return len(load_E) * (share_E @ prob_E), lse_N1.square().sum() / num
