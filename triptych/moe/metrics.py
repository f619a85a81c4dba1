"""What the experts do: load, balance, specialisation.

Pure numpy over counts: `MoEOutput.load_E` summed per data set gives load_SE.

S data sets, E experts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from triptych.errors import InvalidInput

Counts = NDArray[np.floating] | NDArray[np.integer]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadReport:
    """How evenly tokens spread over experts."""

    imbalance: float  # greatest load / mean load; 1 is even
    cv: float  # standard deviation / mean
    entropy: float  # of the shares, over that of even ones: 0 to 1
    dead: int  # experts without a token


def load_report(load_E: Counts) -> LoadReport:
    """Raises InvalidInput where no token was counted."""
    load = _counted(load_E, ndim=1)
    share = load / load.sum()
    return LoadReport(
        imbalance=float(load.max() / load.mean()),
        cv=float(load.std() / load.mean()),
        entropy=_entropy(share) / float(np.log(len(load))) if len(load) > 1 else 1.0,
        dead=int((load == 0).sum()),
    )


def specialisation(load_SE: Counts) -> float:
    """Return the normalised mutual information of expert and data set, from 0 to 1.

    2 I(S; E) / (H(S) + H(E)) over counted (token, expert) pairs (Strehl and Ghosh 2002, with the
    arithmetic mean): 0 where every data set uses the experts alike. Finite counts lie above 0 by
    chance; compare with `shuffled_specialisation`.
    """
    share = _counted(load_SE, ndim=2)
    share = share / share.sum()
    of_set, of_expert = _entropy(share.sum(axis=1)), _entropy(share.sum(axis=0))
    mutual = of_set + of_expert - _entropy(share.ravel())
    both = of_set + of_expert
    return max(0.0, 2 * mutual / both) if both > 0 else 0.0


def shuffled_specialisation(load_SE: Counts, *, rounds: int = 20, seed: int = 0) -> float:
    """Return the mean of what chance gives with the same totals of each data set and expert.

    Whole counts are expected; the pairs are dealt anew with both totals kept (Patefield 1981).
    """
    counts = np.rint(_counted(load_SE, ndim=2)).astype(np.int64)
    draw = np.random.default_rng(seed)
    found = []
    for _ in range(rounds):
        left_E = counts.sum(axis=0)
        dealt_SE = np.zeros_like(counts)
        for at, total in enumerate(counts.sum(axis=1)):
            dealt_SE[at] = draw.multivariate_hypergeometric(left_E, total, method="marginals")
            left_E = left_E - dealt_SE[at]
        found.append(specialisation(dealt_SE))
    return float(np.mean(found))


def _counted(load: Counts, *, ndim: int) -> NDArray[np.float64]:
    values = np.asarray(load, dtype=np.float64)
    if values.ndim != ndim or not np.isfinite(values).all() or (values < 0).any():
        raise InvalidInput(
            f"Got load of shape {values.shape}.",
            hint=f"Expected {ndim} axes of finite counts from 0.",
        )
    if values.sum() == 0:
        raise InvalidInput("No token was counted.", hint="Run the layer over some items first.")
    return values


def _entropy(share: NDArray[np.float64]) -> float:
    some = share[share > 0]
    return float(-(some * np.log(some)).sum())
