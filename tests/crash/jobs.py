"""What the children of the fork server do."""

from __future__ import annotations

import os
import random
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from tests.crash import bugs
from tests.crash.oracle import LARGE, QUERIES, SMALL, Call, Log, State, item, next_call, state_of
from tests.crash.product import (
    answers,
    archive_of,
    check,
    check_archive,
    check_copy,
    copy_of,
    damage_and_repair,
    files,
    open_collection,
    perform,
)
from tests.crash.shim import Mode, Shim
from triptych.errors import TriptychError
from triptych.retrieval.collection import Collection

# how often each happens; verbs that the collection does not have are left out
VERBS = {
    "add": 30,
    "upsert": 25,
    "delete": 25,
    "search": 4,
    "compact": 6,
    "reopen": 8,
    "optimize": 2,
    "migrate": 8,
    "export": 6,
    "import": 15,  # over soon: the clock seldom strikes within
    "repair": 5,
}

_SMALL = tuple((number, 1) for number in range(6))
REFERENCE = (
    Call("add", _SMALL),
    Call("upsert", ((1, 2), (4, 2), (9, 1))),
    Call("delete", numbers=(0, 2)),
    Call("compact"),
    Call("add", ((0, 3), (20, 1), (21, 1))),
    Call("delete", numbers=(1, 20)),
    Call("reopen"),
    Call("upsert", ((3, 5), (22, 1))),
    Call("delete", numbers=(5,)),
    Call("compact"),
    Call("add", ((30, 1),)),
    Call("migrate1"),
)
"""Every kind of write, before and after a snapshot; short, since each of its calls is failed."""

GRAPH = (
    Call("add", tuple((number, 1) for number in range(260))),
    Call("optimize"),
    Call("upsert", ((1, 2), (300, 1))),
    Call("delete", numbers=(0, 2)),
    Call("reopen"),
    Call("migrate1"),
    Call("delete", numbers=(1,)),
)
"""The same around a graph: written, searched with changes beside it, read, of another model."""

RUNS = {"flat": REFERENCE, "hnsw": GRAPH}

_LEFT_OPEN: list[Collection] = []


def warm_up() -> None:
    """Do everything once, so that no child has to: imports, first calls."""
    for kind in ("flat", "hnsw"):
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / "c"
            with open_collection(path, kind) as collection:
                collection.add([item(1, 1), item(2, 1)])
                check(collection, [{1: 1, 2: 1}])
                collection.delete("item-1")
                for verb in ("compact", "migrate1", "export", "import"):
                    perform(collection, Call(verb))
            damage_and_repair(path)
    assert threading.active_count() == 1, "a child of a process with threads may hang"


def ready() -> str:
    return "ready"


