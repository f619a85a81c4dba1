"""Answers to queries that are near to one that was asked before; only where a caller wants that.

Two queries whose vectors are close find much the same, but not the same: what comes of here is an
answer to another question, and says so.

R remembered queries, M embedding width.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np
from cachetools import LRUCache

from triptych.types import Matrix, Vector

Known = TypeVar("Known")

_SCOPES = 16
_FIRST = 16  # rows to begin with


@dataclass(slots=True)
class _Ring(Generic[Known]):
    vectors_RM: Matrix
    known: list[Known] = field(default_factory=list)
    next: int = 0


class NearQueries(Generic[Known]):
    """The last `most` queries of each scope: all that an answer depends on beside the vector."""

    def __init__(self, *, most: int = 1_000) -> None:
        self._most = most
        self._scopes: LRUCache[Hashable, _Ring[Known]] = LRUCache(_SCOPES)
        self._lock = threading.Lock()

    def find(self, scope: Hashable, vector_M: Vector, *, least: float) -> Known | None:
        """Return what is known of the nearest query, None below the cosine `least`."""
        with self._lock:
            ring = self._scopes.get(scope)
            if ring is None:
                return None
            cosines_R = ring.vectors_RM[: len(ring.known)] @ vector_M
            best = int(np.argmax(cosines_R))
            return ring.known[best] if cosines_R[best] >= least else None

    def add(self, scope: Hashable, vector_M: Vector, known: Known) -> None:
        """Remember a query; the oldest of a full scope makes room."""
        with self._lock:
            ring = self._scopes.get(scope)
            if ring is None:
                first = min(_FIRST, self._most)
                ring = _Ring(np.empty((first, len(vector_M)), dtype=np.float32))
                self._scopes[scope] = ring
            if ring.next == len(ring.vectors_RM) < self._most:
                more = min(2 * ring.next, self._most) - ring.next
                grown = np.empty((more, len(vector_M)), dtype=np.float32)
                ring.vectors_RM = np.concatenate([ring.vectors_RM, grown])
            at = ring.next % self._most
            ring.vectors_RM[at] = vector_M
            ring.known[at : at + 1] = [known]
            ring.next = at + 1
