"""The harness is worth something if it finds what is wrong: mistakes are planted, each is found."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.crash.bugs import BUGS
from tests.crash.faults import cut_the_power_everywhere, fail_everywhere
from tests.crash.kills import kill_often
from tests.crash.references import damage_often
from tests.crash.server import ForkServer
from tests.crash.shim import Mode

KIND = "flat"
MOST_KILLS = 600  # the search ends with the first find, mostly within 50
MOST_DAMAGED = 300

# which part of the harness finds it: kills at random (mostly during one call), a fault at each call
# of the disk within one of the collection, a power cut there, damage
FOUND_BY: dict[str, tuple[str, str]] = {
    "no_rename": ("tear", "compact"),
    "no_fsync": ("power", "compact"),
    "manifest_first": ("tear", "compact"),
    "old_files_removed_first": ("kill", "compact"),
    "no_sync_at_commit": ("power", "delete"),
    "acknowledged_before_commit": ("kill", "delete"),
    "store_not_written": ("kills", ""),
    "failed_commit_swallowed": ("eio", "delete"),
    "a_batch_in_two_transactions": ("kill", "upsert"),
    "scratch_files_stay": ("kills", "compact"),
    "checksums_ignored": ("damage", ""),
    "export_in_place": ("kills", "export"),
    "states_not_migrated": ("kills", "migrate"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FOUND_BY)
def test_a_planted_bug_is_found(
    server: ForkServer, home: Path, name: str, report: Callable[[str], None]
) -> None:
    wrong = search(server, home, *FOUND_BY[name], bug=name)
    report(f"{name}: {wrong[0][:400] if wrong else 'NOT FOUND'}")
    assert wrong


def search(server: ForkServer, home: Path, way: str, during: str, *, bug: str | None) -> list[str]:
    """Return what the harness says, up to the first violation."""
    match way:
        case "kills":
            verbs = {"add": 1, during: 4} if during else None
            return kill_often(
                server, home, kills=MOST_KILLS, seed=1, bug=bug, verbs=verbs, stop_early=True
            ).wrong
        case "damage":
            return damage_often(
                server, home, damaged=MOST_DAMAGED, seed=1, bug=bug, stop_early=True
            ).wrong
        case "power":
            return cut_the_power_everywhere(server, home, KIND, bug=bug, during=during).wrong
        case _:
            mode = Mode[way.upper()]
            return fail_everywhere(server, home, KIND, mode, bug=bug, during=during).wrong


def test_every_bug_is_looked_for() -> None:
    assert set(FOUND_BY) == set(BUGS)
