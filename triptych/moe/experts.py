"""The experts: two linear layers with a GELU each, in four forms that give equal numbers.

N tokens, D model width, H hidden width of an expert, E experts, K candidates, R (token, expert)
pairs sorted by expert.

    grouped   grouped_mm: training
    streamed  embedding_bag as a matrix-vector product: inference, while an expert has few tokens,
              which read more weights than they compute. It fetches rows ahead, and reads at once
              and a half to twice the speed of products of one to eight rows
    loop      an expert after the other: the reference, and by oneDNN the inference of many tokens
    dense     every expert for every token: the test's reference

`python -m benchmarks moe` compares them.

The activation is the tanh form of GELU: the one that ONNX Runtime's expert operator computes (its
SwiGLU is one of a kind: a gate times 1.702, plus one). No biases: grouped products have none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.errors import InvalidInput

Form = Literal["auto", "grouped", "streamed", "loop", "dense"]

# where others win over streaming: so many pairs per expert
STREAMED_PAIRS = 10
# ... and over grouped products: multiplications of an expert's layer, some 50 us of calls pay then
LOOPED_PRODUCTS = 2**21


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpertsConfig:
    width: int
    hidden: int
    num_experts: int = 128
    form: Form = "auto"  # training groups, inference takes what is fastest for so many tokens
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
        if len(ids_NK) == 1 and self._run(0, tokens_ND) is _streamed:
            return _alone(tokens_ND, ids_NK, gates_NK, chosen_NK, widen_EDH, narrow_EHD)
        pairs = _sorted_pairs(ids_NK, chosen_NK)
        gates_R1 = gates_NK.flatten()[pairs.place_R].unsqueeze(1).to(tokens_ND.dtype)
        run = self._run(len(pairs.place_R), tokens_ND)
        return run(tokens_ND, gates_R1, widen_EDH, narrow_EHD, pairs)

    def _run(self, num_pairs: int, tokens_ND: Tensor) -> Callable[..., Tensor]:
        forms = {"grouped": _grouped, "streamed": _streamed, "loop": _loop}
        if self.config.form != "auto":
            return forms[self.config.form]
        if tokens_ND.device.type != "cpu":
            # a GPU's grouped_mm takes nothing but bfloat16
            return _grouped if tokens_ND.dtype == torch.bfloat16 else _loop
        if torch.is_grad_enabled() or tokens_ND.dtype != torch.float32:
            return _grouped  # streaming's gradient would be a whole table
        pairs = num_pairs / self.config.num_experts
        if pairs <= STREAMED_PAIRS:
            return _streamed
        looped = pairs * self.config.width * self.config.hidden >= LOOPED_PRODUCTS
        return _loop if looped and _onednn_serves(tokens_ND) else _grouped

    def _in_one_dtype(self, tokens_ND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Tokens and weights in autocast's dtype: grouped_mm is not on its list."""
        device, widen_EDH, narrow_EHD = tokens_ND.device.type, self.widen_EDH, self.narrow_EHD
        dtype = widen_EDH.dtype
        if torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
        if tokens_ND.dtype == widen_EDH.dtype == dtype:
            return tokens_ND, widen_EDH, narrow_EHD
        return tokens_ND.to(dtype), widen_EDH.to(dtype), narrow_EHD.to(dtype)


class _Pairs(NamedTuple):
    """Sorted by expert, then token."""

    place_R: Tensor  # in the flattened NK
    token_R: Tensor
    expert_R: Tensor


