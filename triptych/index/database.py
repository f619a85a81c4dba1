"""SQLite as the store wants it; its errors as ours. The only file with its settings.

apsw, not the standard library: a SQLite before 3.51.3 may lose commits in WAL mode.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from triptych.errors import CollectionBusy, CollectionDamaged, NotAvailable

_PATIENCE_MS = 5_000
_PAGE = 8_192  # three vectors of 512 numbers a page, instead of one in 4096 bytes


def connect(path: Path | None) -> apsw.Connection:
    """Return a connection: WAL, synced at every commit, deleted content overwritten."""
    connection = apsw.Connection(":memory:" if path is None else str(path))
    try:
        connection.set_busy_timeout(_PATIENCE_MS)
        connection.execute(f"PRAGMA page_size = {_PAGE}")
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON").fetchall()
        connection.execute("PRAGMA trusted_schema = OFF")
    except apsw.Error:
        connection.close()
        raise
    return connection


def is_blank(connection: apsw.Connection) -> bool:
    """Whether there is no schema yet."""
    return bool(connection.execute("SELECT count(*) FROM sqlite_schema").get == 0)


@contextmanager
def transaction(connection: apsw.Connection, kind: str) -> Iterator[None]:
    """All of it or nothing; `kind` is DEFERRED to read, IMMEDIATE to write."""
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:  # an interrupt too must leave nothing half done
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def translated(path: Path | None) -> Iterator[None]:
    """Raise our errors instead of SQLite's."""
    where = "The collection in memory" if path is None else str(path)
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError, apsw.SchemaChangeError):
        raise CollectionDamaged(
            f"{where} is damaged: SQLite cannot read it.",
            hint="Restore it from a backup, or delete the folder and index again.",
        ) from None
    except (apsw.BusyError, apsw.LockedError):
        raise CollectionBusy(f"{where} is locked by another process.", hint="Try again.") from None
    except apsw.FullError:
        raise NotAvailable(
            f"The disk is full: nothing of this batch was stored in {where}.",
            hint="Free some space and run the same again; what was stored before is kept.",
        ) from None
    except apsw.ConnectionClosedError:
        raise NotAvailable(f"{where} is closed.", hint="Open it again.") from None
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError, apsw.IOError) as error:
        raise NotAvailable(
            f"{where} cannot be used: {type(error).__name__.removesuffix('Error')}.",
            hint="Check that the folder exists and that you may write to it.",
        ) from None
