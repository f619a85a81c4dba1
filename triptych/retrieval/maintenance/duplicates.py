"""Which items are the same, and which are nearly so. Nothing is changed.

Letters: N items, M embedding width, K neighbours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from triptych.errors import InvalidInput
from triptych.index.base import exact_scores
from triptych.index.sqlite.records import Picture, Record
from triptych.index.sqlite.store import Store
from triptych.retrieval.live import LiveIndex
from triptych.types import Matrix, Rows, Vector

_CHUNK = 1024
_NEIGHBOURS = 16
_MOST_NEIGHBOURS = 1024
_DOUBT = 1e-5  # float32 products are off by less
_KEY = "S16"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """An item of a group; `score` is its cosine to the member that it is nearest to."""

    id: str
    uri: str | None
    score: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Items that are alike, in the order in which they were added."""

    members: tuple[Member, ...]


def duplicates(store: Store) -> list[Group]:
    """Return the groups of items with the same content, those that came first in front.

    Pictures are compared by the hash of their file, or of the bytes that were sent and kept, where
    it is known; everything else by its vector and text, both exactly. Metadata, ids and addresses
    may differ.
    """
    with store.reading():
        rows_N, group_N = _by_content(store)
        return [_group(store, rows, {}) for rows in _grouped(rows_N, group_N)]


def similar(store: Store, live: LiveIndex, threshold: float = 0.97) -> list[Group]:
    """Return groups whose members are linked by cosines of at least `threshold`.

    Of items with the same content the first stands for all. An approximate index misses the
    links that it does not find. Where more than 1,024 items are this close to one, only the
    nearest of them are linked to it, and the rest by each other. Raises InvalidInput outside of
    0 < threshold <= 1.
    """
    if not 0 < threshold <= 1:
        raise InvalidInput(f"A threshold is above 0 and at most 1, got {threshold!r}.")
    with live.gate, store.reading():
        live.refresh()
        rows_N, group_N = _by_content(store)
        _, first = np.unique(group_N, return_index=True)
        rows_N = np.intersect1d(rows_N[first], live.rows(), assume_unique=True)
        union = _Union(len(rows_N))
        best_N = np.full(len(rows_N), -1.0, dtype=np.float32)
        pairs = _pairs_by_scan if live.exact else _pairs_by_search
        for a_K, b_K, scores_K in pairs(live, rows_N, threshold):
            np.maximum.at(best_N, a_K, scores_K)
            np.maximum.at(best_N, b_K, scores_K)
            union.join(a_K, b_K)
        scores = dict(zip(rows_N.tolist(), best_N.tolist(), strict=True))
        return [
            _group(store, rows, scores)
            for rows in _grouped(rows_N, union.roots(np.arange(len(rows_N))))
        ]


class _Union:
    """Disjoint sets of 0..N-1, each named by its least member."""

    def __init__(self, count: int) -> None:
        self._parent_N = np.arange(count)

    def join(self, a_K: Rows, b_K: Rows) -> None:
        """Put a and b of each pair into one set."""
        while True:
            a_K, b_K = self.roots(a_K), self.roots(b_K)
            apart_K = a_K != b_K
            if not apart_K.any():
                return
            a_K, b_K = a_K[apart_K], b_K[apart_K]
            np.minimum.at(self._parent_N, np.maximum(a_K, b_K), np.minimum(a_K, b_K))

    def roots(self, at_K: Rows) -> Rows:
        """Return the names of the sets that these are in."""
        found_K = at_K
        while ((above_K := self._parent_N[found_K]) != found_K).any():
            found_K = above_K
        self._parent_N[at_K] = found_K
        return found_K


