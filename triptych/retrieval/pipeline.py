"""From a query's vector to hits: candidates, exact cosines, words, tokens, diversity, a page.

    ANN candidates ─► exact cosine ─► fused with BM25 ─► threshold ─► late interaction
                                                        ─► diversity ─► groups ─► page

Every stage but the first is exact. An approximate index finds more when it is asked for more, so
a later page is never cut from a deeper list alone: it goes on where the earlier one ended, and no
hit is shown twice or skipped.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from triptych.filters import MODALITY, Filter
from triptych.index.sqlite.reader import as_rows
from triptych.index.sqlite.records import Record
from triptych.index.sqlite.store import Store
from triptych.retrieval.late import Candidates, Reranker
from triptych.retrieval.live import LiveIndex
from triptych.retrieval.prepare import batches
from triptych.retrieval.ranking import (
    Order,
    Scores,
    first_of_each,
    maximal_marginal_relevance,
    reciprocal_rank_fusion,
    woven,
)
from triptych.retrieval.timing import stage
from triptych.types import Hit, Rows, Vector

_LOADED_AT_ONCE = 64  # token states of so many items in memory
_CANDIDATES = 10
"""Candidates looked at for each hit, where an order other than the cosine's picks among them."""

_WORTH_A_RANK = 0.1
"""Share of the best BM25: a fusion sees ranks only, and below are those that hold a common word."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Request:
    """What a search asks for beside its vector, checked."""

    limit: int = 10
    offset: int = 0
    filter: Filter | None = None
    threshold: float | None = None
    words: str = ""
    hybrid: float = 0.0  # weight of the words' order against the vector's
    rerank: int = 0  # how many of the first are ordered by late interaction
    diversity: float = 0.0
    group_by: str | None = None
    group_size: int = 1
    without: tuple[str, ...] = ()  # the ids that the query names

    @property
    def by_cosine(self) -> bool:
        """Whether the order is the cosine's alone."""
        return not (self.hybrid or self.rerank or self.diversity or self.group_by)


class Match(NamedTuple):
    """A row on its way to a hit."""

    row: int
    score: float
    words: float | None = None
    tokens: float | None = None  # by late interaction


