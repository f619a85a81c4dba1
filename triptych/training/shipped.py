"""The shipped model in torch, to go on from: its graphs are read as they were written.

The exporter gives its layers in one order; what they weigh is taken from the graphs in the same
order, eight bits multiplied out. Not there, as no graph needs it: the temperature of the loss.

E experts, D model width, H hidden width, N outputs, K inputs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from triptych.encoders.cross_modal.block import FusionBlock
from triptych.encoders.cross_modal.entrance import Entrance
from triptych.encoders.cross_modal.fusion import CrossModal
from triptych.encoders.cross_modal.layers import BottleneckLayer
from triptych.encoders.towers.mobilenet import (
    LAST_MAP,
    Layer,
    MobileNet,
    PictureHead,
    SameConv,
)
from triptych.encoders.towers.transformer import Block, Transformer, TransformerConfig
from triptych.errors import InvalidInput
from triptych.model import JointModel
from triptych.moe.layer import MoE
from triptych.moe.serving import Floats
from triptych.training.export.nibbles import of_nibbles
from triptych.training.export.picture import STEP


class _Linear(NamedTuple):
    weight_NK: Floats
    bias_N: Floats | None


class _Graph:
    """What one graph holds, by kind and in order."""

    def __init__(self, path: Path) -> None:
        graph = onnx.load(path).graph
        self._stored = {tensor.name: tensor for tensor in graph.initializer}
        self._made = {name: node for node in graph.node for name in node.output}
        self.users = {name: node for node in graph.node for name in node.input}
        self.nodes = list(graph.node)
        self.linears = self._linears()
        self.norms = (
            (self.value(node.input[1]), self.value(node.input[2]))
            for node in self.of_kind("LayerNormalization")
        )

    def convolutions(self) -> Iterator[tuple[Floats, Floats]]:
        """Yield the weight and the bias of each."""
        for at, node in enumerate(self.of_kind("Conv")):
            weight, bias = self.value(node.input[1]), self.value(node.input[2])
            if at == 0 and self._reads_bytes(node.input[0]):
                bias = bias - weight.sum(axis=(1, 2, 3)) * STEP / 2  # as they begin half a step off
            yield weight, bias

    def _reads_bytes(self, name: str) -> bool:
        node = self._made[name]
        bytes_ = node.op_type == "DequantizeLinear"
        return bytes_ and bool(self._made[node.input[0]].op_type != "QuantizeLinear")

    @property
    def tells_hubs(self) -> bool:
        """Whether its vectors tell how much of a hub they are: nothing else is clipped."""
        return any(self.of_kind("Clip"))

    def value(self, name: str) -> Floats:
        """Return a weight as floats; raises KeyError for what depends on the graph's inputs."""
        if name in self._stored:
            return np.asarray(numpy_helper.to_array(self._stored[name]), dtype=np.float32)
        node = self._made[name]
        if node.op_type == "Cast":
            return self.value(node.input[0])
        if node.op_type == "Mul":
            return self.value(node.input[0]) * self.value(node.input[1])
        if node.op_type == "DequantizeLinear":
            whole, scale, zero = map(self.value, node.input)
            shape = (-1, *[1] * (whole.ndim - 1))
            return (whole - zero.reshape(shape)) * scale.reshape(shape)
        raise KeyError(name)

    def origin(self, name: str) -> str:
        """Return what was rounded to bytes and multiplied out again, or began at zero."""
        node = self._made.get(name)
        while node is not None and node.op_type in ("DequantizeLinear", "QuantizeLinear", "Relu"):
            name = node.input[0]
            node = self._made.get(name)
        return name

    def constants(self, kind: str) -> list[Floats]:
        """Return the stored inputs of all nodes of a kind."""
        return [
            self.value(name)
            for node in self.of_kind(kind)
            for name in node.input
            if name in self._stored
        ]

    def table(self) -> Floats:
        """Return what is gathered by the graph's input."""
        for node in self.of_kind("GatherBlockQuantized"):
            pairs_VP, _, scale_VB = (self._stored.get(name) for name in node.input)
            assert pairs_VP is not None and scale_VB is not None
            return of_nibbles(numpy_helper.to_array(pairs_VP), numpy_helper.to_array(scale_VB))
        (rows_VD,) = [
            self.value(node.input[0]) for node in self.of_kind("Gather") if node.input[1] == "ids"
        ]
        return rows_VD

    def experts(self) -> tuple[Floats, Floats]:
        """Return widen_EHD and narrow_EDH."""
        (node,) = self.of_kind("QMoE")
        bytes_and_scales = [self.value(name) for name in node.input[2:] if name]
        widen, of_widen, narrow, of_narrow = bytes_and_scales
        return (widen - 128) * of_widen[:, :, None], (narrow - 128) * of_narrow[:, :, None]

    def after(self, first: str, second: str) -> Floats:
        """Return the stored number by which a `second` goes on from a `first`, once in a graph."""
        found = {
            node.input[1]
            for node in self.of_kind(second)
            if node.input[1] in self._stored
            and node.input[0] in self._made
            and self._made[node.input[0]].op_type == first
        }
        (name,) = found
        return self.value(name)

    def of_kind(self, kind: str) -> Iterator[onnx.NodeProto]:
        return (node for node in self.nodes if node.op_type == kind)

    def _linears(self) -> Iterator[_Linear]:
        for node in self.of_kind("MatMul"):
            try:
                weight_KN = self.value(node.input[1])
            except KeyError:  # of two things that depend on the input
                continue
            after = self.users.get(node.output[0])
            biased = after is not None and after.op_type == "Add" and after.input[1] in self._stored
            bias_N = self.value(after.input[1]) if after is not None and biased else None
            yield _Linear(weight_KN.T, bias_N)


