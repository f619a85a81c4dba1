"""A simulated customer, who looks at the first hits more than at the last: nobody real clicked.

The position-based model (Richardson et al. 2007): a click is a look times a liking.
Q lists, K ranks.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

LIKING = {"both": 0.6, "kind": 0.2, "colour": 0.05, "neither": 0.02}
"""How likely a product that is looked at is clicked, by what of it is right: made up."""


def click_rate(kind_QK: NDArray[np.bool_], colour_QK: NDArray[np.bool_], *, seed: int) -> float:
    """Return the share of lists with a click, where rank r is looked at with chance 1 / r."""
    draw = np.random.default_rng(seed)
    liking_QK = np.select(
        [kind_QK & colour_QK, kind_QK, colour_QK],
        [LIKING["both"], LIKING["kind"], LIKING["colour"]],
        LIKING["neither"],
    )
    looked_QK = draw.random(kind_QK.shape) < 1 / np.arange(1, kind_QK.shape[1] + 1)
    clicked_QK = looked_QK & (draw.random(kind_QK.shape) < liking_QK)
    return float(clicked_QK.any(axis=1).mean())
