"""Kill, look, go on: the loop over one collection, and what it has seen."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.oracle import Log, state_of
from tests.crash.server import ForkServer, Outcome

KINDS = ("flat", "hnsw")
_PER_FOLDER = 25

# what a store, its log and an index may be made of, scratch files of one kill included
_MOST_FILES = 16
# a repair removes the index of the store that it replaced after that: a vector that is lost there
# may be in it
_REPLACED = "index not used, it is rebuilt: it belongs to another collection"


@dataclass(slots=True)
class Tally:
    """How many were killed, doing what; what was wrong, with all that it takes to do it again."""

    kills: int = 0
    during: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    most_files: int = 0
    acknowledged: int = 0

    def __str__(self) -> str:
        told = ", ".join(f"{verb} {num}" for verb, num in self.during.most_common())
        return (
            f"{self.kills} kills ({told}), {self.acknowledged} calls acknowledged, "
            f"at most {self.most_files} files, {len(self.wrong)} violations"
        )


def kill_often(
    server: ForkServer,
    folder: Path,
    *,
    kills: int,
    seed: int,
    bug: str | None = None,
    verbs: dict[str, int] | None = None,
    stop_early: bool = False,
) -> Tally:
    """Return what `kills` kills did, a new collection for every 25 of them."""
    tally = Tally()
    while tally.kills < kills and not (stop_early and tally.wrong):
        one = seed * 10_000 + tally.kills
        loop = _Loop(server, folder / f"collection-{one}", seed=one, bug=bug, verbs=verbs)
        loop.run(tally, min(_PER_FOLDER, kills - tally.kills))
        if loop.intact:
            shutil.rmtree(loop.home)
    return tally


class _Loop:
    """The life of one collection."""

    def __init__(
        self, server: ForkServer, home: Path, *, seed: int, bug: str | None,
        verbs: dict[str, int] | None,
    ) -> None:  # fmt: skip
        home.mkdir(parents=True)
        self.home, self.folder = home, home / "c"
        self.intact = True
        self._server, self._rng, self._seed = server, random.Random(seed), seed
        self._bug, self._verbs = bug, verbs
        self._log = home / "log"
        self._kind = self._rng.choice(KINDS)

    def run(self, tally: Tally, kills: int) -> None:
        end = tally.kills + kills
        # something to lose before the first kill
        self._stream(calls=4)
        while tally.kills < end and self.intact:
            if self._kill_a_writer(tally):
                self._kill_recoveries(tally, end)
                self._look(tally)

    def _stream(self, *, calls: int = 10**9, kill_after: float | None = None) -> Outcome:
        return self._server.run(
            "stream", folder=self.folder, log=self._log, kind=self._kind, bug=self._bug,
            seed=self._rng.getrandbits(30), calls=calls, kill_after=kill_after, verbs=self._verbs,
        )  # fmt: skip

    def _kill_a_writer(self, tally: Tally) -> bool:
        # now and then while it opens, else within the first dozen calls
        after = self._rng.uniform(0, 0.02 if self._rng.random() < 0.2 else 0.2)
        outcome = self._stream(kill_after=after)
        log = self._read()
        if not outcome.killed:
            self._report(tally, f"the writer ended by itself: {outcome}", after, log)
            return False
        tally.kills += 1
        tally.acknowledged += log.acknowledged
        tally.during[log.open.verb.rstrip("01") if log.open else "between"] += 1
        return True

    def _kill_recoveries(self, tally: Tally, end: int) -> None:
        while tally.kills < end and self._rng.random() < 0.3:
            outcome = self._server.run(
                "recover", folder=self.folder, kind=self._kind,
                kill_after=self._rng.uniform(0, 0.03),
            )  # fmt: skip
            if outcome.killed:
                tally.kills += 1
                tally.during["recovery"] += 1

    def _look(self, tally: Tally) -> None:
        log = self._read()
        copies: dict[str, Any] = {}
        if (log.open and log.open.verb in ("export", "import")) or self._rng.random() < 0.05:
            copies = {"archives": log.archives(), "copies": log.copies()}
        outcome = self._server.run(
            "inspect", folder=self.folder, kind=self._kind, bug=self._bug,
            possible=log.possible(), models=log.models(), clean=self._rng.random() < 0.5, **copies,
        )  # fmt: skip
        if outcome.value is None:
            self._report(tally, f"cannot be opened and checked: {outcome}", None, log)
            return
        found = outcome.value
        tally.most_files = max(tally.most_files, len(found["before"]))
        if len(found["before"]) > _MOST_FILES:
            found["wrong"].append(f"{len(found['before'])} files: {found['before']}")
        # what a kill leaves is no damage: nothing is rebuilt, nothing to complain about
        repaired = log.open is not None and log.open.verb == "repair"
        found["wrong"] += [line for line in outcome.log if not (repaired and _REPLACED in line)]
        if found["wrong"]:
            self._report(tally, "; ".join(found["wrong"][:4]), None, log)
        log.settle(
            state_of(found["state"]) or {}, found["model"],
            state_of(found["archive"]) if copies else log.archive,
            state_of(found["copy"]) if copies else log.copy,
        )  # fmt: skip

    def _read(self) -> Log:
        return Log(self._log).read()

    def _report(self, tally: Tally, message: str, after: float | None, log: Log) -> None:
        self.intact = False
        moment = "" if after is None else f", after {after * 1e3:.1f} ms"
        call = log.open.line()[:200] if log.open else "no call"
        tally.wrong.append(
            f"seed {self._seed}, {self._kind}, kill {tally.kills}{moment}, during {call}: "
            f"{message} (kept: {self.home})"
        )