def picture_tower(folder: Path) -> MobileNet:
    """Return the shipped picture tower; its layers are named by their place."""
    graph = _Graph(folder / "image.onnx")
    layers: list[Layer] = []
    weights: dict[str, Tensor] = {}
    read = graph.convolutions()
    made: dict[str, int] = {}  # by whose output
    for node in graph.nodes:
        if node.op_type == "Conv":
            layer, name = _convolution(graph, node, source=made), f"{len(layers)}"
            weight, bias = next(read)
            weights |= {f"{name}.weight": torch.tensor(weight), f"{name}.bias": torch.tensor(bias)}
            layers.append(replace(layer, name=name))
        elif node.op_type == "Add" and len(layers) <= LAST_MAP:
            inputs = tuple(made[graph.origin(name)] for name in node.input)
            layers.append(Layer(op="add", inputs=inputs))
        else:
            continue
        made[node.output[0]] = len(layers) - 1
    return MobileNet(layers, weights=weights)


def _convolution(graph: _Graph, node: onnx.NodeProto, *, source: Mapping[str, int]) -> Layer:
    said = {one.name: helper.get_attribute_value(one) for one in node.attribute}
    after = graph.users[node.output[0]]
    # what is rounded to bytes that begin at zero is a relu by that
    in_bytes = after.op_type == "QuantizeLinear" and not graph.value(after.input[2])
    return Layer(
        op="conv",
        inputs=(source.get(graph.origin(node.input[0]), -1),),
        stride=said["strides"][0],
        groups=said["group"],
        relu=bool(in_bytes or after.op_type == "Relu"),
    )


def name_of(folder: Path) -> str:
    """Return the name of the model in `folder`."""
    return str(json.loads((folder / "model.json").read_text("utf-8"))["name"])


def words(folder: Path) -> Tensor:
    """Return words_VD, the table of the shipped text tower."""
    return torch.tensor(_Graph(folder / "text.onnx").table())


def text_tower(words_VD: Tensor) -> Transformer:
    """Return a tower of the shipped one's shape with these words; `fill` gives it all the rest."""
    tower = Transformer(TransformerConfig(vocabulary=len(words_VD)))
    tower.words.weight.data = words_VD
    return tower


def fill(model: JointModel, folder: Path) -> None:
    """Give `model` the weights of the artefact in `folder`, but for the hubs it may measure.

    Raises InvalidInput for one that is built otherwise.
    """
    try:
        with torch.no_grad():
            _fill_text(model, _Graph(folder / "text.onnx"))
            _fill_picture(model, _Graph(folder / "image.onnx"))
            if model.fusion is not None:
                _fill_fusion(model.fusion, _Graph(folder / "both.onnx"))
            if model.scorer is not None:
                _fill_scorer(model, _Graph(folder / "pair.onnx"))
    except (RuntimeError, StopIteration, ValueError, KeyError) as error:
        raise InvalidInput(f"The model in {folder} is built otherwise: {error}.") from None


def _fill_text(model: JointModel, graph: _Graph) -> None:
    tower = model.text
    assert isinstance(tower, Transformer)
    table_VD = graph.table()
    _copy(tower.words.weight[: len(table_VD)], table_VD)  # pieces that are new keep their rows
    _copy(tower.places.weight, graph.value(next(graph.of_kind("Slice")).input[0]))
    _norm(tower.norm, graph)
    for block in tower.blocks:
        assert isinstance(block, Block)
        attention = block.attention
        three = next(graph.linears)
        assert three.bias_N is not None
        for at, part in enumerate((attention.query, attention.key, attention.value)):
            rows = slice(at * part.out_features, (at + 1) * part.out_features)
            _copy(part.weight, three.weight_NK[rows])
            _copy(part.bias, three.bias_N[rows])
        _linear(attention.out, graph)
        _norm(block.norm_attention, graph)
        _linear(block.widen, graph)
        _linear(block.narrow, graph)
        _norm(block.norm_out, graph)
    if model.moe is not None:
        _norm(model.norm_text, graph)
        _fill_experts(model.moe, graph)
    _linear(model.leave_text, graph)
    if graph.tells_hubs:
        next(graph.linears)
    if model.scorer is not None:
        _entrance(model.scorer.enter_text, graph)


