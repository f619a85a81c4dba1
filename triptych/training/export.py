"""The towers as ONNX graphs, in float32 (for parity) and in eight bits (what ships).

B batch, T tokens, D model width, H heads, C channels, P places of the last map, M embedding width.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from torch import Tensor, nn

from triptych.encoders.mobilenet import IMAGE_SIZE, LAST_MAP, MobileNet, PictureTower, SameConv
from triptych.encoders.transformer import Attention, Block, TextTower
from triptych.training.graph import Graph

Range = tuple[float, float]
Floats = NDArray[np.float32]


def numbers(tensor: Tensor) -> Floats:
    return np.asarray(tensor.detach().float().numpy(), dtype=np.float32)


def text_model(tower: TextTower, *, quantised: bool) -> onnx.ModelProto:
    """ids_BT (0 is padding) to unit rows."""
    graph, core = Graph(quantised=quantised), tower.transformer
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])
    there_BT = graph.op(
        "Cast", graph.op("Greater", "ids", graph.constant(np.asarray(0))), to=TensorProto.FLOAT
    )
    length = graph.op("Shape", "ids", start=1, end=2)
    places = graph.op(
        "Slice",
        graph.constant(numbers(core.places.weight)),
        graph.constant(np.asarray([0])),
        length,
    )
    words = graph.embedding("ids", table_VD=numbers(core.words.weight))
    tokens = _norm(graph, graph.op("Add", words, places), core.norm)
    # far below any score, and finite: -inf - -inf would be NaN
    away_BT = graph.op("Mul", graph.op("Sub", there_BT, graph.number(1.0)), graph.number(1e9))
    away_B11T = graph.op("Unsqueeze", away_BT, graph.constant(np.asarray([1, 2])))
    for block in core.blocks:
        assert isinstance(block, Block)
        tokens = _block(graph, tokens, block, away_B11T)
    vectors = _linear(graph, _mean(graph, tokens, there_BT), tower.project)
    return graph.model(inputs=[ids], output=graph.unit(vectors), dim=tower.project.out_features)


def _mean(graph: Graph, tokens: str, there_BT: str) -> str:
    share_B1T = graph.op("Unsqueeze", there_BT, graph.constant(np.asarray([1])))
    total_BD = graph.op(
        "Squeeze", graph.op("MatMul", share_B1T, tokens), graph.constant(np.asarray([1]))
    )
    count_B1 = graph.op("ReduceSum", there_BT, graph.constant(np.asarray([1])), keepdims=1)
    return graph.op("Div", total_BD, count_B1)


def _linear(graph: Graph, x: str, layer: nn.Linear) -> str:
    return graph.linear(x, weight_NK=numbers(layer.weight), bias_N=numbers(layer.bias))


def _norm(graph: Graph, x: str, layer: nn.LayerNorm) -> str:
    return graph.norm(
        x, weight_D=numbers(layer.weight), bias_D=numbers(layer.bias), epsilon=layer.eps
    )


def _block(graph: Graph, tokens: str, block: Block, away_B11T: str) -> str:
    mixed = _attention(graph, tokens, block.attention, away_B11T)
    tokens = _norm(graph, graph.op("Add", tokens, mixed), block.norm_attention)
    wide = graph.op("Gelu", _linear(graph, tokens, block.widen))
    return _norm(graph, graph.op("Add", tokens, _linear(graph, wide, block.narrow)), block.norm_out)


def _attention(graph: Graph, tokens: str, layer: Attention, away_B11T: str) -> str:
    # one product for the three: their weights lie below each other
    weight = np.concatenate(
        [numbers(part.weight) for part in (layer.query, layer.key, layer.value)]
    )
    bias = np.concatenate([numbers(part.bias) for part in (layer.query, layer.key, layer.value)])
    three = graph.linear(tokens, weight_NK=weight, bias_N=bias)
    parts = graph.split("Split", three, outputs=3, axis=-1, num_outputs=3)
    by_head = graph.constant(np.asarray([0, 0, layer.num_heads, -1]))
    shaped = [graph.op("Reshape", part, by_head) for part in parts]
    query, value = (graph.op("Transpose", shaped[i], perm=[0, 2, 1, 3]) for i in (0, 2))
    key = graph.op("Transpose", shaped[1], perm=[0, 2, 3, 1])
    root = graph.number((layer.out.in_features / layer.num_heads) ** -0.5)
    scores = graph.op("Mul", graph.op("MatMul", query, key), root)
    share = graph.op("Softmax", graph.op("Add", scores, away_B11T), axis=-1)
    mixed = graph.op("Transpose", graph.op("MatMul", share, value), perm=[0, 2, 1, 3])
    flat = graph.op("Reshape", mixed, graph.constant(np.asarray([0, 0, -1])))
    return _linear(graph, flat, layer.out)


def picture_model(tower: PictureTower, *, ranges: Mapping[int, Range] | None) -> onnx.ModelProto:
    """bytes_BHW3 to unit rows; with `ranges` of the layers' outputs (-1: the picture) in bytes."""
    graph = Graph(quantised=ranges is not None)
    shape = ["batch", IMAGE_SIZE, IMAGE_SIZE, 3]
    pictures = helper.make_tensor_value_info("pictures", TensorProto.UINT8, shape)
    pixels = graph.op("Cast", "pictures", to=TensorProto.FLOAT)
    pixels = graph.op("Sub", graph.op("Mul", pixels, graph.number(1 / 127.5)), graph.number(1.0))
    pixels = graph.op("Transpose", pixels, perm=[0, 3, 1, 2])
    map_BCHW = _Trunk(graph, tower.trunk, ranges).run(pixels)
    vectors = _head(graph, map_BCHW, tower)
    return graph.model(
        inputs=[pictures], output=graph.unit(vectors), dim=tower.head.mean.out_features
    )


