"""The text side: ids to a unit vector, and the states of its tokens.

B batch, T tokens, D model width, M embedding width.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from triptych.encoders.towers.transformer import Attention, Block, Transformer
from triptych.model import JointModel
from triptych.training.export.graph import Graph
from triptych.training.export.hubness import told_text
from triptych.training.export.parts import (
    attend,
    entrance,
    experts_norm,
    heads,
    ints,
    linear,
    norm,
    numbers,
    through_experts,
    with_load,
)


def text_model(model: JointModel, *, quantised: bool) -> onnx.ModelProto:
    """Return ids_BT (0 is padding) to `vectors`, `states` (for pairs) and `read` (for fusion)."""
    graph, tower = Graph(quantised=quantised), model.text
    assert isinstance(tower, Transformer)
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])
    mask_BT = graph.op("Greater", "ids", graph.constant(np.asarray(0)))
    there_BT = graph.op("Cast", mask_BT, to=TensorProto.FLOAT)
    read = _tower(graph, tower, there_BT)
    states, load = through_experts(graph, read, model, experts_norm(model, "text"), mask=mask_BT)
    vectors = text_vector(graph, states, model, there_BT=there_BT)
    wide: list[str | int] = ["batch", "tokens", model.config.width]
    outputs: dict[str, tuple[str, list[str | int]]] = {
        "vectors": (vectors, ["batch", model.config.dim]),
        "read": (read, wide),
    }
    if model.scorer is not None:
        entered = graph.unit(entrance(graph, read, model.scorer.enter_text))
        outputs["states"] = (entered, [*wide[:2], model.scorer.config.width])
    return graph.model(inputs=[ids], outputs=with_load(graph, outputs, [load]))


def text_vector(graph: Graph, states: str, model: JointModel, *, there_BT: str) -> str:
    """Unit rows of the mean state of what is there."""
    share_B1T = graph.op("Unsqueeze", there_BT, ints(graph, 1))
    total_BD = graph.op("Squeeze", graph.op("MatMul", share_B1T, states), ints(graph, 1))
    count_B1 = graph.op("ReduceSum", there_BT, ints(graph, 1), keepdims=1)
    mean_BD = graph.op("Div", total_BD, count_B1)
    return told_text(graph, graph.unit(linear(graph, mean_BD, model.leave_text)), model)


def _tower(graph: Graph, tower: Transformer, there_BT: str) -> str:
    length = graph.op("Shape", "ids", start=1, end=2)
    places_TD = graph.table(numbers(tower.places.weight))
    places = graph.op("Slice", places_TD, ints(graph, 0), length)
    words = graph.embedding("ids", table_VD=numbers(tower.words.weight))
    tokens = norm(graph, graph.op("Add", words, places), tower.norm)
    # far below any score, and finite: -inf - -inf would be NaN
    away_BT = graph.op("Mul", graph.op("Sub", there_BT, graph.number(1.0)), graph.number(1e9))
    away_B11T = graph.op("Unsqueeze", away_BT, ints(graph, 1, 2))
    for block in tower.blocks:
        assert isinstance(block, Block)
        tokens = _block(graph, tokens, block, away_B11T)
    return tokens


def _block(graph: Graph, tokens: str, block: Block, away_B11T: str) -> str:
    mixed = _attention(graph, tokens, block.attention, away_B11T)
    tokens = norm(graph, graph.op("Add", tokens, mixed), block.norm_attention)
    wide = graph.op("Gelu", linear(graph, tokens, block.widen))
    return norm(graph, graph.op("Add", tokens, linear(graph, wide, block.narrow)), block.norm_out)


def _attention(graph: Graph, tokens: str, layer: Attention, away_B11T: str) -> str:
    # one product for the three: their weights lie below each other
    three_layers = (layer.query, layer.key, layer.value)
    weight = np.concatenate([numbers(part.weight) for part in three_layers])
    bias = np.concatenate([numbers(part.bias) for part in three_layers])
    three = graph.linear(tokens, weight_NK=weight, bias_N=bias)
    query, key, value = graph.split("Split", three, outputs=3, axis=-1, num_outputs=3)
    num = layer.num_heads
    parts = (
        heads(graph, query, num_heads=num, perm=[0, 2, 1, 3]),
        heads(graph, key, num_heads=num, perm=[0, 2, 3, 1]),
        heads(graph, value, num_heads=num, perm=[0, 2, 1, 3]),
    )
    root = (layer.out.in_features / num) ** -0.5
    return linear(graph, attend(graph, parts, root=root, bias=away_B11T), layer.out)
