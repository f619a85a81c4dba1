"""How much of a hub an item is, told in its vector.

B batch, K centres, M embedding width.
"""

from __future__ import annotations

from onnx import TensorProto, helper

from triptych.encoders.hubness import MOST_TOLD, Hubness
from triptych.model import JointModel
from triptych.training.export.graph import Graph
from triptych.training.export.parts import ints, numbers


def told_text(graph: Graph, vectors_BM: str, model: JointModel) -> str:
    """Unit rows of texts, with what they tell where the model has them tell it."""
    return _told(graph, vectors_BM, model.hubness, is_text=True)


def told_picture(graph: Graph, vectors_BM: str, model: JointModel) -> str:
    """Unit rows of pictures, likewise."""
    return _told(graph, vectors_BM, model.hubness, is_text=False)


def _told(graph: Graph, vectors_BM: str, hubness: Hubness | None, *, is_text: bool) -> str:
    if hubness is None:
        return vectors_BM
    config, bank = hubness.config, hubness.pictures if is_text else hubness.texts
    near_BK = graph.linear(
        vectors_BM,
        weight_NK=config.sharpness * numbers(bank.centres_KM),
        bias_N=numbers(bank.log_shares_K),
    )
    softest_B1 = graph.op("ReduceLogSumExp", near_BK, ints(graph, 1), keepdims=1)
    # the constant, less strength * (softest / sharpness - typical) / constant
    slope = config.strength / config.constant
    start = graph.number(config.constant + slope * bank.typical.item())
    lost_B1 = graph.op("Mul", softest_B1, graph.number(slope / config.sharpness))
    most = min(config.constant + slope * config.floor, MOST_TOLD)
    limits = graph.number(-MOST_TOLD), graph.number(most)
    told_B1 = graph.op("Clip", graph.op("Sub", start, lost_B1), *limits)
    value = helper.make_tensor("constant", TensorProto.FLOAT, [1], [config.constant])
    constant_B1 = graph.op("ConstantOfShape", graph.op("Shape", told_B1), value=value)
    two = (constant_B1, told_B1) if is_text else (told_B1, constant_B1)
    room_B1 = graph.op(
        "Sqrt",
        graph.op("Sub", graph.number(1 - config.constant**2), graph.op("Mul", told_B1, told_B1)),
    )
    dim = bank.centres_KM.shape[1]
    shorter = graph.op("Slice", vectors_BM, ints(graph, 0), ints(graph, dim - 2), ints(graph, 1))
    return graph.op("Concat", *two, graph.op("Mul", room_B1, graph.unit(shorter)), axis=1)
