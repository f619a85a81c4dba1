"""The layer for serving, without torch: nodes of an ONNX graph.

The experts are ONNX Runtime's own operator `QMoE`: it holds their weights in eight bits, and turns
into floats and multiplies only those of the chosen experts. Activations are not rounded. The
routing in front of it is written in plain operators. (`python -m benchmarks moe` has the others
that were measured: `MoE`, which holds float32, and a numpy loop between two graphs.)

What the operator is told is the logarithm of the gates: it takes a softmax of what it gets, so an
expert with -1e30 has weight 0 and is skipped, and the others have just their gates. So each token
costs as many experts as its router chose, 3.2 on average, and not the cap.

B batch, T tokens, D model width, E experts, H hidden width, N real tokens, K candidates of a token.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

FAR = -1e30  # exp of it is 0 in float32, and it is finite: -inf - -inf would be NaN
ONNX_RUNTIME = "com.microsoft"
_FLOAT = 1  # float32 among the types of ONNX


class GraphWriter(Protocol):
    """What of a writer of graphs is used here; every method returns the name of its output."""

    quantised: bool

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str: ...
    def split(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]: ...
    def constant(self, array: NDArray[Any]) -> str: ...
    def number(self, value: float) -> str: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class MoEWeights:
    """A trained layer in numpy: its weights, and what training froze."""

    kind: str  # of the router
    cap: int
    top_k: int  # of the router `top_k`
    threshold: float
    router_ED: Floats  # divided by the temperature
    bias_E: Floats
    widen_EDH: Floats
    narrow_EHD: Floats
    shared_widen_HD: Floats | None = None
    shared_narrow_DH: Floats | None = None


class Written(NamedTuple):
    """Names of what a layer gives."""

    tokens: str  # (B, T, D), zero where there is padding
    load: str  # (E,) float32, how many tokens chose each expert


class _Candidates(NamedTuple):
    """Names of scores, as in `router.py`."""

    biased_NE: str
    top_NK: str  # of the K best of each token, best first; biased
    plain_NK: str  # of the same, without the bias


def write_moe(graph: GraphWriter, weights: MoEWeights, *, tokens: str, mask: str) -> Written:
    """Write the layer; `tokens` names (B, T, D) float32 and `mask` (B, T) bool.

    Padding is not computed. A token that is not finite stays so and changes no other. Where the
    writer quantises, the experts lie in eight bits with a scale per output; router and shared
    expert stay float32.
    """
    width = weights.router_ED.shape[1]
    flat_MD = graph.op("Reshape", tokens, _ints(graph, [-1, width]))
    flat_M = graph.op("Reshape", mask, _ints(graph, [-1]))
    real_1N = graph.op("NonZero", flat_M)
    place_N1 = graph.op("Transpose", real_1N, perm=[1, 0])
    tokens_ND = graph.op("GatherND", flat_MD, place_N1)
    logs_NE = _gate_logs(graph, weights, tokens_ND)
    made_ND = _experts(graph, weights, tokens_ND, logs_NE)
    if weights.shared_widen_HD is not None and weights.shared_narrow_DH is not None:
        shared_ND = _shared(graph, tokens_ND, weights.shared_widen_HD, weights.shared_narrow_DH)
        made_ND = graph.op("Add", made_ND, shared_ND)
    empty_MD = graph.op("ConstantOfShape", graph.op("Shape", flat_MD))
    filled_MD = graph.op("ScatterND", empty_MD, place_N1, made_ND)
    chosen_NE = graph.op("Greater", logs_NE, graph.number(FAR / 2))
    load_E = graph.op(
        "ReduceSum", graph.op("Cast", chosen_NE, to=_FLOAT), _ints(graph, [0]), keepdims=0
    )
    return Written(graph.op("Reshape", filled_MD, graph.op("Shape", tokens)), load_E)


def _gate_logs(graph: GraphWriter, weights: MoEWeights, tokens_ND: str) -> str:
    """The logarithm of every expert's gate, FAR for those not chosen."""
    score_NE = graph.op("MatMul", tokens_ND, graph.constant(weights.router_ED.T.copy()))
    # x - x is NaN for what is not finite: such a token takes any experts, which make it NaN again
    broken_NE = graph.op("IsNaN", graph.op("Sub", score_NE, score_NE))
    score_NE = graph.op("Where", broken_NE, graph.number(0.0), score_NE)
    biased_NE = graph.op("Add", score_NE, graph.constant(weights.bias_E))
    top_NK, ids_NK = graph.split(
        "TopK", biased_NE, _ints(graph, [weights.cap]), outputs=2, axis=1, largest=1, sorted=1
    )
    plain_NK = graph.op("GatherElements", score_NE, ids_NK, axis=1)
    found = _Candidates(biased_NE, top_NK, plain_NK)
    margin_NK, gate_NK = _RULES[weights.kind](graph, weights, found)
    first_K = graph.constant(np.arange(weights.cap) == 0)
    chosen_NK = graph.op("Or", graph.op("Greater", margin_NK, graph.number(0.0)), first_K)
    kept_NK = graph.op("Where", chosen_NK, gate_NK, graph.number(0.0))
    # a single expert has all, also where its own gate is zero
    tiny = graph.constant(np.where(np.arange(weights.cap) == 0, 1e-30, 0).astype(np.float32))
    logs_NK = graph.op("Max", graph.op("Log", graph.op("Max", kept_NK, tiny)), graph.number(FAR))
    far_NE = graph.op("Expand", graph.number(FAR), graph.op("Shape", score_NE))
    return graph.op("ScatterElements", far_NE, ids_NK, logs_NK, axis=1)