def _sorted_pairs(ids_NK: Tensor, chosen_NK: Tensor) -> _Pairs:
    place_R = chosen_NK.flatten().nonzero().squeeze(1)
    expert_R, order_R = ids_NK.flatten()[place_R].sort(stable=True)
    place_R = place_R[order_R]
    return _Pairs(place_R, place_R // ids_NK.shape[1], expert_R)


def _summed(made_RD: Tensor, pairs: _Pairs, like_ND: Tensor) -> Tensor:
    return torch.zeros_like(like_ND).index_add(0, pairs.token_R, made_RD)


def _gelu(x: Tensor) -> Tensor:
    return functional.gelu(x, approximate="tanh")


# A gate weighs the hidden row: it is shorter than the output, and the second layer has no bias.


def _grouped(
    tokens_ND: Tensor, gates_R1: Tensor, widen_EDH: Tensor, narrow_EHD: Tensor, pairs: _Pairs
) -> Tensor:
    if len(gates_R1) == 0:
        return _summed(tokens_ND[pairs.token_R], pairs, tokens_ND)
    count_E = pairs.expert_R.bincount(minlength=len(widen_EDH))
    ends_E = count_E.cumsum(0).to(torch.int32)
    hidden_RH = _gelu(functional.grouped_mm(tokens_ND[pairs.token_R], widen_EDH, offs=ends_E))
    made_RD = functional.grouped_mm(hidden_RH * gates_R1, narrow_EHD, offs=ends_E)
    return _summed(made_RD, pairs, tokens_ND)


def _streamed(
    tokens_ND: Tensor, gates_R1: Tensor, widen_EDH: Tensor, narrow_EHD: Tensor, pairs: _Pairs
) -> Tensor:
    rows_RD, expert_R = tokens_ND[pairs.token_R], pairs.expert_R
    if len(rows_RD) == 0:
        return _summed(rows_RD, pairs, tokens_ND)
    hidden_RH = _gelu(_bags(widen_EDH, expert_R, weights_RK=rows_RD, num_bags=len(rows_RD)))
    hidden_RH = hidden_RH * gates_R1
    made_RD = _bags(narrow_EHD, expert_R, weights_RK=hidden_RH, num_bags=len(rows_RD))
    return _summed(made_RD, pairs, tokens_ND)


def _alone(
    token_1D: Tensor,
    ids_1K: Tensor,
    gates_1K: Tensor,
    chosen_1K: Tensor,
    widen_EDH: Tensor,
    narrow_EHD: Tensor,
) -> Tensor:
    """Streamed, of one token: its experts need no sorting, and are one sum.

    Reading them takes as long as some 60 calls into torch, so each call counts.
    """
    place_R = chosen_1K.view(-1).nonzero().view(-1)
    num = len(place_R)
    if num == 0:
        return torch.zeros_like(token_1D)
    expert_R = ids_1K.view(-1).index_select(0, place_R)
    gates_R = gates_1K.view(-1).index_select(0, place_R)
    rows_RD = token_1D.expand(num, -1)
    hidden_RH = _gelu(_bags(widen_EDH, expert_R, weights_RK=rows_RD, num_bags=num))
    hidden_RH.mul_(gates_R.unsqueeze(1))
    return _bags(narrow_EHD, expert_R, weights_RK=hidden_RH, num_bags=1)


def _bags(matrix_EKN: Tensor, expert_R: Tensor, *, weights_RK: Tensor, num_bags: int) -> Tensor:
    """The rows of the pairs' matrices, weighted and summed: one sum a pair, or one of them all."""
    num_rows, device = matrix_EKN.shape[1], expert_R.device
    if not torch.is_grad_enabled():
        matrix_EKN = matrix_EKN.detach()  # of what may want a gradient, the bags are counted too
    index_RK = torch.add(_up_to(num_rows, device), expert_R.unsqueeze(1), alpha=num_rows)
    count = index_RK.numel()
    # functional.embedding_bag checks for as long as a token's expert takes to read
    made: Tensor = torch.embedding_bag(
        matrix_EKN.flatten(0, 1),
        index_RK.flatten(),
        torch.arange(0, count, count // num_bags, device=device),
        per_sample_weights=weights_RK.flatten(),
    )[0]
    return made


@cache
def _up_to(num: int, device: torch.device) -> Tensor:
    return torch.arange(num, device=device)


def _loop(
    tokens_ND: Tensor, gates_R1: Tensor, widen_EDH: Tensor, narrow_EHD: Tensor, pairs: _Pairs
) -> Tensor:
    """Takes and gives an expert's rows at a time, while they are in the caches."""
    out_ND = torch.zeros_like(tokens_ND)
    product = _by_onednn if _onednn_serves(tokens_ND) else _by_torch
    counts = pairs.expert_R.bincount(minlength=len(widen_EDH)).tolist()
    split = zip(
        pairs.token_R.split_with_sizes(counts), gates_R1.split_with_sizes(counts), strict=True
    )
    for at, (token_C, gates_C1) in enumerate(split):
        if counts[at]:
            made_CD = product(tokens_ND, token_C, gates_C1, widen_EDH[at], narrow_EHD[at])
            out_ND.index_add_(0, token_C, made_CD)
    return out_ND


def _by_torch(
    tokens_ND: Tensor, token_C: Tensor, gates_C1: Tensor, widen_DH: Tensor, narrow_HD: Tensor
) -> Tensor:
    return (_gelu(tokens_ND[token_C] @ widen_DH) * gates_C1) @ narrow_HD


def _by_onednn(
    tokens_ND: Tensor, token_C: Tensor, gates_C1: Tensor, widen_DH: Tensor, narrow_HD: Tensor
) -> Tensor:
    # the first product of another number of rows takes a millisecond to compile; padding takes more
    hidden_CH = product_by_onednn(tokens_ND[token_C], widen_DH, "gelu", "tanh")
    return product_by_onednn(hidden_CH.mul_(gates_C1), narrow_HD)


def _onednn_serves(tokens_ND: Tensor) -> bool:
    """MKL leaves AVX-512 unused on AMD's processors: oneDNN takes 0.6 of its time for 26 rows."""
    plain = tokens_ND.device.type == "cpu" and tokens_ND.dtype == torch.float32
    return plain and not torch.is_grad_enabled() and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]


def product_by_onednn(
    rows_CK: Tensor, matrix_KN: Tensor, activation: str = "none", kind: str = ""
) -> Tensor:
    """What torch.compile writes for a linear layer; it has no gradient."""
    made_CN: Tensor = torch.ops.mkldnn._linear_pointwise(
        rows_CK, matrix_KN.t(), None, activation, [], kind
    )
    return made_CN


def _dense(tokens_ND: Tensor, widen_EDH: Tensor, narrow_EHD: Tensor, gates_NE: Tensor) -> Tensor:
    hidden_ENH = _gelu(tokens_ND @ widen_EDH)
    return torch.einsum("enh,ehd,ne->nd", hidden_ENH, narrow_EHD, gates_NE.to(hidden_ENH.dtype))
