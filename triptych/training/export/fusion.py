"""What looks at both sides: the fusion of an item's text and picture, and the scorer of pairs.

B batch, T tokens, P patches, C channels, D model width, W inner width, M embedding width. Texts
of one length stand together, so nothing is padding.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from triptych.encoders.cross_modal.fusion import CrossModal
from triptych.encoders.cross_modal.layers import BottleneckLayer
from triptych.model import JointModel
from triptych.training.export.graph import Graph
from triptych.training.export.parts import (
    all_true,
    entrance,
    experts_norm,
    fusion_block,
    ints,
    linear,
    mask_logarithm,
    norm,
    numbers,
    through_experts,
    with_load,
)
from triptych.training.export.picture import picture_vector
from triptych.training.export.text import text_vector


def both_model(model: JointModel, *, quantised: bool) -> onnx.ModelProto:
    """Return text (B, T, D) and picture (B, P, C), as the towers read them, to `vectors`."""
    assert model.fusion is not None
    graph, config = Graph(quantised=quantised), model.config
    patches = linear(graph, "picture", model.head.mean)
    text, picture = _fused(graph, "text", patches, model.fusion)
    true_BT, true_BP = all_true(graph, text), all_true(graph, picture)
    norms = experts_norm(model, "text"), experts_norm(model, "picture")
    text, of_text = through_experts(graph, text, model, norms[0], mask=true_BT)
    picture, of_picture = through_experts(graph, picture, model, norms[1], mask=true_BP)
    there_BT = graph.op("Cast", true_BT, to=TensorProto.FLOAT)
    sides = (
        text_vector(graph, text, model, there_BT=there_BT),
        picture_vector(graph, "picture", picture, model),
    )
    vectors = graph.unit(graph.op("Add", *sides))
    inputs = [
        helper.make_tensor_value_info("text", TensorProto.FLOAT, ["batch", "tokens", config.width]),
        helper.make_tensor_value_info(
            "picture", TensorProto.FLOAT, ["batch", "patches", config.channels]
        ),
    ]
    outputs: dict[str, tuple[str, list[str | int]]] = {"vectors": (vectors, ["batch", config.dim])}
    return graph.model(inputs=inputs, outputs=with_load(graph, outputs, [of_text, of_picture]))


def _fused(graph: Graph, text: str, picture: str, fusion: CrossModal) -> tuple[str, str]:
    inner_text = entrance(graph, text, fusion.enter_text)
    inner_picture = entrance(graph, picture, fusion.enter_picture)
    log_mask = (
        None
        if fusion.spatial is None
        else mask_logarithm(graph, inner_text, inner_picture, fusion.spatial)
    )
    for layer in fusion.layers:
        assert isinstance(layer, BottleneckLayer), "only the bottleneck is served"
        inner_text, inner_picture = _bottleneck(graph, inner_text, inner_picture, layer, log_mask)
    leave_text, leave_picture = fusion.leave_text, fusion.leave_picture
    gained_text = linear(graph, norm(graph, inner_text, leave_text.norm), leave_text.leave)
    gained = linear(graph, norm(graph, inner_picture, leave_picture.norm), leave_picture.leave)
    return graph.op("Add", text, gained_text), graph.op("Add", picture, gained)


def _bottleneck(
    graph: Graph, text: str, picture: str, layer: BottleneckLayer, log_mask: str | None
) -> tuple[str, str]:
    everything = graph.op("Concat", text, picture, axis=1)
    bias = None if log_mask is None else _marginal(graph, log_mask)
    batch = graph.op("Shape", text, start=0, end=1)
    shape = graph.op("Concat", batch, ints(graph, *layer.latents_LW.shape), axis=0)
    latents = graph.op("Expand", graph.constant(numbers(layer.latents_LW)), shape)
    latents = fusion_block(graph, latents, everything, layer.gather, bias_BQK=bias)
    return (
        fusion_block(graph, text, latents, layer.to_text),
        fusion_block(graph, picture, latents, layer.to_picture),
    )


def _marginal(graph: Graph, log_mask: str) -> str:
    """(B, 1, T + P): the logarithm of a token's mask, averaged over the other side."""
    parts = []
    for axis in (2, 1):
        total = graph.op("ReduceLogSumExp", log_mask, ints(graph, axis), keepdims=0)
        count = graph.op("Shape", log_mask, start=axis, end=axis + 1)
        log_count = graph.op("Log", graph.op("Cast", count, to=TensorProto.FLOAT))
        lowest = graph.op("Max", total, graph.number(-30.0))
        parts.append(graph.op("Sub", lowest, log_count))
    return graph.op("Unsqueeze", graph.op("Concat", *parts, axis=1), ints(graph, 1))


def pair_model(model: JointModel) -> onnx.ModelProto:
    """Return states of pairs, of a text (1, T, W) and of pictures (B, P, W), to `scores` (B)."""
    matcher, graph = model.scorer, Graph(quantised=False)  # it is a few hundred numbers
    assert matcher is not None
    patches_BWP = graph.op("Transpose", "picture", perm=[0, 2, 1])
    best_BT = graph.op(
        "ReduceMax", graph.op("MatMul", "text", patches_BWP), ints(graph, 2), keepdims=0
    )
    logits_BT = graph.op("Squeeze", linear(graph, "text", matcher.weigh), ints(graph, 2))
    weighed_BT = graph.op("Mul", best_BT, graph.op("Softmax", logits_BT, axis=-1))
    total_B = graph.op("ReduceSum", weighed_BT, ints(graph, 1), keepdims=0)
    scores_B = graph.op("Mul", total_B, graph.number(matcher.log_scale.exp().item()))
    inputs = [
        helper.make_tensor_value_info(
            name, TensorProto.FLOAT, [f"{name}s", length, matcher.config.width]
        )
        for name, length in (("text", "tokens"), ("picture", "patches"))
    ]
    return graph.model(inputs=inputs, outputs={"scores": (scores_B, ["pictures"])})