class Pipeline:
    """One search over one state of the store, of which the caller holds a reading."""

    def __init__(
        self,
        store: Store,
        live: LiveIndex,
        request: Request,
        vector_M: Vector,
        reranker: Reranker | None = None,
    ) -> None:
        self._store = store
        self._live = live
        self._asked = request
        self._vector_M = vector_M
        self._reranker = reranker
        self._ids: dict[int, str] = {}  # of those whose order they decided
        self._groups: dict[int, Hashable] = {}  # of those that were looked at
        with stage("filter"):
            self._allowed = None if request.filter is None else store.where(request.filter)
        named = store.rows_of(request.without) if request.without else {}
        self._named = frozenset(named.values())

    def hits(self) -> list[Hit]:
        """Return the page that was asked for; never a damaged record."""
        while True:
            page = self._page()
            with stage("fetch"):
                found, damaged = self._store.records([match.row for match in page])
            if not damaged:
                records = {record.row: record for record in found}
                return [self._hit(records[m.row], m) for m in page if m.row in records]
            self._live.set_aside(damaged)

    def _page(self) -> list[Match]:
        asked = self._asked
        end = asked.offset + asked.limit
        horizon = end if asked.by_cosine and self._live.exact else asked.limit
        shown: dict[int, Match] = {}
        while True:
            order, is_all = self._order(horizon, end)
            for match in order:
                shown.setdefault(match.row, match)
            if asked.group_by is not None:  # a deeper look finds others of a group that is full
                shown = {m.row: m for m in self._grouped([*shown.values()], asked.group_by)}
            if is_all or len(shown) >= end:
                return list(shown.values())[asked.offset : end]
            horizon *= _CANDIDATES

    def _order(self, horizon: int, wanted: int) -> tuple[list[Match], bool]:
        """Return the first `horizon` matches, and whether there are no more.

        Those after the first `wanted` may be left out.
        """
        asked = self._asked
        pool = horizon if asked.by_cosine else max(_CANDIDATES * horizon, asked.rerank)
        found = self._by_cosine(pool)
        is_all = len(found) < pool
        if asked.hybrid:
            with stage("words"):
                found = self._with_words(found, pool)
        if asked.threshold is not None:
            is_all |= not asked.hybrid and bool(found) and found[-1].score < asked.threshold
            found = [match for match in found if match.score >= asked.threshold]
        if self._reranker is not None:
            with stage("rerank"):
                found = self._reranked(found, self._reranker)
        if asked.diversity:
            with stage("diversity"):
                found, is_whole = self._diverse(found, min(horizon, wanted))
            is_all &= is_whole
        if asked.group_by is not None:
            found = self._grouped(found, asked.group_by)
        return found[:horizon], is_all and len(found) <= horizon

    def _by_cosine(self, wanted: int) -> list[Match]:
        with stage("index"):
            rows_K, scores_K = self._live.nearest(
                self._vector_M, wanted + len(self._named), allowed=self._allowed
            )
        order_K = self._in_order(rows_K, scores_K)
        found = zip(rows_K[order_K].tolist(), scores_K[order_K].tolist(), strict=True)
        return [Match(row, score) for row, score in found if row not in self._named][:wanted]

    def _in_order(self, rows_K: Rows, *scores: Scores | Vector) -> Order:
        """Return positions in descending order of the first scores_K, of the next where those are
        equal, and where all are by id: the order of the rows changes with each writing."""
        order_K = np.lexsort([-scores_K for scores_K in reversed(scores)])
        columns = [scores_K[order_K] for scores_K in scores]
        ties = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
        tied_K = np.append(ties, False) | np.append(False, ties)
        if not len(order_K) or not tied_K.any():
            return order_K
        number_K = np.cumsum(np.append(True, ~ties))  # of those that are equal, one
        tied = order_K[tied_K]
        rows = rows_K[tied].tolist()
        self._ids |= self._store.ids_of([row for row in rows if row not in self._ids])
        names = [self._ids.get(row, "") for row in rows]
        keys = zip(number_K[tied_K].tolist(), names, tied.tolist(), strict=True)
        order_K[tied_K] = [at for _, _, at in sorted(keys)]
        return order_K

    def _with_words(self, found: list[Match], wanted: int) -> list[Match]:
        """Return both lists fused; who is in one list only has no rank in the other.

        What has no text, and no word of its metadata that was asked for, cannot be ranked by
        words, which says nothing against it: it keeps its place by cosine.
        """
        rows_K, bm25_K = self._store.words(self._asked.words, wanted, allowed=self._allowed)
        cosines = {match.row: match.score for match in found}
        by_words = self._by_words(rows_K, bm25_K, wanted, cosines)
        share = self._asked.hybrid
        by_cosine = as_rows(match.row for match in found)
        silent = np.setdiff1d(self._store.textless(by_cosine), by_words)
        is_silent = np.isin(by_cosine, silent)
        lists = [by_cosine[~is_silent], by_words]
        judged, sums = reciprocal_rank_fusion(lists, [1 - share, share])
        judged = judged[self._in_order(judged, sums, _each(cosines, judged))]
        order = woven(judged, by_cosine[is_silent], by_cosine, share, due=len(by_words))
        of_those_K = np.isin(rows_K, order)
        bm25 = dict(zip(rows_K[of_those_K].tolist(), bm25_K[of_those_K].tolist(), strict=True))
        return [Match(row, cosines[row], bm25.get(row)) for row in order.tolist()]

    def _by_words(
        self, rows_K: Rows, bm25_K: Vector, wanted: int, cosines: dict[int, float]
    ) -> Rows:
        """Return the rows that BM25 gives a rank, the best first, equal ones by cosine.

        `rows_K` are best first, `wanted` and all that share the last place. `cosines` takes in
        those of the rows that are returned.
        """
        unusable = as_rows([*self._named, *self._live.damaged])
        least = _WORTH_A_RANK * bm25_K.max(initial=0.0)
        is_worth = (bm25_K >= least) & ~np.isin(rows_K, unusable)
        rows_K, bm25_K = rows_K[is_worth], bm25_K[is_worth]
        if len(rows_K) > wanted:
            last = bm25_K[-1]
            better = int(np.count_nonzero(bm25_K > last))
            tied = np.sort(rows_K[better:])
            near, _ = self._live.nearest(self._vector_M, wanted - better, allowed=tied)
            rows_K = np.concatenate([rows_K[:better], near])
            bm25_K = np.append(bm25_K[:better], np.full(len(near), last))
        fresh = as_rows(row for row in rows_K.tolist() if row not in cosines)
        scores = self._live.scores(fresh, self._vector_M)
        cosines |= dict(zip(fresh.tolist(), scores.tolist(), strict=True))
        return rows_K[self._in_order(rows_K, bm25_K, _each(cosines, rows_K))][:wanted]

    def _reranked(self, found: list[Match], reranker: Reranker) -> list[Match]:
        """Return the first as the reranker has them; then those without tokens, then the rest."""
        head, rest = found[: self._asked.rerank], found[self._asked.rerank :]
        scored: list[Match] = []
        without: list[Match] = []
        seen = [np.empty(0, dtype=np.float32)]
        for part in batches(head, _LOADED_AT_ONCE):
            loaded = self._store.token_states([match.row for match in part])
            self._live.set_aside(loaded.damaged)
            known = [match for match in part if match.row in loaded.states]
            modalities = self._store.modalities([match.row for match in known])
            states = [loaded.states[match.row] for match in known]
            kinds = [modalities[match.row] for match in known]
            seen.append(reranker.look(Candidates(states, kinds)))
            scored += known
            there = loaded.states.keys() | loaded.damaged.keys()
            without += [match for match in part if match.row not in there]
        cosines_K = np.array([match.score for match in scored], dtype=np.float32)
        scores_K = reranker.decide(cosines_K, np.concatenate(seen))
        scored = [m._replace(tokens=s) for m, s in zip(scored, scores_K.tolist(), strict=True)]
        scored.sort(key=lambda match: match.tokens or 0.0, reverse=True)
        return [*scored, *without, *rest]

    def _diverse(self, found: list[Match], limit: int) -> tuple[list[Match], bool]:
        """Return the most various first, and whether those are all; only those reranked, if any.

        A full group takes part no more: else a search for more groups than there are would choose
        among all items, one after the other.
        """
        groups = None
        if self._asked.group_by is not None:
            found, groups = self._with_groups(found, self._asked.group_by)
        num = sum(match.tokens is not None for match in found) or len(found)
        first, rest = found[:num], found[num:]
        vectors_KM = self._live.vectors(as_rows(match.row for match in first))
        scores = [match.score if match.tokens is None else match.tokens for match in first]
        chosen = maximal_marginal_relevance(
            vectors_KM,
            np.array(scores, dtype=np.float32),
            limit,
            self._asked.diversity,
            groups=groups and groups[:num],
            size=self._asked.group_size,
        )
        is_whole = len(chosen) < limit or limit >= num
        return [*(first[at] for at in chosen), *(rest if is_whole else ())], is_whole

    def _grouped(self, found: list[Match], field: str) -> list[Match]:
        found, groups = self._with_groups(found, field)
        return [found[at] for at in first_of_each(groups, self._asked.group_size)]

    def _with_groups(
        self, found: list[Match], field: str
    ) -> tuple[list[Match], list[Hashable | None]]:
        """Return those that are whole, and the name of each one's group."""
        fresh = [match.row for match in found if match.row not in self._groups]
        records, damaged = self._store.records(fresh)
        self._live.set_aside(damaged)
        self._groups |= {record.row: _group(record, field) for record in records}
        found = [match for match in found if match.row in self._groups]
        return found, [self._groups[match.row] for match in found]

    def _hit(self, record: Record, match: Match) -> Hit:
        return Hit(
            id=record.id,
            score=match.score,
            metadata=record.metadata,
            uri=record.uri,
            text=record.text,
            modality=record.modality,
            found="+".join(self._ways(match)),
            words=match.words,
        )

    def _ways(self, match: Match) -> Iterator[str]:
        yield self._live.kind
        if match.words is not None:
            yield "words"
        if match.tokens is not None:
            yield "rerank"


def _each(cosines: Mapping[int, float], rows_K: Rows) -> Scores:
    return np.array([cosines[row] for row in rows_K.tolist()], dtype=np.float64)


def _group(record: Record, field: str) -> Hashable:
    """Return the name of an item's group; the field is named as in a filter."""
    value = record.modality if field == MODALITY else _at(record.metadata, field)
    # a tuple, so that no text is taken for a list that reads the same
    return (json.dumps(value, sort_keys=True),) if isinstance(value, list | dict) else value


def _at(metadata: Mapping[str, Any], path: str) -> Any:
    """Return what a path leads to, None where it leads nowhere; a name may have dots itself."""
    if path in metadata:
        return metadata[path]
    inner = (
        _at(value, path[len(name) + 1 :])
        for name, value in metadata.items()
        if isinstance(value, dict) and path.startswith(f"{name}.")
    )
    return next((value for value in inner if value is not None), None)