class Appender:
    """One line, one write: what is written before the kill stays."""

    def __init__(self, path: str | Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def line(self, text: str) -> None:
        os.write(self._file, f"{text}\n".encode())


def stream(
    folder: str,
    log: str,
    kind: str,
    seed: int,
    *,
    calls: int = 10**9,
    bug: str | None = None,
    verbs: dict[str, int] | None = None,
) -> int:
    """Do random calls until killed, or `calls` of them; each is logged before and after."""
    if bug is not None:
        bugs.plant(bug)
    rng = random.Random(seed)
    oracle = Log(Path(log)).read()
    assert oracle.open is None
    state, lines = oracle.state, Appender(log)
    path = Path(folder)
    collection = open_collection(path, kind)
    for _ in range(calls):
        call = next_call(rng, state, verbs=verbs or VERBS, most=LARGE if kind == "hnsw" else SMALL)
        lines.line(call.line())
        collection = _do(collection, call, path, kind)
        lines.line("done")
        state = call.after(state)
    collection.close()
    return calls


def _do(collection: Collection, call: Call, folder: Path, kind: str) -> Collection:
    if call.verb not in ("reopen", "repair"):
        perform(collection, call)
        return collection
    collection.close()
    if call.verb == "repair":
        damage_and_repair(folder)
    return open_collection(folder, kind)


def recover(folder: str, kind: str) -> int:
    """Open and ask, then linger: this is what is killed during a recovery."""
    with open_collection(Path(folder), kind) as collection:
        collection.search(vector=QUERIES[0], limit=10)
        collection.compact()
    return 1


def inspect(
    folder: str, kind: str, possible: list[dict[str, int]], *, models: list[int],
    archives: list[Any] | None = None, copies: list[Any] | None = None, clean: bool = True,
    bug: str | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Return what `check` says, and whether the next opening says the same.

    `clean`: it is closed in between; otherwise two are open, as after a kill. What was exported
    and imported is looked at where it is said what it may be.
    """
    if bug is not None:
        bugs.plant(bug)
    path = Path(folder)
    before = files(path)
    first = open_collection(path, kind)
    found = check(first, [state_of(one) or {} for one in possible], models=models)
    told = answers(first)
    if clean:
        first.close()
    second = open_collection(path, kind)
    if answers(second) != told:
        found["wrong"].append("another opening gives other answers")
    second.close()
    if not clean:
        first.close()
    if archives is not None and copies is not None:
        archive = check_archive(archive_of(path), kind, list(map(state_of, archives)))
        copy = check_copy(copy_of(path), kind, list(map(state_of, copies)))
        found["wrong"] += [f"archive: {one}" for one in archive["wrong"]]
        found["wrong"] += [f"copy: {one}" for one in copy["wrong"]]
        found |= {"archive": archive["state"], "copy": copy["state"]}
    return found | {"before": before, "files": files(path)}


def fail_at(folder: str, kind: str, mode: str, n: int, *, bug: str | None = None) -> dict[str, Any]:
    """Do the reference run with a fault at the n-th call of the disk.

    Where an error stops a call, the disk is made well and the call made again. Returns what was
    seen: the calls of the disk, the errors that were not ours, the answers that were wrong.
    """
    if bug is not None:
        bugs.plant(bug)
    shim, path = Shim(), Path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = Appender(path.with_name(path.name + ".log"))
    run = _Faulty(shim, path, kind, lines)
    shim.arm(path, Mode[mode], n)
    for call in (Call("open"), *RUNS[kind], Call("close")):
        run.step(call)
    fired, seen = shim.fired(), shim.calls()
    shim.disarm()
    with open_collection(path, kind) as collection:
        run.wrong += check(collection, [run.state], models=[run.model])["wrong"]
    return {"fired": fired, "calls": seen, "errors": run.errors, "wrong": run.wrong}


class _Faulty:
    """A run whose disk fails once, or from one moment on."""

    def __init__(self, shim: Shim, folder: Path, kind: str, lines: Appender) -> None:
        self.state: State = {}
        self.model = 0
        self.errors: list[str] = []
        self.wrong: list[str] = []
        self._shim, self._folder, self._kind, self._lines = shim, folder, kind, lines
        self._collection: Collection | None = None

    def step(self, call: Call) -> None:
        self._lines.line(call.line())
        try:
            self._do(call)
        except TriptychError as error:
            self.errors.append(f"{call.verb}: {type(error).__name__}: {error}")
            self._again(call)
        except Exception as error:
            self.wrong.append(f"{call.verb}: not one of ours: {_told(error)}")
            self._again(call)
        self.state = call.after(self.state)
        if call.verb.startswith("migrate"):
            self.model = int(call.verb[-1])
        self._lines.line("done")

    def _again(self, call: Call) -> None:
        """After an error nothing was done, everything else still answers, and it can be repeated."""
        self._shim.disarm()
        try:
            if self._collection is not None and call.verb not in ("reopen", "close"):
                self.wrong += check(self._collection, [self.state])["wrong"]
            self._do(call)
        except TriptychError as error:
            # what could not be synced may be on the disk or not: only a new opening can tell
            self.errors.append(f"{call.verb} again: {type(error).__name__}: {error}")
            self._anew(call)
        except Exception as error:
            self.wrong.append(f"{call.verb} again: {_told(error)}")
            self._anew(call)

    def _anew(self, call: Call) -> None:
        if self._collection is not None:
            self._collection.close()
        self._do(Call("open"))
        assert self._collection is not None
        done = call.after(self.state)
        found = check(self._collection, [self.state, done])
        self.wrong += found["wrong"]
        is_done = found["state"] == {str(n): v for n, v in sorted(done.items())}
        if not is_done or call.verb.startswith("migrate"):
            self._do(call)

    def _do(self, call: Call) -> None:
        if self._collection is not None and call.verb in ("reopen", "close"):
            self._collection.close()
        if call.verb in ("open", "reopen"):
            self._collection = open_collection(self._folder, self._kind)
        elif call.verb != "close":
            assert self._collection is not None
            perform(self._collection, call)


def _told(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(where.filename).name}, {where.name})"


def record(folder: str, trace: str, kind: str, *, bug: str | None = None) -> int:
    """Do the reference run and write each call of the disk down; return how many there were."""
    if bug is not None:
        bugs.plant(bug)
    shim, path = Shim(), Path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    shim.trace(Path(trace))
    shim.arm(path, Mode.COUNT)
    collection = open_collection(path, kind)
    shim.mark("done")  # the folder exists and is a collection
    for call in RUNS[kind]:
        shim.mark(call.line())
        collection = _do(collection, call, path, kind)
        shim.mark("done")
    seen = shim.calls()
    collection.close()
    shim.disarm()
    return seen


def read_damaged(folder: str, kind: str, *, bug: str | None = None) -> dict[str, Any]:
    """Return the answers of a folder that something was done to."""
    if bug is not None:
        bugs.plant(bug)
    with open_collection(Path(folder), kind) as collection:
        return {"answers": answers(collection), "damaged": collection.info()["damaged"]}


def make_reference(
    folder: str, kind: str, seed: int, calls: int, *, close: bool, bug: str | None = None
) -> list[Any]:
    """Fill a folder: a snapshot, and changes after it; return its answers.

    It is closed, or left with a log, as by a kill: the process ends without closing.
    """
    if bug is not None:
        bugs.plant(bug)
    path = Path(folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    collection = open_collection(path, kind)
    rng, state = random.Random(seed), {}
    for at in range(calls):
        call = next_call(rng, state, verbs={"add": 5, "upsert": 3, "delete": 2}, most=120)
        perform(collection, call)
        state = call.after(state)
        if at == calls // 2:
            collection.compact()
    told = answers(collection)
    if close:
        collection.close()
    else:
        _LEFT_OPEN.append(collection)  # or it would be closed with the last name of it
    return told


def linger(seconds: float) -> None:
    """Do nothing for a while: the test of the limits."""
    time.sleep(seconds)


def toil(seconds: float, core: int) -> float:
    """Use so much of one core's time."""
    os.sched_setaffinity(0, {core})
    while (used := time.process_time()) < seconds:
        pass
    return used
