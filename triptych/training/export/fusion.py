"""What looks at both sides: the fusion of an item's text and picture, and the scorer of pairs.

B batch, T tokens, P patches, C channels, D model width, W inner width, M embedding width. Texts
of one length stand together, so nothing is padding.
"""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from triptych.encoders.cross_modal import CrossModal
from triptych.encoders.fusion_layers import BottleneckLayer
from triptych.encoders.pair_scorer import PairScorer
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
    text = through_experts(graph, text, model, experts_norm(model, "text"), mask=true_BT)
    picture = through_experts(graph, picture, model, experts_norm(model, "picture"), mask=true_BP)
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
    return graph.model(inputs=inputs, outputs={"vectors": (vectors, ["batch", config.dim])})


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


def pair_model(model: JointModel, *, quantised: bool) -> onnx.ModelProto:
    """Return the states of pairs, text (B or 1, T, D) and picture (B, P, D), to `scores` (B)."""
    scorer, graph, width = model.scorer, Graph(quantised=quantised), model.config.width
    assert scorer is not None
    text = entrance(graph, "text", scorer.enter_text)
    picture = entrance(graph, "picture", scorer.enter_picture)
    aligned_B = _alignment(graph, text, picture, scorer)
    there = back = None
    if scorer.spatial is not None:
        there = mask_logarithm(graph, text, picture, scorer.spatial)
        back = graph.op("Transpose", there, perm=[0, 2, 1])
    seen_text = fusion_block(graph, text, picture, scorer.layer.to_text, bias_BQK=there)
    seen_picture = fusion_block(graph, picture, text, scorer.layer.to_picture, bias_BQK=back)
    means = [
        graph.op("ReduceMean", norm(graph, seen, layer), ints(graph, 1), keepdims=0)
        for seen, layer in (
            (seen_text, scorer.norm_text),
            (seen_picture, scorer.norm_picture),
        )
    ]
    seen = graph.op("Concat", *means, graph.op("Mul", *means), axis=1)
    said_B1 = linear(graph, graph.op("Gelu", linear(graph, seen, scorer.widen)), scorer.judge)
    scores_B = graph.op("Add", aligned_B, graph.op("Squeeze", said_B1, ints(graph, 1)))
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [f"{name}s", length, width])
        for name, length in (("text", "tokens"), ("picture", "patches"))
    ]
    return graph.model(inputs=inputs, outputs={"scores": (scores_B, ["pictures"])})


def _alignment(graph: Graph, text: str, picture: str, scorer: PairScorer) -> str:
    patches_BWP = graph.op("Transpose", graph.unit(picture), perm=[0, 2, 1])
    cosines_BTP = graph.op("MatMul", graph.unit(text), patches_BWP)
    best_BT = graph.op("ReduceMax", cosines_BTP, ints(graph, 2), keepdims=0)
    logits_BT = graph.op("Squeeze", linear(graph, text, scorer.weigh), ints(graph, 2))
    weighed_BT = graph.op("Mul", best_BT, graph.op("Softmax", logits_BT, axis=-1))
    total_B = graph.op("ReduceSum", weighed_BT, ints(graph, 1), keepdims=0)
    return graph.op("Mul", total_B, graph.number(scorer.log_scale.exp().item()))
