"""Training that ends with a part of the weights: dense, then cut by and by, then moved about.

Phase 1 leaves everything; phase 2 cuts, at every event, a share of what is left (1803.03635, here
while it trains, as 1710.01878 does along a cubic curve); in phase 3 the number stays and the least
weights give way to those with the greatest gradient (RigL, 1911.11134). Masks are kept beside the
parameters, not in them: the model's own code and its export know nothing of them, a masked weight
is a zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from triptych.errors import InvalidInput
from triptych.training.importance import Score, importance


@dataclass(frozen=True, slots=True, kw_only=True)
class SparsityConfig:
    """When how much is cut; shares are of the whole run, densities of the weights."""

    dense_until: float = 0.10
    every: float = 0.05
    cut: float = 0.20  # of what is left, at each event
    density: float = 0.30  # where cutting ends
    move: float = 0.30  # of the active weights, at the run's start; a cosine to 0 at `move_until`
    move_until: float = 0.75  # later the masks stay, so that what was grown last can learn
    pyramid: tuple[float, float] | None = None  # (0.1, 0.5): densities of the lowest, highest layer
    by_shape: bool = False  # large tensors lose more: density in proportion to 1 / numbers per edge
    score: Score = "magnitude"

    def __post_init__(self) -> None:
        shares = (self.dense_until, self.move, self.move_until)
        if not all(0 <= share <= 1 for share in shares) or not 0 < self.every <= 1:
            raise InvalidInput(f"Got {self}, expected shares of the run between 0 and 1.")
        if not 0 < self.cut < 1 or not 0 < self.density <= 1:
            raise InvalidInput(
                f"Got cut={self.cut} and density={self.density}, expected 0 < cut < 1 and "
                "0 < density <= 1."
            )
        if self.pyramid is not None and not all(0 < end <= 1 for end in self.pyramid):
            raise InvalidInput(f"Got the pyramid {self.pyramid}, expected densities in (0, 1].")
        if self.pyramid is not None and self.by_shape:
            raise InvalidInput("Got a pyramid and by_shape, expected one of them.")


class Event(NamedTuple):
    """What happens to the masks after a step."""

    kind: Literal["cut", "move"]
    density: float
    share: float = 0.0  # of the active weights that move


def plan(config: SparsityConfig, *, steps: int) -> dict[int, Event]:
    """Return what happens after which step (counted from 1) of a run of `steps`."""
    if config.every * steps < 1 - 1e-9:  # two events would fall on one step
        raise InvalidInput(
            f"Got {steps} steps with an event every {config.every:.0%} of them, expected at least "
            f"{math.ceil(1 / config.every)} steps."
        )
    events, density, at = {}, 1.0, 0
    while (progress := config.dense_until + at * config.every) <= 1 + 1e-9:
        at += 1
        step = max(round(progress * steps), 1)
        if density > config.density:
            density = max(density * (1 - config.cut), config.density)
            events[step] = Event("cut", density)
        elif progress < config.move_until and config.move:
            share = config.move / 2 * (1 + math.cos(math.pi * progress / config.move_until))
            events[step] = Event("move", density, share)
    return events


def layer_densities(config: SparsityConfig, *, sizes: Sequence[int]) -> list[float]:
    """Return the density of each layer, low to high, when cutting is over.

    Without a pyramid all are alike. With one they are linear from its first to its last density,
    scaled so that the whole keeps `config.density`; a layer that would exceed 1 gives the rest on.
    """
    if config.pyramid is None:
        return [config.density] * len(sizes)
    low, high = config.pyramid
    steep = [low + (high - low) * at / max(len(sizes) - 1, 1) for at in range(len(sizes))]
    return _scaled(steep, sizes=sizes, density=config.density)


def shape_densities(shapes: Sequence[Sequence[int]], *, density: float) -> list[float]:
    """Return the density of each tensor: (the sum of its sides) / (their product), scaled.

    The Erdos-Renyi kernel (1911.11134). What is small and what all tokens pass through stays whole;
    stacked experts, of which a token meets a few, lose most. The whole keeps `density`.
    """
    ratios = [sum(shape) / math.prod(shape) for shape in shapes]
    return _scaled(ratios, sizes=[math.prod(shape) for shape in shapes], density=density)


def _scaled(ratios: Sequence[float], *, sizes: Sequence[int], density: float) -> list[float]:
    """Return densities in these ratios of which none exceeds 1, `density` over all."""
    full: set[int] = set()
    while True:
        budget = density * sum(sizes) - sum(sizes[at] for at in full)
        free = [at for at in range(len(sizes)) if at not in full]
        scale = budget / sum(ratios[at] * sizes[at] for at in free) if free else 0.0
        over = {at for at in free if ratios[at] * scale > 1}
        if not over:
            return [1.0 if at in full else ratios[at] * scale for at in range(len(sizes))]
        full |= over


def _final_densities(
    config: SparsityConfig, layers: Sequence[Mapping[str, nn.Parameter]]
) -> dict[str, float]:
    """Return the density of each tensor by name, when cutting is over."""
    if config.by_shape:
        shapes = {name: p.shape for layer in layers for name, p in layer.items()}
        found = shape_densities(list(shapes.values()), density=config.density)
        return dict(zip(shapes, found, strict=True))
    sizes = [sum(p.numel() for p in layer.values()) for layer in layers]
    final = layer_densities(config, sizes=sizes)
    return {name: density for layer, density in zip(layers, final, strict=True) for name in layer}


class SparsityScheduler:
    """The masks of a run. Around every step of the optimizer:

    `before_step(step)` after the gradients are whole, `after_step(step, optimizer)` when the
    weights have moved; `mask_(average)` for every other copy of the weights, such as an EMA.
    """

    def __init__(
        self,
        config: SparsityConfig,
        *,
        layers: Sequence[Mapping[str, nn.Parameter]],
        steps: int,
    ) -> None:
        """Take the weights of each layer by name, lowest layer first; biases are best left out."""
        self.config = config
        self.parameters = {name: p for layer in layers for name, p in layer.items()}
        if not self.parameters or len(self.parameters) < sum(map(len, layers)):
            raise InvalidInput("Got no weights, or one name twice, expected some, each once.")
        self.events = plan(config, steps=steps)
        self._final = _final_densities(config, layers)
        self.masks = {
            name: torch.ones_like(p, dtype=torch.bool) for name, p in self.parameters.items()
        }
        self._scores: dict[str, Tensor] = {}

    def density(self) -> float:
        """Return the share of the weights that is active."""
        active = sum(int(mask.sum()) for mask in self.masks.values())
        return active / sum(mask.numel() for mask in self.masks.values())

    def counts(self, density: float) -> dict[str, int]:
        """Return how many weights of each tensor are active at an overall density.

        round(density x size) where all are alike; elsewhere the sum over all is exact.
        """
        sizes = {name: p.numel() for name, p in self.parameters.items()}
        if self.config.pyramid is None and not self.config.by_shape:
            return {name: max(round(density * size), 1) for name, size in sizes.items()}
        way = (1 - density) / (1 - self.config.density) if self.config.density < 1 else 0.0
        exact = {name: size * (1 - way * (1 - self._final[name])) for name, size in sizes.items()}
        found = {name: int(count) for name, count in exact.items()}
        missing = round(density * sum(sizes.values())) - sum(found.values())
        by_rest = sorted(found, key=lambda name: exact[name] - found[name], reverse=True)
        for name in by_rest[: max(missing, 0)]:
            found[name] += 1
        return found

    @torch.no_grad()
    def before_step(self, step: int) -> None:
        """Note what an event after this step needs of the gradients, and mask them."""
        event = self.events.get(step)
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                continue
            if event is not None and self._asks_gradients(event):
                self._scores[name] = parameter.grad.clone()
            parameter.grad.masked_fill_(~self.masks[name], 0.0)

    @torch.no_grad()
    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> Event | None:
        """Let the step's event happen, and return it; keep masked weights and moments at zero."""
        event = self.events.get(step)
        if event is not None:
            for name, count in self.counts(event.density).items():
                self._change(name, count=count, event=event)
            self._scores.clear()
        self.mask_({name: p.data for name, p in self.parameters.items()})
        if event is not None:
            self._mask_moments(optimizer)
        return event

    def _asks_gradients(self, event: Event) -> bool:
        return event.kind == "move" or self.config.score == "taylor"

    def _change(self, name: str, *, count: int, event: Event) -> None:
        parameter, mask, gradient = self.parameters[name], self.masks[name], self._scores.get(name)
        if gradient is None and self._asks_gradients(event):
            return  # nothing reached this weight, so nothing says where to grow or what matters
        score = importance(parameter, gradient, score=self.config.score)
        # everything active goes before everything that is not, a zero among them too
        kept = score.masked_fill(~mask, -1.0)
        if event.kind == "cut":
            self.masks[name] = _greatest(kept, count=count)
            return
        assert gradient is not None
        moved = min(round(event.share * count), mask.numel() - count)
        stays = _greatest(kept, count=count - moved)
        grown = _greatest(gradient.abs().masked_fill(stays, -1.0), count=moved)
        parameter.data.masked_fill_(grown, 0.0)  # as in RigL: what is grown starts from nothing
        self.masks[name] = stays | grown

    def mask_(self, tensors: Mapping[str, Tensor]) -> None:
        """Set what is masked to zero, in place, in any tensors that go by the weights' names."""
        for name, mask in self.masks.items():
            if name in tensors:
                tensors[name].masked_fill_(~mask, 0.0)

    def _mask_moments(self, optimizer: torch.optim.Optimizer) -> None:
        for name, parameter in self.parameters.items():
            for moment in optimizer.state.get(parameter, {}).values():
                if isinstance(moment, Tensor) and moment.shape == parameter.shape:
                    moment.masked_fill_(~self.masks[name], 0.0)

    def state_dict(self) -> dict[str, Tensor]:
        """Return the masks: with the step they are all that a run has to remember."""
        return {name: mask.clone() for name, mask in self.masks.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take up the masks of a checkpoint."""
        if state.keys() != self.masks.keys():
            odd = sorted(state.keys() ^ self.masks.keys())[:3]
            raise InvalidInput(
                f"Got masks for other weights than are trained: {', '.join(odd)} are on one side.",
                hint="Resume with the configuration that wrote the checkpoint.",
            )
        for name, mask in state.items():
            if mask.dtype != torch.bool or mask.shape != self.masks[name].shape:
                raise InvalidInput(
                    f"Got a mask for {name} of {mask.dtype} and shape {tuple(mask.shape)}, "
                    f"expected torch.bool and {tuple(self.masks[name].shape)}."
                )
        self.masks = {name: state[name].to(p.device) for name, p in self.parameters.items()}


def _greatest(scores: Tensor, *, count: int) -> Tensor:
    """Return a mask of exactly `count` places, those with the greatest scores."""
    mask = torch.zeros(scores.numel(), dtype=torch.bool, device=scores.device)
    mask[scores.flatten().topk(count, sorted=False).indices] = True
    return mask.view(scores.shape)