class _Trunk:
    """Writes the convolutions, with fixed scales where ranges are given."""

    def __init__(self, graph: Graph, trunk: MobileNet, ranges: Mapping[int, Range] | None) -> None:
        self.graph, self.trunk, self.ranges = graph, trunk, ranges
        self.scales: dict[int, float] = {}

    def run(self, pixels: str) -> str:
        outputs, size = {-1: self._fixed(pixels, -1)}, {-1: IMAGE_SIZE}
        for index, layer in enumerate(self.trunk.layers[: LAST_MAP + 1]):
            source = layer.inputs[0]
            if layer.op == "add":
                raw, size[index] = (
                    self.graph.op("Add", *(outputs[i] for i in layer.inputs)),
                    size[source],
                )
            else:
                conv = self.trunk.convs[layer.name.replace(".", "_")]
                assert isinstance(conv, SameConv)
                raw = self._conv(
                    outputs[source], conv, source=source, size=size[source], index=index
                )
                size[index] = -(-size[source] // layer.stride)
            outputs[index] = self._fixed(raw, index)
        return outputs[LAST_MAP]

    def _conv(self, x: str, conv: SameConv, *, source: int, size: int, index: int) -> str:
        weight, bias = numbers(conv.weight), numbers(conv.bias)
        steps = -(-size // conv.stride)
        total = max((steps - 1) * conv.stride + weight.shape[2] - size, 0)
        low, high = total // 2, total - total // 2
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
        return (
            y
            if not conv.relu or (self.ranges and index in self.ranges)
            else self.graph.op("Relu", y)
        )

    def _weights(self, weight: Floats, bias: Floats, *, source: int) -> list[str]:
        graph = self.graph
        if self.ranges is None or source not in self.scales:
            return [graph.constant(weight), graph.constant(bias)]
        scale = np.abs(weight).max(axis=(1, 2, 3)) / 127
        scale = np.maximum(scale, 1e-9).astype(np.float32)
        in_bytes = np.rint(weight / scale[:, None, None, None]).astype(np.int8)
        bias_scale = (scale * self.scales[source]).astype(np.float32)
        bias_int = np.rint(bias / bias_scale).clip(-(2**31) + 1, 2**31 - 1).astype(np.int32)
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
        low, high = min(self.ranges[index][0], 0.0), max(self.ranges[index][1], 0.0)
        scale = np.float32(max(high - low, 1e-6) / 255)
        self.scales[index] = float(scale)
        zero = np.asarray(round(-low / float(scale)), dtype=np.uint8)
        step, point = self.graph.constant(np.asarray(scale)), self.graph.constant(zero)
        return self.graph.op(
            "DequantizeLinear", self.graph.op("QuantizeLinear", x, step, point), step, point
        )


def _head(graph: Graph, map_BCHW: str, tower: PictureTower) -> str:
    head = tower.head
    heads, channels, _ = head.heads_HCM.shape
    flat_BCP = graph.op("Reshape", map_BCHW, graph.constant(np.asarray([0, channels, -1])))
    scaled_BCP = graph.op("Mul", flat_BCP, graph.number(float(head.scale)))
    vectors = _linear(
        graph,
        graph.op("ReduceMean", scaled_BCP, graph.constant(np.asarray([2])), keepdims=0),
        head.mean,
    )
    if head.attend:
        look_HC, bias_H1 = numbers(head.look.weight), numbers(head.look.bias)[:, None]
        scores_BHP = graph.op(
            "Add", graph.op("MatMul", graph.constant(look_HC), scaled_BCP), graph.constant(bias_H1)
        )
        share_BHP = graph.op("Softmax", scores_BHP, axis=-1)
        pooled_BHC = graph.op(
            "MatMul", share_BHP, graph.op("Transpose", scaled_BCP, perm=[0, 2, 1])
        )
        parts = graph.split("Split", pooled_BHC, outputs=heads, axis=1, num_outputs=heads)
        squeezed = [graph.op("Squeeze", part, graph.constant(np.asarray([1]))) for part in parts]
        weights = numbers(head.heads_HCM)
        seen = [
            graph.linear(part, weight_NK=weights[i].T.copy()) for i, part in enumerate(squeezed)
        ]
        vectors = graph.op("Add", vectors, graph.op("Concat", *seen, axis=1))
    bent = _linear(graph, graph.op("Gelu", _linear(graph, vectors, head.widen)), head.narrow)
    return graph.op("Add", vectors, bent)


def measured_ranges(trunk: MobileNet, batches: list[Tensor]) -> dict[int, Range]:
    """For every output the range whose 256 steps give the least error on training pictures."""
    samples: dict[int, list[Tensor]] = {}
    with torch.inference_mode():
        for pixels in batches:
            for index, output in enumerate(trunk.outputs(pixels)):
                flat = output.flatten()
                samples.setdefault(index, []).append(flat[:: max(len(flat) // 60_000, 1)])
    found = {index: _best_range(torch.cat(parts)) for index, parts in samples.items()}
    return {-1: (-1.0, 1.0), **found}


def _best_range(sample: Tensor) -> Range:
    low, high = float(sample.min()), float(sample.max())
    # cutting more than a fifth off the tails cost far more than finer steps gained, on every layer
    parts = [1.0, 0.95, 0.9, 0.85, 0.8, 0.7]
    errors = [
        float((_rounded(sample, low * part, high * part) - sample).square().mean())
        for part in parts
    ]
    best = parts[errors.index(min(errors))]
    return low * best, high * best


def _rounded(sample: Tensor, low: float, high: float) -> Tensor:
    step = max(high - low, 1e-6) / 255
    return ((sample - low) / step).round().clamp(0, 255) * step + low
