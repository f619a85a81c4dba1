"""The collection as the harness uses it, and the check that everything else ends in."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tests.crash.oracle import (
    DIM,
    LARGE,
    QUERIES,
    Call,
    State,
    item,
    metadata,
    name,
    number_of,
    text,
    vector,
)
from triptych.encoders.vectors import CallerVectors
from triptych.errors import NotAvailable
from triptych.index.sqlite import database
from triptych.retrieval.collection import Collection

# what a store, its log and an index may be made of, scratch files of one kill included
MOST_FILES = 16
_TOLERANCE = 2e-6

# the store's file grows ahead of need, by a hundred writes of zeros that are all alike
assert hasattr(database, "_PAGES_AHEAD")
database._PAGES_AHEAD = 2


def open_collection(folder: Path, kind: str, *, name: str = "crash") -> Collection:
    return Collection.open(folder, embedder=CallerVectors(name, DIM), index=kind)


def perform(collection: Collection, call: Call) -> None:
    """Do it; the verbs without a branch of their own are methods without arguments."""
    if call.verb in ("add", "upsert"):
        getattr(collection, call.verb)([item(*one) for one in call.items])
    elif call.verb == "delete":
        assert collection.delete([name(number) for number in call.numbers]) == len(call.numbers)
    elif call.verb == "search":
        collection.search(vector=QUERIES[0], limit=10)
    else:
        getattr(collection, call.verb)()


@dataclass(slots=True)
class Wrong:
    """Collects what is wrong, instead of stopping at the first."""

    found: list[str] = field(default_factory=list)

    def unless(self, fine: bool, message: str | Callable[[], str]) -> None:
        if not fine:
            self.found.append(message if isinstance(message, str) else message())


def observed(collection: Collection, numbers: Sequence[int], wrong: Wrong) -> State:
    """Return numbers and versions as `get` tells them, each item compared whole."""
    state: State = {}
    held = []
    records = collection.get([name(number) for number in numbers])
    for number, record in zip(numbers, records, strict=True):
        if record is None:
            continue
        version = state[number] = int(record.metadata["version"])
        held.append(record.id)
        wrong.unless(
            (record.id, record.text, record.metadata)
            == (name(number), text(number, version), metadata(number, version)),
            lambda record=record: f"get: {record.id} is {record.text!r}, {record.metadata}",
        )
    if held:
        stored_NM = collection.vectors(held)
        expected_NM = np.stack([vector(*one) for one in state.items()])
        off_N = np.abs(stored_NM - expected_NM).max(axis=1) > _TOLERANCE
        wrong.unless(not off_N.any(), lambda: f"vectors: not those of {np.array(held)[off_N]}")
    return state


def check(
    collection: Collection, possible: Sequence[State], *, most: int = LARGE
) -> dict[str, Any]:
    """Return which state it is in and all that contradicts that; every way to ask must agree."""
    wrong = Wrong()
    known = sorted({number for state in possible for number in state} | set(range(most)))
    state = observed(collection, known, wrong)
    wrong.unless(state in list(possible), lambda: _difference(state, possible))
    wrong.unless(
        collection.count() == len(state), lambda: f"count {collection.count()}, get {len(state)}"
    )
    for query_M in QUERIES[:2]:
        _check_ranking(collection, query_M, state, wrong)
    _check_each_is_found(collection, state, wrong)
    _check_filter(collection, state, wrong)
    damaged = collection.info()["damaged"]
    wrong.unless(not damaged, f"info: damaged {damaged}")
    return {"state": {str(n): v for n, v in sorted(state.items())}, "wrong": wrong.found}


def _difference(state: State, possible: Sequence[State]) -> str:
    told = []
    for each in possible:
        lost = sorted(set(each) - set(state))
        back = sorted(set(state) - set(each))
        other = sorted(n for n in set(state) & set(each) if state[n] != each[n])
        told.append(f"lost {lost}, came back {back}, another version of {other}")
    return "items: " + "; or ".join(told)


def _check_ranking(collection: Collection, query_M: Any, state: State, wrong: Wrong) -> None:
    hits = collection.search(vector=query_M, limit=10_000)
    found = {number_of(hit.id): hit.score for hit in hits}
    wrong.unless(
        len(found) == len(hits) and set(found) == set(state),
        lambda: f"search: {sorted(set(found) ^ set(state))} are found but not stored, or not found",
    )
    for hit in hits:
        number = number_of(hit.id)
        version = state.get(number)
        if version is None:
            continue
        score = float(vector(number, version).astype(np.float64) @ query_M.astype(np.float64))
        wrong.unless(
            abs(score - hit.score) < _TOLERANCE,
            lambda hit=hit, score=score: f"search: {hit.id} scores {hit.score}, expected {score}",
        )
        wrong.unless(
            hit.metadata == metadata(number, version) and hit.text == text(number, version),
            lambda hit=hit: f"search: {hit.id} comes with {hit.text!r}, {hit.metadata}",
        )
    scores = [hit.score for hit in hits]
    wrong.unless(scores == sorted(scores, reverse=True), "search: not in the order of the scores")


def _check_each_is_found(collection: Collection, state: State, wrong: Wrong) -> None:
    chosen = sorted(state)
    if len(chosen) > 60:  # which ones differs from state to state
        chosen = random.Random(len(state) * 1000 + sum(state.values())).sample(chosen, 60)
    for number in chosen:
        hits = collection.search(vector=vector(number, state[number]), limit=1)
        fine = bool(hits) and hits[0].id == name(number) and abs(hits[0].score - 1) < _TOLERANCE
        wrong.unless(fine, lambda number=number, hits=hits: f"search for {name(number)}: {hits}")


def _check_filter(collection: Collection, state: State, wrong: Wrong) -> None:
    kept = {
        "even": ({"even": True}, {n for n in state if n % 2 == 0}),
        "late": ({"version": {"$gte": 64}}, {n for n, version in state.items() if version >= 64}),
    }
    for told, (filter, expected) in kept.items():
        try:
            hits = collection.search(vector=QUERIES[0], limit=10_000, filter=filter)
        except NotAvailable:
            return
        differ = {number_of(hit.id) for hit in hits} ^ expected
        wrong.unless(not differ, f"filter {told}: {sorted(differ)} are wrong")


def files(folder: Path) -> list[str]:
    """Return what lies in the folder, for a look at what piles up."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def answers(collection: Collection) -> list[Any]:
    """Return what can be compared with another time or a copy: every query that is cheap to ask."""
    found: list[Any] = [collection.count()]
    hits = collection.search(vector=QUERIES[2], limit=10_000)
    found.append([[h.id, round(h.score, 5), h.text, dict(h.metadata)] for h in hits])
    ids = [one[0] for one in found[1]]
    for record in collection.get(ids):
        found.append(record and [record.id, record.text, dict(record.metadata)])
    if ids:
        found.append(np.round(collection.vectors(ids), 5).tolist())
    try:
        hits = collection.search(vector=QUERIES[0], limit=5, filter={"even": True})
        found.append([hit.id for hit in hits])
    except NotAvailable:
        found.append(None)
    return found
