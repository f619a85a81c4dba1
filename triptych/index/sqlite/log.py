"""Which file a log belongs to.

SQLite reads whatever log lies beside a file, as long as the log itself is whole. Beside an older
file, a backup that was put over a collection in use, it would show pages of two moments as one
store. So a log says up to which sequence the file held everything when it began, or later; a file
that stands before that is another one.
"""

from __future__ import annotations

from pathlib import Path

import apsw

from triptych.errors import CollectionDamaged
from triptych.index.sqlite.database import log_of, opened
from triptych.index.sqlite.pages import CHECKED, repair

_KEY = "log"
_SEQUENCE = "SELECT value FROM meta WHERE key = 'sequence'"


def is_empty(path: Path | None) -> bool:
    """Whether the file at `path` has nothing in its log, as what is in memory never has."""
    if path is None:
        return True
    log = log_of(path.resolve())  # SQLite resolves links too
    return not log.exists() or not log.stat().st_size


def note_start(connection: apsw.Connection) -> None:
    """Note that the file holds everything so far; first in a transaction that writes."""
    connection.execute(f"INSERT OR REPLACE INTO meta VALUES ('{_KEY}', ({_SEQUENCE}))")  # noqa: S608


def check_start(path: Path, connection: apsw.Connection) -> None:
    """Raise CollectionDamaged where the file is older than the log that `connection` reads too."""
    if is_empty(path):
        return
    start = connection.execute(f"SELECT value FROM meta WHERE key = '{_KEY}'").get  # noqa: S608
    held = _held(path)
    if isinstance(start, int) and isinstance(held, int) and held < start:
        raise CollectionDamaged(
            f"{path} is older than its log: it stands at write {held:,}, the log goes on from "
            f"{start:,}.",
            hint="Put the file back that the log belongs to, or restore a backup into an empty "
            f"folder. To go on with the items that are whole: {repair(path)}",
        )


def _held(path: Path) -> object:
    """Return the sequence in the file alone, None where it cannot be told without the log."""
    try:
        connection = opened(path, "immutable", CHECKED)
    except (apsw.Error, CollectionDamaged):
        return None
    try:
        return connection.execute(_SEQUENCE).get
    except (apsw.Error, CollectionDamaged):  # the log is just being moved, or a kill ended that
        return None
    finally:
        connection.close()
