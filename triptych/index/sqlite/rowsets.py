"""Sets of rows as ascending int64 arrays, each row once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from triptych.types import Rows


def ascending(rows: Rows) -> Rows:
    """Return rows sorted, each once."""
    if (rows[1:] > rows[:-1]).all():
        return rows
    rows = np.sort(rows, kind="stable")  # it finds the runs that are in order
    return rows[np.concatenate(([True], rows[1:] > rows[:-1]))]


def union(parts: Sequence[Rows]) -> Rows:
    """Return the rows of any part."""
    return ascending(np.concatenate(parts)) if parts else np.empty(0, dtype=np.int64)


def common(a: Rows, b: Rows) -> Rows:
    """Return the rows of both."""
    few, many = (a, b) if len(a) < len(b) else (b, a)
    return few[among(few, many)]


def without(rows: Rows, gone: Rows) -> Rows:
    """Return the rows that are not in `gone`."""
    return rows[~among(rows, gone)] if len(gone) else rows


def among(rows: Rows, others: Rows) -> NDArray[np.bool_]:
    """Return for each of `rows`, in any order, whether it is one of `others`."""
    if not len(others):
        return np.zeros(len(rows), dtype=bool)
    places = np.searchsorted(others, rows)
    found: NDArray[np.bool_] = others[np.minimum(places, len(others) - 1)] == rows
    return found
