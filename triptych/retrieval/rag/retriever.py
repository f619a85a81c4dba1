"""Questions to passages with citations: the retriever of an LLM application.

retriever = triptych.Retriever(triptych.open("handbook"))
retriever.add("docs/")
context = retriever.context("How is a filter written?", budget=2000)
llm(context.prompt)
for citation in context.citations:
    print(citation, citation.text())
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych.errors import InvalidInput
from triptych.filters import Filter, parse_filter, to_json
from triptych.retrieval.arguments import share, whole
from triptych.retrieval.query import build_query
from triptych.retrieval.rag.context import Context, pack
from triptych.retrieval.rag.intake import DocumentReport, IntakeOptions, index_documents
from triptych.retrieval.rag.links import linked
from triptych.retrieval.rag.pagerank import personalised_pagerank
from triptych.retrieval.rag.passage import Passage, in_one_list
from triptych.retrieval.rag.searchable import Searchable
from triptych.retrieval.rag.tokens import CountTokens, count_tokens
from triptych.types import Hit, ImageSource, Part, Query

AnyQuery = str | Query | Part | Sequence[Part]
AnyFilter = Filter | Mapping[str, Any] | str
_PICTURES = {"_modality": {"$in": ["image", "both"]}}
_REST = {"_modality": {"$nin": ["image", "both"]}}


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrieverConfig:
    """How a retriever searches, where a call does not say otherwise."""

    words: float = 0.5  # the share of BM25 in the order; 0: vectors alone
    expand: float = 0.5  # the share of steps along links and citations; 0: none is followed
    candidates: int = 50  # that are looked at, and from which the walk along links begins
    gap: float = 0.0  # added to pictures' cosines, for a model that keeps them apart from texts
    names: str = "names"  # the metadata field of what others call an item
    links: str = "links"  # ... and of what it calls others

    def __post_init__(self) -> None:
        share("words", self.words)
        whole("candidates", self.candidates, least=1)
        if not 0 <= self.expand < 1:
            raise InvalidInput(f"expand is in 0..1, not 1, got {self.expand!r}.")


class Retriever:
    """Finds passages and pictures in a collection, one that is here or one of a server."""

    def __init__(self, collection: Searchable, config: RetrieverConfig | None = None) -> None:
        self.collection = collection
        self.config = config or RetrieverConfig()

    def add(self, source: str | Path, options: IntakeOptions | None = None) -> DocumentReport:
        """Take in a folder of documents, or one; again: only what changed. See index_documents."""
        return index_documents(self.collection, source, options)

    def retrieve(
        self,
        query: AnyQuery | None = None,
        *,
        image: ImageSource | None = None,
        limit: int = 10,
        filter: AnyFilter | None = None,
        words: float | None = None,
        expand: float | None = None,
        without: Iterable[str] = (),
    ) -> list[Passage]:
        """Return passages and pictures in one list, the best first.

        `words` and `expand` as in the config. What `without` names is treated as if it were not
        stored: neither found, nor are its links followed. Raises what `Collection.search` does.
        """
        whole("limit", limit, least=1)
        config, left_out = self.config, frozenset(without)
        asked = build_query(query, image=image)
        parsed = parse_filter(filter)
        search = _Search(
            self.collection,
            asked,
            None if parsed is None else json.loads(to_json(parsed)),
            left_out,
            _share_of_words(asked, config.words if words is None else words),
        )
        walk = config.expand if expand is None else expand
        pool = max(limit, config.candidates)
        found = in_one_list(search(_REST, pool), search(_PICTURES, pool), gap=config.gap)
        if not walk or not found:
            return [Passage.of(hit) for hit in found[:limit]]
        return self._walked(search, found, walk)[:limit]

    def context(
        self,
        query: AnyQuery | None = None,
        *,
        budget: int = 2_000,
        count_tokens: CountTokens = count_tokens,
        limit: int = 20,
        **how: Any,
    ) -> Context:
        """Return what to give to a language model: sources within `budget` tokens, with citations.

        `how` is as in `retrieve`; `count_tokens` is the language model's own count, if known.
        """
        found = self.retrieve(query, limit=limit, **how)
        parts = () if query is None else build_query(query).parts
        said = " ".join(part.text for part in parts if part.text is not None and part.weight > 0)
        return pack(found, budget=budget, count_tokens=count_tokens, question=said)

    def picture(self, passage: Passage) -> bytes | None:
        """Return a small JPEG of a picture that was found, to show it, or to a model that sees."""
        return self.collection.thumbnail(passage.id)

    def _walked(self, search: _Search, found: list[Hit], walk: float) -> list[Passage]:
        """Return what the walk along links from what was found comes by most often."""
        config, listed = self.config, {hit.id: hit for hit in found}
        first = found[: config.candidates]
        known = {hit.id: hit for hit in first}
        edges = linked(known, search, names=config.names, links=config.links)
        start = {hit.id: 1.0 / rank for rank, hit in enumerate(first, 1)}
        visits = personalised_pagerank(edges, start, walk=walk)
        order = sorted(visits, key=lambda id: (-visits[id], id))
        rest = [hit for hit in found if hit.id not in visits]
        return [
            *(Passage.of(known[id], found=None if id in listed else "link") for id in order),
            *map(Passage.of, rest),
        ]


class _Search:
    """One query asked with several filters."""

    def __init__(
        self,
        collection: Searchable,
        asked: Query,
        filter: Mapping[str, Any] | None,
        without: frozenset[str],
        words: float,
    ) -> None:
        self._collection = collection
        self._asked = asked
        self._filter = filter
        self._without = without
        self._words = words

    def __call__(
        self, filter: Mapping[str, Any], limit: int, *, by_words: bool = True
    ) -> list[Hit]:
        """Return the best hits that match both filters."""
        both = filter if self._filter is None else {"$and": [self._filter, filter]}
        hits = self._collection.search(
            self._asked,
            filter=both,
            limit=limit + len(self._without),
            hybrid=self._words if by_words else 0.0,
        )
        return [hit for hit in hits if hit.id not in self._without][:limit]


def _share_of_words(asked: Query, wanted: float) -> float:
    has_words = any(part.text is not None and part.weight > 0 for part in asked.parts)
    return share("words", wanted) if has_words else 0.0