def _fill_experts(moe: MoE, graph: _Graph) -> None:
    router = moe.router
    _copy(router.weight_ED, next(graph.linears).weight_NK * router.temperature.numpy())
    _copy(router.bias_E, graph.after("Where", "Add"))
    _copy(router.threshold, graph.after("CumSum", "Sub"))
    widen_EHD, narrow_EDH = graph.experts()
    _copy(moe.experts.widen_EDH, widen_EHD.transpose(0, 2, 1))
    _copy(moe.experts.narrow_EHD, narrow_EDH.transpose(0, 2, 1))


def _fill_picture(model: JointModel, graph: _Graph) -> None:
    trunk, head = model.picture, model.head
    assert isinstance(trunk, MobileNet)
    for layer, (weight, bias) in zip(trunk.convs.values(), graph.convolutions(), strict=True):
        assert isinstance(layer, SameConv)
        _copy(layer.weight, weight)
        _copy(layer.bias, bias)
    _copy(head.scale, graph.after("Transpose", "Mul"))
    _linear(head.mean, graph)
    if model.moe is not None:
        _norm(model.norm_picture, graph)
        next(graph.linears)  # the router, which both sides share
    _fill_head(head, graph)
    _linear(model.leave_picture, graph)
    if graph.tells_hubs:
        next(graph.linears)
    if model.scorer is not None:
        _entrance(model.scorer.enter_picture, graph)


def _fill_head(head: PictureHead, graph: _Graph) -> None:
    if head.attend:
        _linear(head.look, graph)
        for heads_CM in head.heads_HCM:
            _copy(heads_CM, next(graph.linears).weight_NK.T)
    _linear(head.widen, graph)
    _linear(head.narrow, graph)


def _fill_fusion(fusion: CrossModal, graph: _Graph) -> None:
    next(graph.linears)  # the picture's mean, as in its own graph
    _entrance(fusion.enter_text, graph)
    _entrance(fusion.enter_picture, graph)
    if fusion.spatial is not None:
        _linear(fusion.spatial.of_text, graph)
        _linear(fusion.spatial.of_patch, graph)
        _copy(fusion.spatial.threshold, graph.after("MatMul", "Sub"))
    latents = iter(graph.constants("Expand"))
    for layer in fusion.layers:
        assert isinstance(layer, BottleneckLayer), "only the bottleneck is served"
        _copy(layer.latents_LW, next(latents))
        for block in (layer.gather, layer.to_text, layer.to_picture):
            _fill_block(block, graph)
    for leave in (fusion.leave_text, fusion.leave_picture):
        _norm(leave.norm, graph)
        _linear(leave.leave, graph)


def _fill_block(block: FusionBlock, graph: _Graph) -> None:
    _norm(block.norm_ask, graph)
    _norm(block.norm_answer, graph)
    attention = block.attention
    for layer in (attention.query, attention.key, attention.value, attention.out):
        _linear(layer, graph)
    _norm(block.norm_out, graph)
    _linear(block.widen, graph)
    _linear(block.narrow, graph)


def _fill_scorer(model: JointModel, graph: _Graph) -> None:
    assert model.scorer is not None
    _linear(model.scorer.weigh, graph)
    _copy(model.scorer.log_scale, np.log(graph.after("ReduceSum", "Mul")))


def _entrance(layer: Entrance, graph: _Graph) -> None:
    _norm(layer.norm, graph)
    _linear(layer.enter, graph)


def _linear(layer: nn.Linear, graph: _Graph) -> None:
    weight_NK, bias_N = next(graph.linears)
    _copy(layer.weight, weight_NK)
    if bias_N is not None:
        _copy(layer.bias, bias_N)


def _norm(layer: nn.LayerNorm, graph: _Graph) -> None:
    weight_D, bias_D = next(graph.norms)
    _copy(layer.weight, weight_D)
    _copy(layer.bias, bias_D)


def _copy(into: Tensor, array: Floats) -> None:
    """As `copy_`, but nothing is repeated to fit."""
    if tuple(into.shape) != array.shape:
        raise ValueError(f"got a weight of {array.shape}, expected {tuple(into.shape)}")
    into.copy_(torch.tensor(array))
