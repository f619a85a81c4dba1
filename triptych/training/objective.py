"""The four terms of the loss, and their weighted sum.

contrastive      InfoNCE or sigmoid over the batch (`losses`)
classification   cross entropy of embeddings against the prototypes of their set's labels
sparsity         how far the experts are from their budget, and L1 of the soft masks
regularisation   load balance and z-loss of the router, uniformity of the embeddings

Weight decay is not among them: the optimizer applies it, apart from the gradient (AdamW).

N embeddings, C classes, M embedding width, B batch, E experts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from triptych.errors import InvalidInput
from triptych.training.losses import logits

NO_LABEL = -100  # what torch's cross entropy leaves out


class Weights(NamedTuple):
    """The share of each term: positive, and together 1."""

    contrastive: float = 0.4
    classification: float = 0.3
    sparsity: float = 0.2
    regularisation: float = 0.1


class Terms(NamedTuple):
    """The four losses of one batch; None where there is nothing to say."""

    contrastive: Tensor
    classification: Tensor | None = None
    sparsity: Tensor | None = None
    regularisation: Tensor | None = None

    def values(self) -> tuple[float | None, ...]:
        """Return them as plain numbers, for a weight schedule and for the log."""
        return tuple(None if term is None else float(term.detach()) for term in self)


class Objective(NamedTuple):
    """What is minimised, what it was made of, and the weights that were really used."""

    total: Tensor
    terms: Terms
    weights: tuple[float, ...]

    def record(self) -> dict[str, float]:
        """Return a line for the log: the total, each term that is there, and its weight."""
        found = {"loss": float(self.total.detach())}
        for name, value, weight in zip(
            Terms._fields, self.terms.values(), self.weights, strict=True
        ):
            if value is not None:
                found |= {name: value, f"{name}_weight": weight}
        return found


def combine(terms: Terms, weights: Weights) -> Objective:
    """Return the weighted sum of the terms that are there.

    The weight of an absent term goes to the others in proportion, so that the weights used are
    always 1 together: a set without labels does not train at a lower rate than one with.
    """
    if not all(weight > 0 for weight in weights) or abs(sum(weights) - 1) > 1e-6:
        raise InvalidInput(f"Got the weights {tuple(weights)}, expected positive ones that sum 1.")
    for name, term in zip(Terms._fields, terms, strict=True):
        if term is not None and not bool(torch.isfinite(term)):
            raise InvalidInput(
                f"Got a {name} loss of {float(term.detach())}, expected a finite one.",
                hint="Look for NaN in the batch, or lower the learning rate.",
            )
    present = [weight for weight, term in zip(weights, terms, strict=True) if term is not None]
    share = 1.0 if len(present) == len(weights) else sum(present)
    used = tuple(
        0.0 if term is None else weight / share for weight, term in zip(weights, terms, strict=True)
    )
    total = terms.contrastive * used[0]
    for weight, term in zip(used[1:], terms[1:], strict=True):
        if term is not None:
            total = total + term * weight
    return Objective(total=total, terms=terms, weights=used)


def class_table(labels: Iterable[str]) -> dict[str, int]:
    """Return a number for every label of a set, in sorted order.

    Empty where there are fewer than two: nothing to tell apart, so the set has no such term.
    """
    known = sorted({label for label in labels if label})
    return {label: at for at, label in enumerate(known)} if len(known) > 1 else {}


def label_ids(labels: Sequence[str], table: Mapping[str, int]) -> Tensor:
    """Return label_N; what has no label, or one that the table does not know, is NO_LABEL."""
    return torch.tensor([table.get(label, NO_LABEL) for label in labels], dtype=torch.int64)


class Prototypes(nn.Module):
    """A unit vector for every class of one set, learnt; the sets do not compete."""

    def __init__(self, num_classes: int, *, dim: int) -> None:
        super().__init__()
        if num_classes < 2:
            raise InvalidInput(f"Got {num_classes} classes, expected at least 2 to tell apart.")
        self.weight_CM = nn.Parameter(torch.randn(num_classes, dim) * dim**-0.5)

    def forward(self) -> Tensor:
        """prototypes_CM, unit rows."""
        return functional.normalize(self.weight_CM, dim=-1)


def classification(
    emb_NM: Tensor, label_N: Tensor, *, prototypes_CM: Tensor, scale: Tensor
) -> Tensor | None:
    """Return the mean cross entropy over what has a label, or None where nothing has.

    `emb_NM` and `prototypes_CM` are unit rows: the prototypes may be learnt (`Prototypes`) or be
    the embedded names of the classes.
    """
    if label_N.shape != emb_NM.shape[:1] or emb_NM.shape[1:] != prototypes_CM.shape[1:]:
        raise InvalidInput(
            f"Got embeddings {tuple(emb_NM.shape)}, labels {tuple(label_N.shape)} and prototypes "
            f"{tuple(prototypes_CM.shape)}, expected (N, M), (N,) and (C, M)."
        )
    if not bool((label_N != NO_LABEL).any()):
        return None
    if int(label_N.max()) >= len(prototypes_CM):
        raise InvalidInput(
            f"Got the label {int(label_N.max())} with {len(prototypes_CM)} prototypes.",
            hint="Labels and prototypes belong to one table of classes.",
        )
    return functional.cross_entropy(logits(emb_NM, prototypes_CM, scale=scale), label_N)


def sparsity(budget_loss: Tensor | None, *, masks: Sequence[Tensor] = ()) -> Tensor | None:
    """Return the experts' budget loss plus the mean L1 of each soft mask, None without either."""
    parts = [mask.abs().mean() for mask in masks]
    parts += [] if budget_loss is None else [budget_loss]
    return torch.stack(parts).sum() if parts else None


def uniformity(emb_NM: Tensor) -> Tensor:
    """Return how far unit rows are from being spread over the sphere (2005.10242).

    log mean exp(4 cos) over pairs of different rows: the paper's loss with t = 2, plus 4, so that
    rows at right angles give 0 and a single point 4. A batch of one gives 0.
    """
    if len(emb_NM) < 2:
        return emb_NM.sum() * 0.0
    itself_NN = torch.eye(len(emb_NM), dtype=torch.bool, device=emb_NM.device)
    away_NN = logits(emb_NM, emb_NM, scale=4.0).masked_fill(itself_NN, -torch.inf)
    pairs = len(emb_NM) * (len(emb_NM) - 1)
    return away_NN.flatten().logsumexp(dim=0) - torch.tensor(float(pairs)).log()


def regularisation(
    *,
    balance_loss: Tensor | None = None,
    router_z_loss: Tensor | None = None,
    emb_NM: Tensor | None = None,
) -> Tensor | None:
    """Return the sum of what is given: load balance, router z-loss, uniformity of embeddings."""
    parts = [part for part in (balance_loss, router_z_loss) if part is not None]
    parts += [] if emb_NM is None else [uniformity(emb_NM)]
    return torch.stack(parts).sum() if parts else None
