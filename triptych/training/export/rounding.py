"""How the picture tower is rounded to eight bits: the range of every output, and its biases.

B batch, C channels, H W rows and columns of a map.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from torch import Tensor

from triptych.encoders.towers.mobilenet import LAST_MAP, Layer, MobileNet

Range = tuple[float, float]

PICTURE = -1  # where a layer's inputs are counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounding:
    """What is fixed at export. An output without a range stays float."""

    ranges: Mapping[int, Range]  # by layer
    biases: Mapping[str, Tensor] = field(default_factory=dict)  # by layer's name: not its own


def measured(trunk: MobileNet, batches: Sequence[Tensor]) -> Rounding:
    """Return the rounding that shifts least on `batches` of pixels_BCHW in -1..1."""
    ranges = measured_ranges(trunk, batches)
    return Rounding(ranges=ranges, biases=corrected_biases(trunk, torch.cat(list(batches)), ranges))


def measured_ranges(trunk: MobileNet, batches: Sequence[Tensor]) -> dict[int, Range]:
    """For every output the range whose 256 steps give the least error; zero lies within."""
    samples: dict[int, list[Tensor]] = {}
    with torch.inference_mode():
        for pixels in batches:
            for index, output in enumerate(trunk.outputs(pixels)):
                flat = output.flatten()
                samples.setdefault(index, []).append(flat[:: max(len(flat) // 60_000, 1)])
    return {index: _best_range(torch.cat(parts)) for index, parts in samples.items()}


def corrected_biases(
    trunk: MobileNet, pixels_BCHW: Tensor, ranges: Mapping[int, Range]
) -> dict[str, Tensor]:
    """Return biases_C by the layer's name, which give every channel the mean that it has in float.

    Rounded weights shift the mean of a channel for all pictures alike, and the shifts add up from
    layer to layer (Nagel et al. 2019, 1906.04721, section 4.2). So each layer is corrected on what
    the rounded ones before it give.
    """
    rough, biases = deepcopy(trunk), {}
    for weight in rough.parameters():
        if weight.ndim == 4:
            weight.data = _rounded_weight(weight.data)
    exact_maps, rough_maps = {PICTURE: pixels_BCHW}, {PICTURE: pixels_BCHW}
    with torch.inference_mode():
        for index, layer in enumerate(trunk.layers[: LAST_MAP + 1]):
            exact, map_BCHW = trunk.step(layer, exact_maps), rough.step(layer, rough_maps)
            if layer.op == "conv":
                bias = rough.conv(layer).bias
                bias.data = bias.data - (map_BCHW - exact).mean(dim=(0, 2, 3))
                biases[layer.name] = bias.data
                map_BCHW = rough.step(layer, rough_maps)
            exact_maps[index], rough_maps[index] = exact, _rounded(map_BCHW, *ranges[index])
            _forget(exact_maps, rough_maps, later=trunk.layers[index + 1 :])
    return biases


def _rounded_weight(weight: Tensor) -> Tensor:
    """Return weight_OIHW in 255 steps for each output."""
    scale_O = (weight.abs().amax(dim=(1, 2, 3), keepdim=True) / 127).clamp(min=1e-12)
    return (weight / scale_O).round() * scale_O


def _forget(*maps: dict[int, Tensor], later: Sequence[Layer]) -> None:
    """Drop what no later layer reads: all maps of some hundred pictures are gigabytes."""
    wanted = {source for layer in later for source in layer.inputs}
    for each in maps:
        for index in each.keys() - wanted:
            del each[index]


def _best_range(sample: Tensor) -> Range:
    low, high = min(float(sample.min()), 0.0), max(float(sample.max()), 0.0)
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
