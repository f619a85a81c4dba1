"""A fault at the first call of the disk, at the second, ... until the run gets through."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.crash.disk import VARIANTS, Disk, Event, read_trace
from tests.crash.oracle import Log
from tests.crash.server import ForkServer, Outcome
from tests.crash.shim import Mode

MODES = (Mode.KILL, Mode.TEAR, Mode.NOSPACE_ONCE, Mode.NOSPACE, Mode.EIO)


@dataclass(slots=True)
class Tally:
    """How many moments were tried, and what was wrong at which."""

    points: int = 0
    tried: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        told = ", ".join(f"{what} {num}" for what, num in self.tried.items())
        return f"{self.points} calls of the disk; {told}; {len(self.wrong)} violations"


def fail_everywhere(
    server: ForkServer,
    home: Path,
    kind: str,
    mode: Mode,
    *,
    bug: str | None = None,
    during: str | None = None,
) -> Tally:
    """Return what the reference run does with a fault at each of its calls of the disk.

    With `during` only calls of the disk within calls of that name, up to the first violation.
    """
    tally, n, fired = Tally(), 0, True
    chosen = None
    if during:
        run = home / "numbers"
        recorded = _record(server, run, kind, bug)
        if recorded.value is None:
            tally.wrong.append(f"{kind}, without any fault: {recorded}")
            return tally
        chosen = _calls_during(run / "trace", during)
    while fired and not (during and tally.wrong):
        n += 1
        if chosen is not None and n not in chosen:
            if n > max(chosen):
                break
            continue
        folder = home / f"{mode.name}-{n}" / "c"
        outcome = server.run("fail_at", folder=folder, kind=kind, mode=mode.name, n=n, bug=bug)
        before = len(tally.wrong)
        if outcome.value is not None:
            fired = outcome.value["fired"]
            tally.errors.update(": ".join(e.split(": ")[:2]) for e in outcome.value["errors"])
            _tell(tally, f"{kind}, {mode.name} at call {n}", outcome.value["wrong"])
        elif outcome.killed and mode in (Mode.KILL, Mode.TEAR):
            log = Log(folder.with_name("c.log")).read()
            _look(server, tally, folder, kind, log, f"{mode.name} at call {n}", bug)
        else:
            _tell(tally, f"{kind}, {mode.name} at call {n}", [str(outcome)])
            fired = outcome.slow or outcome.signal is not None  # else the run itself is at fault
        tally.tried[mode.name] += fired
        if len(tally.wrong) == before:
            shutil.rmtree(folder.parent)
    tally.points = n - 1
    return tally


def cut_the_power_everywhere(
    server: ForkServer,
    home: Path,
    kind: str,
    *,
    seed: int = 0,
    bug: str | None = None,
    during: str | None = None,
) -> Tally:
    """Return what is found after a power cut at each call of the disk of the reference run.

    With `during` only within calls of that name and just after, up to the first violation.
    """
    run, tally = home / "run", Tally()
    recorded = _record(server, run, kind, bug)
    if recorded.value is None:
        tally.wrong.append(f"{kind}, without any fault: {recorded}")
        return tally
    disk = Disk(str((run / "c").resolve()))
    for event, log in _with_log(run / "trace"):
        if event.kind == "M":
            continue
        disk.apply(event)
        tally.points += 1
        if during and during not in (log.open.verb if log.open else "", log.last):
            continue
        for at, variant in enumerate(VARIANTS):
            rng = random.Random(f"{seed} {tally.points} {at}")
            left = home / f"{tally.points}-{variant}"
            disk.materialise(left / "c", variant, rng)
            tally.tried[variant] += 1
            where = f"power cut after call {tally.points} ({event.kind} {event.path}), {variant}"
            before = len(tally.wrong)
            _look(server, tally, left / "c", kind, log, where, None)
            if len(tally.wrong) == before:
                shutil.rmtree(left)
        if during and tally.wrong:
            break
    return tally


def _with_log(trace: Path) -> Iterator[tuple[Event, Log]]:
    """Yield each call of the disk, and what was begun and acknowledged until then."""
    log = Log()
    opened = False
    for event in read_trace(trace):
        if event.kind == "M" and opened:
            log.read([event.data.decode()])
        opened = opened or event.kind == "M"
        yield event, log


def _record(server: ForkServer, home: Path, kind: str, bug: str | None) -> Outcome:
    return server.run("record", folder=home / "c", trace=home / "trace", kind=kind, bug=bug)


def _calls_during(trace: Path, verb: str) -> set[int]:
    numbers, n = set(), 0
    for event, log in _with_log(trace):
        n += event.kind != "M"
        if event.kind != "M" and log.open and log.open.verb == verb:
            numbers.add(n)
    return numbers


def _look(
    server: ForkServer, tally: Tally, folder: Path, kind: str, log: Log, where: str,
    bug: str | None,
) -> None:  # fmt: skip
    outcome = server.run(
        "inspect", folder=folder, kind=kind, possible=log.possible(), models=log.models(), bug=bug
    )
    # what a kill or a power cut leaves is no damage: nothing is rebuilt, nothing to complain about
    found = [str(outcome)] if outcome.value is None else outcome.value["wrong"] + outcome.log
    _tell(tally, f"{kind}, {where}", found)


def _tell(tally: Tally, where: str, found: list[str]) -> None:
    if found:
        tally.wrong.append(f"{where}: {'; '.join(found[:4])}")
