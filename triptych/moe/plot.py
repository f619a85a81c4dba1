"""Load and specialisation of the experts in one picture.

S data sets, E experts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from triptych.errors import InvalidInput, NotAvailable
from triptych.moe.metrics import Counts, load_report, shuffled_specialisation, specialisation


def plot_experts(load_SE: Counts, *, names: Sequence[str], path: Path) -> None:
    """Write a PNG: above each expert's load, below each data set's share of its experts.

    Experts are ordered by the data set that uses them most. Raises InvalidInput for names that do
    not fit, NotAvailable without matplotlib.
    """
    load = np.asarray(load_SE, dtype=np.float64)
    if load.ndim != 2 or len(names) != len(load):
        raise InvalidInput(
            f"Got load of shape {load.shape} and {len(names)} names.", hint="Expected (S, E) and S."
        )
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        raise NotAvailable(
            "A plot needs matplotlib.", hint='Run: pip install "triptych[train]"'
        ) from None
    report = load_report(load.sum(axis=0))
    share_SE = load / np.maximum(load.sum(axis=1, keepdims=True), 1)
    order_E = np.lexsort((-share_SE.max(axis=0), share_SE.argmax(axis=0)))
    figure = Figure(figsize=(10, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.bar(np.arange(load.shape[1]), load.sum(axis=0)[order_E] / load.sum(axis=0).mean())
    above.axhline(1, color="black", linewidth=0.8)
    above.set_ylabel("load / mean")
    above.set_title(
        f"greatest / mean {report.imbalance:.2f}, dead {report.dead}, "
        f"specialisation {specialisation(load):.3f} (shuffled {shuffled_specialisation(load):.3f})"
    )
    shown = below.imshow(share_SE[:, order_E], aspect="auto", interpolation="nearest")
    below.set_yticks(np.arange(len(names)), names)
    below.set_xlabel("experts, by the data set that uses them most")
    figure.colorbar(shown, ax=below, label="share of the set's tokens")
    figure.savefig(path, dpi=120)