def _by_content(store: Store) -> tuple[Rows, Rows]:
    """Return all rows, and for each the number of its content."""
    rows_N = store.rows()
    keys_N = np.empty(len(rows_N), dtype=_KEY)
    kept_N = np.zeros(len(rows_N), dtype=bool)
    for at in range(0, len(rows_N), _CHUNK):
        chunk = rows_N[at : at + _CHUNK]
        records, _ = store.records(chunk.tolist())
        loaded, sent = store.load(chunk), store.pictures(chunk.tolist())
        vectors = dict(zip(loaded.rows_N.tolist(), loaded.vectors_NM, strict=True))
        for record in records:
            if record.row in vectors:
                place = at + int(np.searchsorted(chunk, record.row))
                keys_N[place] = _key(record, vectors[record.row], sent.get(record.row))
                kept_N[place] = True
    _, group_N = np.unique(keys_N[kept_N], return_inverse=True)
    return rows_N[kept_N], group_N


def _key(record: Record, vector_M: Vector, sent: Picture | None) -> bytes:
    """Return 16 bytes that are equal for equal content, and do not end in zero."""
    seen = vector_M.tobytes()
    if sent is not None:
        seen = sent.sha256.encode()
    elif record.modality in ("image", "both") and record.content is not None:
        seen = record.content.partition("-")[0].encode()
    digest = hashlib.blake2b(seen, digest_size=15)
    if record.text is not None:
        digest.update(b"\0" + record.text.encode("utf-8", "surrogatepass"))
    return digest.digest() + b"."  # numpy drops zeros at the end


def _grouped(rows_N: Rows, group_N: Rows) -> list[list[int]]:
    """Return the rows of each group of two or more, ascending, by their first."""
    order = np.argsort(group_N, kind="stable")
    ends = np.flatnonzero(np.diff(group_N[order])) + 1
    groups = [rows.tolist() for rows in np.split(rows_N[order], ends) if len(rows) > 1]
    return sorted(groups)


def _group(store: Store, rows: Sequence[int], scores: dict[int, float]) -> Group:
    records, _ = store.records(rows)
    return Group(
        members=tuple(
            Member(id=one.id, uri=one.uri, score=scores.get(one.row, 1.0)) for one in records
        )
    )


def _pairs_by_scan(
    live: LiveIndex, rows_N: Rows, threshold: float
) -> Iterator[tuple[Rows, Rows, Vector]]:
    """Yield positions of pairs and their cosines, each pair once: block against block."""
    starts = range(0, len(rows_N), _CHUNK)
    for first in starts:
        left_NM = live.vectors(rows_N[first : first + _CHUNK])
        for second in range(first, len(rows_N), _CHUNK):
            right_NM = live.vectors(rows_N[second : second + _CHUNK])
            rough_NN = left_NM @ right_NM.T
            a_K, b_K = np.nonzero(rough_NN >= threshold - _DOUBT)
            apart = a_K + first < b_K + second
            a_K, b_K = a_K[apart], b_K[apart]
            scores_K = _cosines(left_NM, right_NM, a_K, b_K)
            near = scores_K >= np.float32(threshold)
            yield a_K[near] + first, b_K[near] + second, scores_K[near]


def _cosines(left_NM: Matrix, right_NM: Matrix, a_K: Rows, b_K: Rows) -> Vector:
    scores_K = np.empty(len(a_K), dtype=np.float32)
    for a in np.unique(a_K):
        of_a = a_K == a
        scores_K[of_a] = exact_scores(right_NM[b_K[of_a]], left_NM[a])
    return scores_K


def _pairs_by_search(
    live: LiveIndex, rows_N: Rows, threshold: float
) -> Iterator[tuple[Rows, Rows, Vector]]:
    """Yield for each row its position and those of its neighbours, with their cosines."""
    for start in range(0, len(rows_N), _CHUNK):
        vectors_NM = live.vectors(rows_N[start : start + _CHUNK])
        for at, vector_M in enumerate(vectors_NM, start):
            wanted = _NEIGHBOURS
            while True:
                found_K, scores_K = live.nearest(vector_M, wanted)
                inside = bool(len(found_K)) and scores_K[-1] >= threshold
                if not inside or len(found_K) < wanted or wanted >= _MOST_NEIGHBOURS:
                    break
                wanted *= 4
            near = (scores_K >= np.float32(threshold)) & np.isin(found_K, rows_N)
            there_K = np.searchsorted(rows_N, found_K[near])
            others = there_K != at
            there_K = there_K[others]
            yield np.full(len(there_K), at), there_K, scores_K[near][others]
