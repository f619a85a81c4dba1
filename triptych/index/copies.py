"""Vectors that are there more than once, which a graph must not link.

All links of the hundredth copy of a vector lead to other copies: a search that comes upon one never
leaves them again. So only the first is linked, and whoever finds it finds all.

Letters: N vectors by their numbers in an Ann, C copies, K found ones, M embedding width.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from triptych.errors import CollectionDamaged
from triptych.index.base import Positions, Source
from triptych.index.holdout import Holdout

_CHUNK = 8_192
_END = struct.Struct("<8sQ")
_MAGIC = b"TRICOPYS"


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """The numbers of copies, and which earlier number holds the same vector, by the latter."""

    numbers_C: Positions
    firsts_C: Positions

    @classmethod
    def among(cls, source: Source, holdout: Holdout) -> Self:
        """Return the copies in a source; one pass over all vectors."""
        rng = np.random.default_rng(0)
        factors_M = rng.integers(2**64, size=source.dim, dtype=np.uint64) | np.uint64(1)
        hashes_N = np.empty(len(source), dtype=np.uint64)
        for start in range(0, len(source), _CHUNK):
            numbers = np.arange(start, min(start + _CHUNK, len(source)))
            bits = source.gather(holdout.positions_of(numbers)).view(np.uint32)
            hashes_N[numbers] = bits.astype(np.uint64) @ factors_M
        _, first_of_each, which_N = np.unique(hashes_N, return_index=True, return_inverse=True)
        first_N = first_of_each[which_N]
        numbers_C = np.flatnonzero(first_N < np.arange(len(source)))
        numbers_C = numbers_C[np.argsort(first_N[numbers_C], kind="stable")]
        return cls(numbers_C, first_N[numbers_C])

    @classmethod
    def none(cls) -> Self:
        return cls(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))

    @classmethod
    def read(cls, path: Path, count: int) -> Self:
        """Return what `appended` left at the end of a file; none where it left nothing.

        Raises CollectionDamaged where it cannot be about `count` vectors.
        """
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _END.size))
            end = file.read()
            if len(end) < _END.size or end[:8] != _MAGIC:
                return cls.none()
            num = _END.unpack(end)[1]
            fits = num < count and _END.size + 16 * num <= size
            file.seek(-_END.size - 16 * num if fits else 0, 2)
            pairs = np.frombuffer(file.read(16 * num if fits else 0), dtype="<i8")
        if not fits or not ((pairs >= 0) & (pairs < count)).all():
            raise CollectionDamaged(f"The copies named in the index's {path.name} are damaged.")
        return cls(*pairs.reshape(2, num))

    def appended(self) -> bytes:
        """Return what is written after all else in a file; nothing where there are no copies."""
        if not len(self):
            return b""
        pairs = np.stack([self.numbers_C, self.firsts_C]).astype("<i8")
        return pairs.tobytes() + _END.pack(_MAGIC, len(self))

    def __len__(self) -> int:
        return len(self.numbers_C)

    def linked(self, start: int, end: int) -> NDArray[np.bool_]:
        """Return which of these numbers are no copies."""
        linked_N = np.ones(end - start, dtype=bool)
        inside_C = (self.numbers_C >= start) & (self.numbers_C < end)
        linked_N[self.numbers_C[inside_C] - start] = False
        return linked_N

    def with_firsts(self, inside_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return which numbers to look for, so that copies are found that are inside."""
        wider_N = inside_N.copy()
        wider_N[self.firsts_C[inside_N[self.numbers_C]]] = True
        return wider_N

    def expanded(self, found_K: NDArray[Any]) -> Positions:
        """Return each found number with its copies after it."""
        starts_K = np.searchsorted(self.firsts_C, found_K)
        ends_K = np.searchsorted(self.firsts_C, found_K, side="right")
        pieces: list[Positions] = []
        done = 0
        for at in np.flatnonzero(starts_K < ends_K).tolist():
            pieces += found_K[done : at + 1], self.numbers_C[starts_K[at] : ends_K[at]]
            done = at + 1
        return np.concatenate([*pieces, found_K[done:]])
