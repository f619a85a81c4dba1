"""The picture side: bytes to a unit vector, and the states of its patches.

B batch, C channels, H W rows and columns of a map, P patches, M embedding width.
"""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from triptych.encoders.towers.mobilenet import (
    IMAGE_SIZE,
    LAST_MAP,
    MobileNet,
    PictureHead,
)
from triptych.model import JointModel
from triptych.moe.serving import Floats
from triptych.training.export.graph import Graph
from triptych.training.export.hubness import told_picture
from triptych.training.export.parts import (
    all_true,
    entrance,
    experts_norm,
    ints,
    linear,
    numbers,
    through_experts,
    with_load,
)
from triptych.training.export.rounding import PICTURE, Rounding

STEP = np.float32(1 / 127.5)  # of a byte: 0 to 255 are -1 to 1
_ZERO = np.uint8(128)  # the byte that counts as 0, half a step above what really is


def picture_model(model: JointModel, *, rounding: Rounding | None) -> onnx.ModelProto:
    """Return bytes_BHW3 to `vectors`, `states` (for pairs), and what others go on from.

    That is `read` (for fusion), and with `patches` what places tell (`places_model`).

    With a `rounding` the convolutions compute in eight bits.
    """
    graph, trunk = Graph(quantised=rounding is not None), model.picture
    assert isinstance(trunk, MobileNet)
    shape = ["batch", IMAGE_SIZE, IMAGE_SIZE, 3]
    pictures = helper.make_tensor_value_info("pictures", TensorProto.UINT8, shape)
    bytes_BCHW = graph.op("Transpose", "pictures", perm=[0, 3, 1, 2])
    map_BCHW = _Trunk(graph, trunk, rounding).run(bytes_BCHW)
    flat_BCP = graph.op("Reshape", map_BCHW, ints(graph, 0, model.config.channels, -1))
    turned_BPC = graph.op("Transpose", flat_BCP, perm=[0, 2, 1])
    read = graph.op("Mul", turned_BPC, graph.number(model.head.scale.item()))
    patches = linear(graph, read, model.head.mean)
    mask_BP = all_true(graph, patches)
    norm = experts_norm(model, "picture")
    states, load = through_experts(graph, patches, model, norm, mask=mask_BP)
    outputs: dict[str, tuple[str, list[str | int]]] = {
        "vectors": (picture_vector(graph, read, states, model), ["batch", model.config.dim]),
        "patches": (states, ["batch", "patches", model.config.width]),
        "read": (read, ["batch", "patches", model.config.channels]),
    }
    if model.scorer is not None:
        entered = graph.unit(entrance(graph, read, model.scorer.enter_picture))
        outputs["states"] = (entered, ["batch", "patches", model.scorer.config.width])
    return graph.model(inputs=[pictures], outputs=with_load(graph, outputs, [load]))


def places_model(model: JointModel, *, quantised: bool) -> onnx.ModelProto:
    """Return some of the places that a picture was read as, and their patches, to `vectors`."""
    graph, config = Graph(quantised=quantised), model.config
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["pictures", "places", width])
        for name, width in (("read", config.channels), ("patches", config.width))
    ]
    vectors = picture_vector(graph, "read", "patches", model)
    return graph.model(inputs=inputs, outputs={"vectors": (vectors, ["pictures", config.dim])})


def picture_vector(graph: Graph, read: str, states: str, model: JointModel) -> str:
    """Unit rows of the mean patch and of what the heads look at."""
    head = model.head
    vectors = graph.op("ReduceMean", states, ints(graph, 1), keepdims=0)
    if head.attend:
        vectors = graph.op("Add", vectors, _seen(graph, read, head))
    bent = linear(graph, graph.op("Gelu", linear(graph, vectors, head.widen)), head.narrow)
    whole = linear(graph, graph.op("Add", vectors, bent), model.leave_picture)
    return told_picture(graph, graph.unit(whole), model)


def _seen(graph: Graph, read: str, head: PictureHead) -> str:
    num_heads = len(head.heads_HCM)
    look_CH = graph.constant(numbers(head.look.weight).T.copy())
    scores_BPH = graph.op(
        "Add", graph.op("MatMul", read, look_CH), graph.constant(numbers(head.look.bias))
    )
    share_BHP = graph.op("Softmax", graph.op("Transpose", scores_BPH, perm=[0, 2, 1]), axis=-1)
    pooled_BHC = graph.op("MatMul", share_BHP, read)
    parts = graph.split("Split", pooled_BHC, outputs=num_heads, axis=1, num_outputs=num_heads)
    weights = numbers(head.heads_HCM)
    seen = [
        graph.linear(graph.op("Squeeze", part, ints(graph, 1)), weight_NK=weights[at].T.copy())
        for at, part in enumerate(parts)
    ]
    return graph.op("Concat", *seen, axis=1)


