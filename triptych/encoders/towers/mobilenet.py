"""MobileNetEdgeTPU in torch, run from its own graph, and the head that makes a vector of it.

B batch, C channels, H W rows and columns of a map, P places of the last map, M embedding width.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

IMAGE_SIZE = 224
LAST_MAP = 72  # 7x7x1280, the layer before the mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One node of the graph: a convolution, or the sum of two earlier nodes."""

    op: str
    inputs: tuple[int, ...]
    name: str = ""
    stride: int = 1
    groups: int = 1
    relu: bool = False

    @property
    def key(self) -> str:
        """The name, as a module of torch may have it."""
        return self.name.replace(".", "_")


def _layer(node: Mapping[str, object]) -> Layer:
    source = node["input"]
    inputs = tuple(source) if isinstance(source, list) else (source,)
    if node["op"] == "add":
        return Layer(op="add", inputs=inputs)
    return Layer(
        op="conv",
        inputs=inputs,
        name=str(node["name"]),
        stride=int(str(node["stride"])),
        groups=int(str(node["groups"])),
        relu=node["activation"] == "relu",
    )


class SameConv(nn.Module):
    """A convolution padded as TensorFlow does: the odd pixel goes right and bottom."""

    def __init__(self, layer: Layer, *, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
        self.bias = nn.Parameter(bias)
        self.stride, self.groups, self.relu = layer.stride, layer.groups, layer.relu

    def forward(self, map_BCHW: Tensor) -> Tensor:
        sides = zip(map_BCHW.shape[2:], self.weight.shape[2:], strict=True)
        (top, bottom), (left, right) = (self.padding(*side) for side in sides)
        if top == bottom and left == right:
            padding = (top, left)
        else:
            map_BCHW, padding = functional.pad(map_BCHW, (left, right, top, bottom)), (0, 0)
        # the way back through 5x5 of each channel is five times as long in bfloat16 as in float32
        wide = self.groups > 1 and self.weight.shape[2] > 3
        with torch.autocast(map_BCHW.device.type, enabled=False) if wide else nullcontext():
            map_BCHW = functional.conv2d(
                map_BCHW.to(self.weight.dtype) if wide else map_BCHW,
                self.weight,
                self.bias,
                stride=self.stride,
                padding=padding,
                groups=self.groups,
            )
        return map_BCHW.relu_() if self.relu else map_BCHW

    def padding(self, size: int, kernel: int) -> tuple[int, int]:
        """Return how many zeros go before and after a side of so many pixels."""
        total = max((-(-size // self.stride) - 1) * self.stride + kernel - size, 0)
        return total // 2, total - total // 2


class MobileNet(nn.Module):
    """The stack of layers; it can be entered and left at any layer that no residual crosses."""

    def __init__(self, layers: Sequence[Layer], *, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.convs = nn.ModuleDict(
            {
                layer.key: SameConv(
                    layer,
                    weight=weights[f"{layer.name}.weight"],
                    bias=weights[f"{layer.name}.bias"],
                )
                for layer in self.layers
                if layer.op == "conv"
            }
        )

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the tower of a file, up to the last map, its weights in float32.

        The file also gives the range that each output had in eight bits. It is left out: photos
        hardly ever reach it, and a clamp costs a fifth of a training step.
        """
        with safe_open(path, framework="pt") as file:
            metadata: Mapping[str, str] = file.metadata()
            weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118
        nodes = json.loads(metadata["layers"])[: LAST_MAP + 1]
        return cls([_layer(node) for node in nodes], weights=weights)

    def forward(self, map_BCHW: Tensor, *, after: int = -1, until: int = LAST_MAP) -> Tensor:
        """The output of layer `until`, given that of layer `after` (-1: the picture in -1..1)."""
        return self._run(map_BCHW, after=after, until=until)[until]

    def outputs(self, pixels_BCHW: Tensor) -> list[Tensor]:
        """The output of every layer, from the first to the last map."""
        found = self._run(pixels_BCHW, after=-1, until=LAST_MAP)
        return [found[index] for index in range(LAST_MAP + 1)]

    def _run(self, map_BCHW: Tensor, *, after: int, until: int) -> dict[int, Tensor]:
        outputs = {after: map_BCHW}
        for index in range(after + 1, until + 1):
            outputs[index] = self.step(self.layers[index], outputs)
        return outputs

    def step(self, layer: Layer, outputs: Mapping[int, Tensor]) -> Tensor:
        """The output of one layer, given those that it reads."""
        if layer.op == "add":
            first, second = layer.inputs
            return outputs[first] + outputs[second]
        found: Tensor = self.conv(layer)(outputs[layer.inputs[0]])
        return found

    def conv(self, layer: Layer) -> SameConv:
        """The convolution of a layer that is one."""
        conv = self.convs[layer.key]
        assert isinstance(conv, SameConv)
        return conv

    def parameters_after(self, layer: int) -> list[nn.Parameter]:
        """Parameters of the layers above `layer`, which training may move."""
        above = [node for node in self.layers[layer + 1 :] if node.op == "conv"]
        return [parameter for node in above for parameter in self.conv(node).parameters()]


class PictureHead(nn.Module):
    """A map of features to states of its places, and those to a vector.

    The vector is what several heads attend to, beside the plain mean.
    """

    def __init__(self, *, channels: int, dim: int, attend: bool, num_heads: int = 8) -> None:
        super().__init__()
        self.attend = attend
        # set from data before training
        self.scale = nn.Parameter(torch.tensor(1.0), requires_grad=False)
        self.look = nn.Linear(channels, num_heads)
        self.heads_HCM = nn.Parameter(
            torch.randn(num_heads, channels, dim // num_heads) * channels**-0.5
        )
        self.mean = nn.Linear(channels, dim)
        self.widen, self.narrow = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)
        self.dropout = nn.Dropout(0.1)
        # of all places alike: what one place loses the mean of 49 would make up for
        self.drop_channels = nn.Dropout1d(0.1)
        nn.init.zeros_(self.narrow.weight)

    def places(self, map_BCHW: Tensor) -> Tensor:
        """Return states_BPC, row by row of the map, in range."""
        return map_BCHW.flatten(2).transpose(1, 2) * self.scale

    def patches(self, states_BPC: Tensor) -> Tensor:
        """Return patches_BPM: the states as wide as the vector."""
        kept_BCP = self.drop_channels(states_BPC.transpose(1, 2))
        patches_BPM: Tensor = self.mean(kept_BCP.transpose(1, 2))
        return patches_BPM

    def forward(self, states_BPC: Tensor, patches_BPM: Tensor) -> Tensor:
        """Return vector_BM."""
        vector_BM = patches_BPM.mean(dim=1)
        if self.attend:
            share_BHP = self.look(states_BPC).transpose(1, 2).softmax(dim=-1)
            pooled_BHC = self.dropout(share_BHP @ states_BPC)
            seen_HBM = pooled_BHC.transpose(0, 1) @ self.heads_HCM
            vector_BM = vector_BM + seen_HBM.transpose(0, 1).flatten(1)
        bent: Tensor = self.narrow(self.dropout(functional.gelu(self.widen(vector_BM))))
        return vector_BM + bent
