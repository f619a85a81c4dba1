"""The links around what a search found: what it names, and what names it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from triptych.types import Hit, Metadata

_MOST = 500  # items that one step brings in, the nearest to the query


class Ask(Protocol):
    def __call__(
        self, filter: Mapping[str, Any], limit: int, *, by_words: bool = True
    ) -> list[Hit]: ...


def linked(known: dict[str, Hit], ask: Ask, *, names: str, links: str) -> set[tuple[str, str]]:
    """Return the links between the items in `known`, to which their neighbours are added.

    An item is called by its id and by what its metadata field `names` holds; `links` holds what it
    calls. Two questions to the collection, however many items there are.
    """
    called = {name for hit in known.values() for name in _listed(hit.metadata, links)}
    own = {name for hit in known.values() for name in _names(hit, names)}
    fresh: list[Hit] = []
    for field, wanted in ((names, called - own), (links, own)):
        if wanted:
            fresh += ask({field: {"$in": sorted(wanted)}}, _MOST, by_words=False)
    for hit in fresh:
        known.setdefault(hit.id, hit)
    owners: defaultdict[str, list[str]] = defaultdict(list)
    for hit in known.values():
        for name in _names(hit, names):
            owners[name].append(hit.id)
    return {
        (hit.id, owner)
        for hit in known.values()
        for name in _listed(hit.metadata, links)
        for owner in owners.get(name, ())
    }


def _names(hit: Hit, field: str) -> Iterable[str]:
    return {hit.id, *_listed(hit.metadata, field)}


def _listed(metadata: Metadata, field: str) -> list[str]:
    value = metadata.get(field)
    if isinstance(value, str):
        return [value]
    return [name for name in value if isinstance(name, str)] if isinstance(value, list) else []
