"""Layers that several graphs are made of.

B batch, T tokens, Q tokens that ask, D model width, W inner width, P patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial, reduce

import numpy as np
from torch import Tensor, nn

from triptych.encoders.cross_modal.block import CrossAttention, FusionBlock
from triptych.encoders.cross_modal.entrance import Entrance
from triptych.encoders.cross_modal.spatial_mask import SpatialMask
from triptych.model import JointModel
from triptych.moe.serving import Floats, write_moe
from triptych.training.export.graph import Graph


def numbers(tensor: Tensor) -> Floats:
    return np.asarray(tensor.detach().float().cpu().numpy(), dtype=np.float32)


def ints(graph: Graph, *values: int) -> str:
    return graph.constant(np.asarray(values, dtype=np.int64))


def linear(graph: Graph, x: str, layer: nn.Linear) -> str:
    bias = None if layer.bias is None else numbers(layer.bias)
    return graph.linear(x, weight_NK=numbers(layer.weight), bias_N=bias)


def norm(graph: Graph, x: str, layer: nn.LayerNorm) -> str:
    weight, bias = numbers(layer.weight), numbers(layer.bias)
    return graph.norm(x, weight_D=weight, bias_D=bias, epsilon=layer.eps)


def heads(graph: Graph, x: str, *, num_heads: int, perm: list[int]) -> str:
    by_head = graph.op("Reshape", x, ints(graph, 0, 0, num_heads, -1))
    return graph.op("Transpose", by_head, perm=perm)


def attend(graph: Graph, parts: tuple[str, str, str], *, root: float, bias: str | None) -> str:
    """Mix what `parts` say: queries, keys (transposed) and values, by head."""
    query, key, value = parts
    scores = graph.op("Mul", graph.op("MatMul", query, key), graph.number(root))
    if bias is not None:
        scores = graph.op("Add", scores, bias)
    mixed = graph.op("MatMul", graph.op("Softmax", scores, axis=-1), value)
    side_by_side = graph.op("Transpose", mixed, perm=[0, 2, 1, 3])
    return graph.op("Reshape", side_by_side, ints(graph, 0, 0, -1))


def cross_attention(
    graph: Graph, ask: str, answer: str, layer: CrossAttention, *, bias_BQK: str | None = None
) -> str:
    """Attention from `ask` to `answer`, of which nothing is padding."""
    num = layer.num_heads
    parts = (
        heads(graph, linear(graph, ask, layer.query), num_heads=num, perm=[0, 2, 1, 3]),
        heads(graph, linear(graph, answer, layer.key), num_heads=num, perm=[0, 2, 3, 1]),
        heads(graph, linear(graph, answer, layer.value), num_heads=num, perm=[0, 2, 1, 3]),
    )
    bias = None if bias_BQK is None else graph.op("Unsqueeze", bias_BQK, ints(graph, 1))
    root = (layer.query.out_features / num) ** -0.5
    return linear(graph, attend(graph, parts, root=root, bias=bias), layer.out)


def fusion_block(
    graph: Graph, ask: str, answer: str, block: FusionBlock, *, bias_BQK: str | None = None
) -> str:
    mixed = cross_attention(
        graph,
        norm(graph, ask, block.norm_ask),
        norm(graph, answer, block.norm_answer),
        block.attention,
        bias_BQK=bias_BQK,
    )
    ask = graph.op("Add", ask, mixed)
    wide = graph.op("Gelu", linear(graph, norm(graph, ask, block.norm_out), block.widen))
    return graph.op("Add", ask, linear(graph, wide, block.narrow))


def entrance(graph: Graph, x: str, layer: Entrance) -> str:
    return linear(graph, norm(graph, x, layer.norm), layer.enter)


def mask_logarithm(graph: Graph, text: str, picture: str, mask: SpatialMask) -> str:
    """The logarithm of the soft mask, (B, T, P): what is added to scores of attention."""
    of_text, of_patch = linear(graph, text, mask.of_text), linear(graph, picture, mask.of_patch)
    root = graph.number(mask.of_text.out_features**-0.5)
    turned = graph.op("Transpose", of_patch, perm=[0, 2, 1])
    products = graph.op("MatMul", graph.op("Mul", of_text, root), turned)
    logits = graph.op("Sub", products, graph.number(mask.threshold.item()))
    # log sigmoid x = -softplus(-x)
    return graph.op("Neg", graph.op("Softplus", graph.op("Neg", logits)))


def all_true(graph: Graph, tokens: str) -> str:
    """A mask (B, T) for tokens of which nothing is padding."""
    shape = graph.op("Shape", tokens, start=0, end=2)
    zeros = graph.op("ConstantOfShape", shape)
    return graph.op("Equal", zeros, graph.number(0.0))


def through_experts(
    graph: Graph, tokens: str, model: JointModel, layer: nn.LayerNorm | None, *, mask: str
) -> tuple[str, str | None]:
    """Add what the experts make of the tokens; their load comes second, where there are any."""
    if model.moe is None or layer is None:
        return tokens, None
    made = write_moe(graph, model.moe.weights(), tokens=norm(graph, tokens, layer), mask=mask)
    return graph.op("Add", tokens, made.tokens), made.load


def with_load(
    graph: Graph, outputs: Mapping[str, tuple[str, list[str | int]]], loads: Sequence[str | None]
) -> dict[str, tuple[str, list[str | int]]]:
    """The outputs, and `load` where there are experts: how many tokens chose each."""
    there = [load for load in loads if load is not None]
    if not there:
        return dict(outputs)
    return {**outputs, "load": (reduce(partial(graph.op, "Add"), there), ["experts"])}


def experts_norm(model: JointModel, side: str) -> nn.LayerNorm | None:
    """The norm in front of the experts, of the side `text` or `picture`."""
    return None if model.moe is None else getattr(model, f"norm_{side}")