class _Trunk:
    """Writes the convolutions, with fixed scales where ranges are given."""

    def __init__(self, graph: Graph, trunk: MobileNet, rounding: Rounding | None) -> None:
        self.graph, self.trunk = graph, trunk
        self.ranges = None if rounding is None else rounding.ranges
        self.biases = {} if rounding is None else rounding.biases
        self.scales: dict[int, float] = {}

    def run(self, bytes_BCHW: str) -> str:
        outputs, size = {PICTURE: self._pixels(bytes_BCHW)}, {PICTURE: IMAGE_SIZE}
        for index, layer in enumerate(self.trunk.layers[: LAST_MAP + 1]):
            source = layer.inputs[0]
            if layer.op == "add":
                raw = self.graph.op("Add", *(outputs[i] for i in layer.inputs))
                size[index] = size[source]
            else:
                raw = self._conv(outputs[source], size=size[source], index=index)
                size[index] = -(-size[source] // layer.stride)
            outputs[index] = self._fixed(raw, index)
        return outputs[LAST_MAP]

    def _pixels(self, bytes_BCHW: str) -> str:
        """What the first convolution reads: in eight bits the bytes themselves, never floats."""
        if self.ranges is None:
            floats = self.graph.op("Cast", bytes_BCHW, to=TensorProto.FLOAT)
            scaled = self.graph.op("Mul", floats, self.graph.number(float(STEP)))
            return self.graph.op("Sub", scaled, self.graph.number(1.0))
        self.scales[PICTURE] = float(STEP)
        step, zero = self.graph.constant(np.asarray(STEP)), self.graph.constant(np.asarray(_ZERO))
        return self.graph.op("DequantizeLinear", bytes_BCHW, step, zero)

    def _conv(self, x: str, *, size: int, index: int) -> str:
        layer = self.trunk.layers[index]
        conv, source = self.trunk.conv(layer), layer.inputs[0]
        weight, bias = numbers(conv.weight), numbers(self.biases.get(layer.name, conv.bias))
        low, high = conv.padding(size, weight.shape[2])
        names = self._weights(weight, bias, source=source)
        y = self.graph.op(
            "Conv",
            x,
            *names,
            pads=[low, low, high, high],
            strides=[conv.stride] * 2,
            group=conv.groups,
        )
        # eight bits that begin at zero are a relu by themselves
        in_bytes = self.ranges is not None and index in self.ranges
        return self.graph.op("Relu", y) if conv.relu and not in_bytes else y

    def _weights(self, weight: Floats, bias: Floats, *, source: int) -> list[str]:
        graph = self.graph
        if self.ranges is None or source not in self.scales:
            return [graph.constant(weight), graph.constant(bias)]
        if source == PICTURE:
            bias = bias + weight.sum(axis=(1, 2, 3)) * STEP / 2
        scale = np.abs(weight).max(axis=(1, 2, 3)) / 127
        # of a channel whose weights are all zero the bias must fit its 32 bits, too
        least = np.abs(bias) / (self.scales[source] * 2**30) + 1e-9
        scale = np.maximum(scale, least).astype(np.float32)
        in_bytes = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
        bias_scale = (scale * self.scales[source]).astype(np.float32)
        bias_int = np.rint(bias / bias_scale).astype(np.int32)
        return [
            self._back(in_bytes, scale, zero=np.zeros(len(scale), np.int8)),
            self._back(bias_int, bias_scale, zero=np.zeros(len(scale), np.int32)),
        ]

    def _back(self, array: NDArray[np.integer], scale: Floats, *, zero: NDArray[np.integer]) -> str:
        constants = (self.graph.constant(part) for part in (array, scale, zero))
        return self.graph.op("DequantizeLinear", *constants, axis=0)

    def _fixed(self, x: str, index: int) -> str:
        """Round to 256 steps of a range that was fixed at export."""
        if self.ranges is None or index not in self.ranges:
            return x
        low, high = self.ranges[index]
        scale = np.float32(max(high - low, 1e-6) / 255)
        self.scales[index] = float(scale)
        zero = np.asarray(round(-low / float(scale)), dtype=np.uint8)
        step, point = self.graph.constant(np.asarray(scale)), self.graph.constant(zero)
        return self.graph.op(
            "DequantizeLinear", self.graph.op("QuantizeLinear", x, step, point), step, point
        )
