"""The collection as the harness uses it, and the check that everything else ends in."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import apsw
import numpy as np

from tests.crash.oracle import (
    DIM,
    LARGE,
    QUERIES,
    Call,
    State,
    alike,
    item,
    metadata,
    name,
    number_of,
    text,
    vector,
)
from triptych.errors import NotAvailable
from triptych.index.sqlite import database
from triptych.index.sqlite.meta import Meta, Space
from triptych.index.sqlite.pages import CHECKED
from triptych.retrieval import collection as module
from triptych.retrieval.collection import Collection
from triptych.retrieval.folder import STORE, open_store
from triptych.retrieval.maintenance.migrate import migrate
from triptych.retrieval.maintenance.portable import export_collection, import_collection
from triptych.retrieval.maintenance.repair import repair
from triptych.retrieval.maintenance.verify import verify
from triptych.types import Item, Matrix

_TOLERANCE = 2e-6

_SAID = re.compile(r"number(\d+) version(\d+)")


def adapt() -> None:
    """Change two of the product's numbers for the harness, in the process that runs its jobs."""
    # the store's file grows ahead of need, by a hundred writes of zeros that are all alike
    assert hasattr(database, "_PAGES_AHEAD")
    database._PAGES_AHEAD = 2
    # a call is one batch, all of it or nothing
    assert hasattr(module, "_BATCH_EMBEDDED")
    module._BATCH_EMBEDDED = 2048


class Known:
    """One of two models; what it makes of an item is known: its vector, and a state like it."""

    dim = token_width = DIM
    languages: tuple[str, ...] = ()

    def __init__(self, number: int) -> None:
        self.name = self.fingerprint = f"known:{number}"
        self._number = number

    def embed(self, items: Sequence[Item]) -> Matrix:
        return np.stack([self._vector(item.text) for item in items])

    def token_states(self, items: Sequence[Item]) -> list[Matrix]:
        return [self._vector(item.text)[None] for item in items]

    def _vector(self, said: str | None) -> Any:
        found = _SAID.search(said or "")
        assert found is not None
        return vector(int(found[1]), int(found[2]), self._number)


def model_of(meta: Meta | Space) -> Known:
    return Known(int(meta.model[-1]))


def open_collection(folder: Path, kind: str) -> Collection:
    known = Collection.peek(folder)
    embedder = Known(0) if known is None else model_of(known)
    return Collection.open(folder, embedder=embedder, index=kind, tokens=True, model_of=model_of)


def perform(collection: Collection, call: Call) -> None:
    """Do it; the verbs without a branch of their own are methods without arguments."""
    if call.verb.startswith("migrate"):
        migrate(collection, Known(int(call.verb[-1])))
    elif call.verb in ("export", "import"):
        assert collection.folder is not None
        {"export": export, "import": import_again}[call.verb](collection.folder)
    elif call.verb in ("add", "upsert"):
        getattr(collection, call.verb)([item(*one) for one in call.items])
    elif call.verb == "delete":
        assert collection.delete([name(number) for number in call.numbers]) == len(call.numbers)
    elif call.verb == "search":
        collection.search(vector=QUERIES[0], limit=10)
    else:
        getattr(collection, call.verb)()


def archive_of(folder: Path) -> Path:
    return folder.with_name("archive")


def copy_of(folder: Path) -> Path:
    return folder.with_name("copy")


def export(folder: Path) -> None:
    """Write the archive anew, beside those who use the collection."""
    store = open_store(folder)
    try:
        export_collection(store, archive_of(folder), replace=True)
    finally:
        store.close()


def import_again(folder: Path) -> None:
    """Make the copy anew from the archive, where there is one."""
    copy, trash = copy_of(folder), folder.with_name("trash")
    shutil.rmtree(trash, ignore_errors=True)
    if not archive_of(folder).exists():
        return
    if copy.exists():
        copy.rename(trash)
        shutil.rmtree(trash)
    import_collection(archive_of(folder), copy)


