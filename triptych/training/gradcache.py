"""A contrastive gradient of a large batch in the memory of small ones (GradCache, 2101.06983).

Every tower runs twice over its micro-batches: first without a graph, for the embeddings that the
loss of the whole batch needs; then with one, to carry that loss's gradient on to the weights. The
state of the random numbers is kept with each micro-batch, so dropout falls the same way twice.

B a micro-batch, N the whole batch, M embedding width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from triptych.errors import InvalidInput


class TowerOutput(NamedTuple):
    """What a tower says of a micro-batch."""

    emb_BM: Tensor
    auxiliary: Tensor | None = None  # a mean over `weight` things: tokens, or items
    weight: float | None = None  # how many; None: as many as there are embeddings


@dataclass(frozen=True, slots=True, kw_only=True)
class Tower:
    """One side of the batch: `size` items, of which `forward(start, stop)` embeds some."""

    forward: Callable[[int, int], TowerOutput]
    size: int
    micro: int  # items at a time

    def __post_init__(self) -> None:
        if self.size < 1 or self.micro < 1:
            raise InvalidInput(
                f"Got a batch of {self.size} in micro-batches of {self.micro}, "
                "expected at least 1 of 1."
            )

    def bounds(self) -> list[tuple[int, int]]:
        """Where each micro-batch starts and stops."""
        starts = range(0, self.size, self.micro)
        return [(start, min(start + self.micro, self.size)) for start in starts]


class GradCacheOutput(NamedTuple):
    """What the step found, without a graph: gradients are in the parameters."""

    loss: Tensor
    auxiliary: Tensor


def backward(towers: Sequence[Tower], loss: Callable[..., Tensor]) -> GradCacheOutput:
    """Add to every parameter the gradient of `loss(emb_NM of each tower)` plus auxiliary losses.

    The same as one pass over everything, for any micro-batch size: exactly for the loss, and for
    an auxiliary loss that is a mean over tokens or items (a router's z-loss). One that is not,
    like a balance loss, is the weighted mean of what the micro-batches say of it. A tower must
    not change its own state in `forward`: it is called twice.
    """
    passes = [_first_pass(tower) for tower in towers]
    leaves = [
        torch.cat([seen.emb_BM.detach() for seen, _ in chunks]).requires_grad_()
        for chunks in passes
    ]
    value = loss(*leaves)
    value.backward()  # type: ignore[no-untyped-call]
    auxiliary = torch.zeros_like(value)
    for tower, chunks, leaf_NM in zip(towers, passes, leaves, strict=True):
        auxiliary += _second_pass(tower, chunks, leaf_NM)
    return GradCacheOutput(loss=value.detach(), auxiliary=auxiliary)


def _first_pass(tower: Tower) -> list[tuple[TowerOutput, RandomState]]:
    bounds = tower.bounds()
    found = []
    for start, stop in bounds:
        state = RandomState.now()
        # a tower in one piece keeps its graph: a second run would save nothing
        with torch.set_grad_enabled(len(bounds) == 1):
            seen = tower.forward(start, stop)
        if len(seen.emb_BM) != stop - start:
            raise InvalidInput(
                f"Got {len(seen.emb_BM)} embeddings of {stop - start} items, expected one each."
            )
        found.append((seen, state))
    return found


def _second_pass(
    tower: Tower, chunks: Sequence[tuple[TowerOutput, RandomState]], leaf_NM: Tensor
) -> Tensor:
    """Carry the gradient of the embeddings on to the weights; the mean auxiliary loss."""
    grad_NM = leaf_NM.grad if leaf_NM.grad is not None else torch.zeros_like(leaf_NM)
    total = sum(_weight(seen) for seen, _ in chunks)
    auxiliary = leaf_NM.new_zeros(())
    for (start, stop), (first, state) in zip(tower.bounds(), chunks, strict=True):
        if len(chunks) == 1:
            seen = first
        else:
            with state.restored():
                seen = tower.forward(start, stop)
        outputs, grads = [seen.emb_BM], [grad_NM[start:stop].to(seen.emb_BM.dtype)]
        if seen.auxiliary is not None:
            share = _weight(seen) / total
            outputs.append(seen.auxiliary)
            grads.append(torch.full_like(seen.auxiliary, share))
            auxiliary += share * seen.auxiliary.detach()
        moving = [i for i, output in enumerate(outputs) if output.requires_grad]
        if moving:
            torch.autograd.backward([outputs[i] for i in moving], [grads[i] for i in moving])
    return auxiliary


def _weight(seen: TowerOutput) -> float:
    return float(len(seen.emb_BM)) if seen.weight is None else seen.weight


@dataclass(frozen=True, slots=True)
class RandomState:
    """Where the generators of torch stand, on the CPU and on every GPU in use."""

    cpu: Tensor
    gpus: tuple[Tensor, ...]

    @classmethod
    def now(cls) -> RandomState:
        gpus = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else ()
        return cls(torch.get_rng_state(), tuple(gpus))

    def put(self) -> None:
        torch.set_rng_state(self.cpu)
        if self.gpus:
            torch.cuda.set_rng_state_all(list(self.gpus))

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Inside, random numbers come as they came then; afterwards as if nothing had been."""
        present = RandomState.now()
        self.put()
        try:
            yield
        finally:
            present.put()
