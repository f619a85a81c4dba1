"""What a forked child has of the parent's databases and locks: nothing.

SQLite notes by process which locks are held, and in a child takes the parent's for its own: it
holds none then, and what it writes is lost with the log that others delete. So what is idle is
closed before a fork, and opened anew after it, by the parent and by the child. What another thread
reads from at that moment cannot be closed: such a file is not opened in the child.
"""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from typing import Protocol

import apsw

from triptych.errors import NotAvailable


class Forked(Protocol):
    """Something that holds files or locks."""

    def before_fork(self) -> None:
        """Close what nobody uses."""

    def in_child(self) -> None:
        """Forget what is the parent's."""


_known: weakref.WeakSet[Forked] = weakref.WeakSet()
# connections of the parent's threads, with their files: to close one would harm the parent's locks
_inherited: list[tuple[apsw.Connection, str]] = []


def watch(one: Forked) -> None:
    """Tell it of each fork, for as long as it lives."""
    _known.add(one)


def check_own(path: Path) -> None:
    """Raise NotAvailable where a file was being read when this process was forked."""
    if str(path.resolve()) in (name for _, name in _inherited):
        raise NotAvailable(
            f"{path} was in use when this process was forked, so SQLite cannot lock it here.",
            hint="Fork before it is used, or start the process by spawn or forkserver.",
        )


def _before() -> None:
    for one in list(_known):
        one.before_fork()


def _in_child() -> None:
    _inherited.extend((connection, connection.filename) for connection in apsw.connections())
    for one in list(_known):
        one.in_child()


os.register_at_fork(before=_before, after_in_child=_in_child)
