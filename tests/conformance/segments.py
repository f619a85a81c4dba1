"""SegmentedIndex in the shapes that it takes in use, behind the constructor that the suite calls."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from triptych.index import ANNS
from triptych.index.base import checked_vectors, halved, widened
from triptych.index.rowfile import RowFile
from triptych.index.segments import Base, Knobs, SegmentedIndex
from triptych.types import Precision

MOST = 1_000_000
"""An effort that leaves nothing out; what is asked for so much is not scanned instead."""

FEWEST = 64  # below, nothing can be trained
SHAPES = ("base", "delta", "both")


class Unscanned(RowFile):
    """Rows that only an Ann finds."""

    def best(self, query_M: Any, k: int, positions_N: Any) -> Any:
        assert not k, "they were scanned: no Ann was asked, or it did not find enough"
        return super().best(query_M, k, positions_N)

    def best_of_all(self, query_M: Any, k: int, *, without: Any = None) -> Any:
        assert not k, "they were scanned: no Ann was asked, or it did not find enough"
        return super().best_of_all(query_M, k, without=without)


def based(rows: Any, matrix: Any, kind: str, precision: Precision, knobs: Knobs) -> Base:
    """Return a base of these rows, with its Ann where there are enough of them."""
    with tempfile.TemporaryDirectory() as folder:  # what is mapped outlives its name
        path = Path(folder) / "rows"
        order = np.argsort(rows)
        RowFile.write(
            path, [(rows[order], matrix[order])], dim=matrix.shape[1], precision=precision
        )
        if kind == "flat" or len(rows) < FEWEST:
            return Base(kind, RowFile.open(path), None, knobs)
        file = (Unscanned if knobs.effort == MOST else RowFile).open(path)
    ann = ANNS.resolve(kind).build(kind, file, threads=1, cancelled=lambda: False)
    return Base(kind, file, ann, knobs)


class Composed(SegmentedIndex):
    """Moves what is added into a base: all of it, none of it, or every other row and a dead one."""

    ann = "flat"
    shape = "both"
    precision: Precision = "fp32"
    refine = MOST

    def __init__(self, dim: int, base: Base | None = None) -> None:
        super().__init__(dim, base)
        self._num_adds = 0

    def kept(self, vector: Any) -> Any:
        unit = checked_vectors(np.asarray(vector)[None], self.dim)
        return (unit if self.precision == "fp32" else widened(halved(unit)))[0]

    def add(self, rows_N: Any, vectors_NM: Any) -> None:
        vectors_NM = checked_vectors(vectors_NM, self.dim)
        super().add(rows_N, [self.kept(v) for v in vectors_NM] if len(vectors_NM) else vectors_NM)
        self._num_adds += 1
        if self.shape != "delta" and self._num_adds % 3 == 1 and len(self):
            self._rebase()

    def _rebase(self) -> None:
        rows = self.rows()
        matrix = self.vectors_of(rows)
        dead = int(rows[-1]) + 1
        inside = slice(None) if self.shape == "base" else slice(None, None, 2)
        base = based(
            np.append(rows[inside], dead),
            np.concatenate([matrix[inside], matrix[:1]]),
            self.ann,
            self.precision,
            Knobs(effort=MOST, refine=self.refine),
        )
        SegmentedIndex.__init__(self, self.dim, base)
        self.remove(np.array([dead]))
        new = np.setdiff1d(rows, rows[inside])
        super().add(new, matrix[np.searchsorted(rows, new)])


def composed(
    ann: str, shape: str, precision: str = "fp32", *, refine: int = MOST
) -> type[Composed]:
    """Return the class of one composition."""
    fields = {"ann": ann, "shape": shape, "precision": precision, "refine": refine}
    return type("Composed", (Composed,), fields)
