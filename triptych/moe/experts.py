"""The experts: two linear layers with a GELU each, in four forms that give equal numbers.

N tokens, D model width, H hidden width of an expert, E experts, K candidates, R (token, expert)
pairs sorted by expert.

    grouped   grouped_mm: training, and many tokens
    streamed  embedding_bag as a matrix-vector product: a few tokens, which read more weights than
              they compute. It fetches rows ahead, and reads twice to three times as fast as
              products of one to eight rows do (`python -m benchmarks moe`)
    loop      an expert after the other: the reference
    dense     every expert for every token: the test's reference

The activation is the tanh form of GELU: the one that ONNX Runtime's expert operator computes (its
SwiGLU is one of a kind: a gate times 1.702, plus one). No biases: grouped products have none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.errors import InvalidInput

Form = Literal["auto", "grouped", "streamed", "loop", "dense"]

# from about so many pairs per expert grouped products win over streaming
STREAMED_PAIRS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsConfig:
    width: int
    hidden: int
    num_experts: int = 128
    form: Form = "auto"  # streamed where few tokens need no gradient, else grouped
    zero_output: bool = False  # start at zero, so that a pretrained model starts unchanged

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            known = ", ".join(get_args(Form))
            raise InvalidInput(f"Unknown form {self.form!r} of experts.", hint=f"Known: {known}.")
        if self.width % 8 or self.hidden % 8 or self.width <= 0 or self.hidden <= 0:
            # grouped_mm wants rows of whole 16 bytes, in bfloat16 too
            raise InvalidInput(
                f"Got experts of width {self.width} and hidden {self.hidden}.",
                hint="Both must be multiples of 8.",
            )


class Experts(nn.Module):
    """tokens_ND and where they go to the gated sum of their experts."""

    def __init__(self, config: ExpertsConfig) -> None:
        super().__init__()
        self.config = config
        num, width, hidden = config.num_experts, config.width, config.hidden
        self.widen_EDH = nn.Parameter(torch.empty(num, width, hidden))
        self.narrow_EHD = nn.Parameter(torch.zeros(num, hidden, width))
        nn.init.normal_(self.widen_EDH, std=width**-0.5)
        if not config.zero_output:
            nn.init.normal_(self.narrow_EHD, std=hidden**-0.5)

    def forward(
        self, tokens_ND: Tensor, *, ids_NK: Tensor, gates_NK: Tensor, chosen_NK: Tensor
    ) -> Tensor:
        """Sums over the chosen experts; zero for a token that has none."""
        tokens_ND, widen_EDH, narrow_EHD = self._in_one_dtype(tokens_ND)
        if self.config.form == "dense":
            gates_NE = gates_NK.new_zeros(len(ids_NK), self.config.num_experts)
            gates_NE = gates_NE.scatter(1, ids_NK, gates_NK.masked_fill(~chosen_NK, 0.0))
            return _dense(tokens_ND, widen_EDH, narrow_EHD, gates_NE)
        pairs = _sorted_pairs(ids_NK, chosen_NK, self.config.num_experts)
        gates_R1 = gates_NK.flatten()[pairs.place_R].unsqueeze(1).to(tokens_ND.dtype)
        run = self._run(pairs, tokens_ND.dtype)
        made_RD = run(tokens_ND[pairs.token_R], gates_R1, widen_EDH, narrow_EHD, pairs)
        return torch.zeros_like(tokens_ND).index_add(0, pairs.token_R, made_RD)

    def _run(self, pairs: _Pairs, dtype: torch.dtype) -> Callable[..., Tensor]:
        forms = {"grouped": _grouped, "streamed": _streamed, "loop": _loop}
        if self.config.form != "auto":
            return forms[self.config.form]
        if pairs.place_R.device.type != "cpu":
            # a GPU's grouped_mm takes nothing but bfloat16
            return _grouped if dtype == torch.bfloat16 else _loop
        few = len(pairs.place_R) <= STREAMED_PAIRS * self.config.num_experts
        # streaming's gradient would be a whole table
        streams = few and dtype == torch.float32 and not torch.is_grad_enabled()
        return _streamed if streams else _grouped

    def _in_one_dtype(self, tokens_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens and weights in autocast's dtype: grouped_mm is not on its list."""
        device = tokens_ND.device.type
        dtype = self.widen_EDH.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        return tokens_ND.to(dtype), self.widen_EDH.to(dtype), self.narrow_EHD.to(dtype)


