"""Which things many paths lead to, from where a search has begun."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from triptych.errors import InvalidInput

_ROUNDS = 50
_ENOUGH = 1e-9


def personalised_pagerank(
    edges: Iterable[tuple[str, str]], start: Mapping[str, float], *, walk: float
) -> dict[str, float]:
    """Return how often a walker is at each node, the numbers summing to 1.

    At every step it follows an edge, in either direction, with probability `walk`, else it begins
    anew at a node of `start`, chosen by its weight; from a node without edges it always does
    (Page and others 1999; Haveliwala 2002). An edge that is named twice counts once. Raises
    InvalidInput for a `walk` that is not in 0..1, 1 excluded, or weights that are not above 0.
    """
    if not 0 <= walk < 1:
        raise InvalidInput(f"The share of steps along links is in 0..1, not 1, got {walk!r}.")
    if not start or not all(np.isfinite(w) and w > 0 for w in start.values()):
        raise InvalidInput("A walk begins at one node or more, of weights above 0.")
    pairs = {(min(edge), max(edge)) for edge in edges if edge[0] != edge[1]}
    names = sorted({*start, *(name for pair in pairs for name in pair)})
    at = {name: number for number, name in enumerate(names)}
    one = np.array([at[a] for a, _ in pairs], dtype=np.int64)
    other = np.array([at[b] for _, b in pairs], dtype=np.int64)
    source, target = np.concatenate([one, other]), np.concatenate([other, one])
    degree_N = np.bincount(source, minlength=len(names))
    weights_N = np.zeros(len(names))
    weights_N[[at[name] for name in start]] = list(start.values())
    start_N = weights_N / weights_N.sum()
    share_N = start_N
    for _ in range(_ROUNDS):
        moved = walk * share_N[source] / degree_N[source]
        walked_N = np.bincount(target, weights=moved, minlength=len(names))
        next_N = walked_N + (1 - walked_N.sum()) * start_N
        if np.abs(next_N - share_N).sum() < _ENOUGH:
            break
        share_N = next_N
    return dict(zip(names, share_N.tolist(), strict=True))