def _experts(graph: GraphWriter, weights: MoEWeights, tokens_ND: str, logs_NE: str) -> str:
    widen_EHD = weights.widen_EDH.transpose(0, 2, 1)
    narrow_EDH = weights.narrow_EHD.transpose(0, 2, 1)
    same = {
        "domain": ONNX_RUNTIME,
        "k": weights.cap,
        "activation_type": "gelu",
        "normalize_routing_weights": 0,
    }
    if not graph.quantised:
        parts = [graph.constant(widen_EHD), "", graph.constant(narrow_EDH)]
        return graph.op("MoE", tokens_ND, logs_NE, *parts, **same)
    widen, narrow = _in_bytes(graph, widen_EHD), _in_bytes(graph, narrow_EDH)
    return graph.op("QMoE", tokens_ND, logs_NE, *widen, "", *narrow, expert_weight_bits=8, **same)


def _in_bytes(graph: GraphWriter, weight_EXY: Floats) -> list[str]:
    """Names of the bytes (128 is zero) and of the scale of each output."""
    scale_EX = np.maximum(np.abs(weight_EXY).max(axis=2) / 127, 1e-12).astype(np.float32)
    bytes_EXY = (np.rint(weight_EXY / scale_EX[:, :, None]) + 128).astype(np.uint8)
    return [graph.constant(bytes_EXY), graph.constant(scale_EX)]


def _shared(graph: GraphWriter, x: str, widen_HD: Floats, narrow_DH: Floats) -> str:
    wide = graph.op("MatMul", x, graph.constant(widen_HD.T.copy()))
    bent = graph.op("Gelu", wide, approximate="tanh")
    return graph.op("MatMul", bent, graph.constant(narrow_DH.T.copy()))


# The five rules of `router.py`; each returns margin_NK and gate_NK, not yet normalised.


def _top_k(graph: GraphWriter, weights: MoEWeights, found: _Candidates) -> tuple[str, str]:
    margin_K = (weights.top_k - 0.5 - np.arange(weights.cap)).astype(np.float32)
    return graph.constant(margin_K[None]), _exponential(graph, found.plain_NK)


def _top_p(graph: GraphWriter, weights: MoEWeights, found: _Candidates) -> tuple[str, str]:
    axes = _ints(graph, [1])
    lse_N1 = graph.op("ReduceLogSumExp", found.biased_NE, axes, keepdims=1)
    prob_NK = graph.op("Exp", graph.op("Sub", found.top_NK, lse_N1))
    ahead_NK = graph.op("CumSum", prob_NK, _axis(graph), exclusive=1)
    threshold = graph.number(weights.threshold)
    return graph.op("Sub", threshold, ahead_NK), _exponential(graph, found.plain_NK)


def _relu(graph: GraphWriter, weights: MoEWeights, found: _Candidates) -> tuple[str, str]:
    margin_NK = graph.op("Sub", found.top_NK, graph.number(weights.threshold))
    return margin_NK, graph.op("Max", margin_NK, graph.number(0.0))


def _sigmoid(graph: GraphWriter, weights: MoEWeights, found: _Candidates) -> tuple[str, str]:
    score_NK = graph.op("Sigmoid", found.top_NK)
    margin_NK = graph.op("Sub", score_NK, graph.number(weights.threshold))
    return margin_NK, graph.op("Sigmoid", found.plain_NK)


def _sparsemax(graph: GraphWriter, weights: MoEWeights, found: _Candidates) -> tuple[str, str]:
    rank_K = graph.constant(np.arange(1, weights.cap + 1, dtype=np.float32))
    sum_NK = graph.op("CumSum", found.top_NK, _axis(graph))
    over_NK = graph.op("Sub", sum_NK, graph.number(weights.threshold))
    edge_N1 = graph.op("ReduceMax", graph.op("Div", over_NK, rank_K), _ints(graph, [1]), keepdims=1)
    margin_NK = graph.op("Sub", found.top_NK, edge_N1)
    return margin_NK, margin_NK


_RULES = {
    "top_k": _top_k,
    "top_p": _top_p,
    "relu": _relu,
    "sigmoid": _sigmoid,
    "sparsemax": _sparsemax,
}


def _exponential(graph: GraphWriter, plain_NK: str) -> str:
    """exp, over the greatest: the operator's softmax divides by the sum of the chosen."""
    best_N1 = graph.op("ReduceMax", plain_NK, _ints(graph, [1]), keepdims=1)
    return graph.op("Exp", graph.op("Sub", plain_NK, best_N1))


def _ints(graph: GraphWriter, numbers: list[int]) -> str:
    return graph.constant(np.asarray(numbers, dtype=np.int64))


def _axis(graph: GraphWriter) -> str:
    return graph.constant(np.asarray(1, dtype=np.int64))