class _Pairs(NamedTuple):
    """Sorted by expert, then token."""

    place_R: Tensor  # in the flattened NK
    token_R: Tensor
    expert_R: Tensor
    count_E: Tensor


def _sorted_pairs(ids_NK: Tensor, chosen_NK: Tensor, num_experts: int) -> _Pairs:
    place_R = chosen_NK.flatten().nonzero().squeeze(1)
    expert_R = ids_NK.flatten()[place_R]
    order_R = expert_R.argsort(stable=True)
    place_R = place_R[order_R]
    count_E = expert_R.bincount(minlength=num_experts)
    return _Pairs(place_R, place_R // ids_NK.shape[1], expert_R[order_R], count_E)


def _gelu(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


# A gate weighs the hidden row: it is shorter than the output, and the second layer has no bias.


def _grouped(
    rows_RD: Tensor, gates_R1: Tensor, widen_EDH: Tensor, narrow_EHD: Tensor, pairs: _Pairs
) -> Tensor:
    if len(rows_RD) == 0:
        return rows_RD
    ends_E = pairs.count_E.cumsum(0).to(torch.int32)
    hidden_RH = _gelu(functional.grouped_mm(rows_RD, widen_EDH, offs=ends_E))
    return functional.grouped_mm(hidden_RH * gates_R1, narrow_EHD, offs=ends_E)


def _streamed(
    rows_RD: Tensor, gates_R1: Tensor, widen_EDH: Tensor, narrow_EHD: Tensor, pairs: _Pairs
) -> Tensor:
    if len(rows_RD) == 0:
        return rows_RD
    hidden_RH = _gelu(_weighted_rows(widen_EDH, pairs.expert_R, weights_RK=rows_RD))
    return _weighted_rows(narrow_EHD, pairs.expert_R, weights_RK=hidden_RH * gates_R1)


def _weighted_rows(matrix_EKN: Tensor, expert_R: Tensor, *, weights_RK: Tensor) -> Tensor:
    """weights @ matrix[expert] for each pair: the rows of the matrix, weighted and summed."""
    num_rows = matrix_EKN.shape[1]
    within_K = torch.arange(num_rows, dtype=torch.int32, device=expert_R.device)
    index_RK = expert_R.to(torch.int32).unsqueeze(1) * num_rows + within_K
    table = matrix_EKN.flatten(0, 1)
    return functional.embedding_bag(index_RK, table, mode="sum", per_sample_weights=weights_RK)


def _loop(
    rows_RD: Tensor, gates_R1: Tensor, widen_EDH: Tensor, narrow_EHD: Tensor, pairs: _Pairs
) -> Tensor:
    counts = pairs.count_E.tolist()
    parts, gates = torch.split(rows_RD, counts), torch.split(gates_R1, counts)
    made = [
        (_gelu(parts[at] @ widen_EDH[at]) * gates[at]) @ narrow_EHD[at]
        for at, count in enumerate(counts)
        if count
    ]
    return torch.cat(made) if made else rows_RD


def _dense(tokens_ND: Tensor, widen_EDH: Tensor, narrow_EHD: Tensor, gates_NE: Tensor) -> Tensor:
    hidden_ENH = _gelu(tokens_ND @ widen_EDH)
    return torch.einsum("enh,ehd,ne->nd", hidden_ENH, narrow_EHD, gates_NE.to(hidden_ENH.dtype))
