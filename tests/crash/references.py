"""Folders whose answers are known, one after the other damaged, and what becomes of that."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.crash.damage import DAMAGES
from tests.crash.server import ForkServer, Outcome

_MEMORY = 4 << 30
_SECONDS = 10.0
_FORGIVEN = ("same", "refused", "repaired", "some missing, said so")


@dataclass(frozen=True, slots=True)
class Reference:
    """A folder as it was left, and what it answers."""

    folder: Path
    kind: str
    answers: list[Any]


def references(
    server: ForkServer, home: Path, bug: str | None = None
) -> list[tuple[Reference, Reference]]:
    """Return pairs of the same kind: a folder and another collection. With a snapshot and a delta;
    closed, and left by a kill with a log."""
    pairs = []
    for at, (kind, state) in enumerate(
        (k, s) for k in ("hnsw", "flat") for s in ("closed", "killed")
    ):
        pair = []
        for which in range(2):
            folder, seed = home / f"reference-{at}-{which}" / "c", 2 * at + which
            made = server.run(
                "make_reference", folder=folder, kind=kind, seed=seed, calls=12,
                close=state == "closed", bug=bug,
            )  # fmt: skip
            assert made.value is not None, made
            pair.append(Reference(folder, kind, made.value))
        pairs.append((pair[0], pair[1]))
    return pairs


def judge(outcome: Outcome, reference: Reference) -> str:
    """Return what became of it; names outside of `_FORGIVEN` are failures."""
    if outcome.slow:
        return "HANGS"
    if outcome.signal is not None:
        return f"DIES of signal {outcome.signal}"
    if outcome.error is not None:
        return "refused" if outcome.typed else f"RAISES {outcome.error}"
    answers = outcome.value["answers"]
    if answers == reference.answers:
        return "repaired" if outcome.log else "same"
    # what is damaged may be missing where it is named; everything else must be as it was
    missing = set(outcome.value["damaged"])
    expected = [hit for hit in reference.answers[1] if hit[0] not in missing]
    if missing and answers[1] == expected:
        return "some missing, said so"
    return "DIFFERS, with a line in the log" if outcome.log else "DIFFERS IN SILENCE"


@dataclass(slots=True)
class Tally:
    """What became of each kind of damage, and what should not have."""

    table: Counter[tuple[str, str]] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        verdicts = sorted({verdict for _, verdict in self.table})
        lines = [f"{'':20}" + "".join(f"{verdict:>27}" for verdict in verdicts)]
        names = list(dict.fromkeys(damage.__name__ for damage in DAMAGES))
        for name in names:
            lines.append(f"{name:20}" + "".join(f"{self.table[name, v]:>27}" for v in verdicts))
        totals = [sum(self.table[name, v] for name in names) for v in verdicts]
        lines.append(f"{'all':20}" + "".join(f"{total:>27}" for total in totals))
        return "\n".join(lines)


def damage_often(
    server: ForkServer, home: Path, *, damaged: int, seed: int, bug: str | None = None,
    stop_early: bool = False,
) -> Tally:  # fmt: skip
    """Return what became of `damaged` folders, each with one damage of its own."""
    tally, pairs = Tally(), references(server, home, bug)
    for one in range(seed * 1_000_000, seed * 1_000_000 + damaged):
        if stop_early and tally.wrong:
            break
        rng = random.Random(one)
        reference, other = rng.choice(pairs)
        damage = rng.choice(DAMAGES)
        folder = home / f"damaged-{one}"
        shutil.copytree(reference.folder, folder, ignore=shutil.ignore_patterns("*.sock"))
        told = damage(folder, other.folder, rng)
        outcome = server.run(
            "read_damaged", folder=folder, kind=reference.kind, bug=bug,
            memory=_MEMORY, limit=_SECONDS,
        )  # fmt: skip
        verdict = judge(outcome, reference)
        tally.table[damage.__name__, verdict] += 1
        if verdict in _FORGIVEN:
            shutil.rmtree(folder)
            continue
        tally.wrong.append(
            f"seed {one}, {reference.folder.parent.name}: {told}: {verdict} "
            f"{outcome.log} {outcome.message[-300:]} (kept: {folder})"
        )
    return tally