def damage_and_repair(folder: Path) -> None:
    """Put something into the closed store that makes `repair` write all of it anew."""
    for kept in folder.glob(f"{STORE}.damaged-*"):
        kept.unlink()
    connection = apsw.Connection(str(folder / STORE), vfs=CHECKED)
    connection.execute("INSERT OR IGNORE INTO thumbnails VALUES (1000000000, x'00', x'00')")
    connection.close()
    done = repair(verify(folder))
    assert done.kept is not None and done.complete, done


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
        model = searched(collection)
        expected_NM = np.stack([vector(*one, model) for one in state.items()])
        off_N = np.abs(stored_NM - expected_NM).max(axis=1) > _TOLERANCE
        wrong.unless(not off_N.any(), lambda: f"vectors: not those of {np.array(held)[off_N]}")
        rows = collection._store.rows_of(held)
        states = collection._store.token_states(list(rows.values())).states
        for id, expected_M in zip(held, expected_NM, strict=True):
            found = states.get(rows.get(id, 0))
            fine = found is not None and np.abs(found[0] - expected_M).max() < 0.01
            wrong.unless(fine, lambda id=id: f"states: not those of {id}")
    return state


def searched(collection: Collection) -> int:
    """Return which of the two models is searched."""
    return int(collection.embedder.name[-1])


def check(
    collection: Collection,
    possible: Sequence[State],
    *,
    models: Sequence[int] = (0, 1),
    most: int = LARGE,
) -> dict[str, Any]:
    """Return which state it is in and all that contradicts that; every way to ask must agree."""
    wrong = Wrong()
    known = sorted({number for state in possible for number in state} | set(range(most)))
    state = observed(collection, known, wrong)
    wrong.unless(state in list(possible), lambda: _difference(state, possible))
    wrong.unless(
        collection.count() == len(state), lambda: f"count {collection.count()}, get {len(state)}"
    )
    model = searched(collection)
    wrong.unless(model in models, lambda: f"model {model}, expected one of {models}")
    for query_M in QUERIES[:2]:
        _check_ranking(collection, query_M, state, wrong)
    _check_each_is_found(collection, state, wrong)
    _check_filter(collection, state, wrong)
    damaged = collection.info()["damaged"]
    wrong.unless(not damaged, f"info: damaged {damaged}")
    found = {str(n): v for n, v in sorted(state.items())}
    return {"state": found, "model": model, "wrong": wrong.found}


def _difference(state: State, possible: Sequence[State]) -> str:
    told = []
    for each in possible:
        lost = sorted(set(each) - set(state))
        back = sorted(set(state) - set(each))
        other = sorted(n for n in set(state) & set(each) if state[n] != each[n])
        told.append(f"lost {lost}, came back {back}, another version of {other}")
    return "items: " + "; or ".join(told)


def _check_ranking(collection: Collection, query_M: Any, state: State, wrong: Wrong) -> None:
    hits, model = collection.search(vector=query_M, limit=10_000), searched(collection)
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
        made_M = vector(number, version, model).astype(np.float64)
        score = float(made_M @ query_M.astype(np.float64))
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
    model = searched(collection)
    for number in chosen:
        if number % 8:
            asked: dict[str, Any] = {"vector": vector(number, state[number], model)}
        else:
            asked = {"query": text(number, state[number]), "rerank": 5}
        same = sorted(map(name, alike(number, state)))
        hits = collection.search(**asked, limit=len(same))
        found = sorted(hit.id for hit in hits if abs(hit.score - 1) < _TOLERANCE)
        wrong.unless(
            found == same, lambda same=same, hits=hits: f"search for one of {same}: {hits}"
        )


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


def check_copy(folder: Path, kind: str, possible: Sequence[State | None]) -> dict[str, Any]:
    """Return as `check` does of an import, whole or not there; the state may be None."""
    if Collection.peek(folder) is None:
        fine = None in possible
        return {"state": None, "wrong": [] if fine else [f"{folder.name} is not there"]}
    with open_collection(folder, kind) as collection:
        return check(collection, [state for state in possible if state is not None])


def check_archive(path: Path, kind: str, possible: Sequence[State | None]) -> dict[str, Any]:
    """Return as `check_copy` does of an export."""
    scratch = path.with_name("looked-at")
    if path.exists():
        import_collection(path, scratch)
    found = check_copy(scratch, kind, possible)
    shutil.rmtree(scratch, ignore_errors=True)
    return found


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
