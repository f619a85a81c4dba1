"""SQLite's errors as ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from triptych.errors import CollectionBusy, CollectionDamaged, DiskFull, NotAvailable
from triptych.index.sqlite.pages import repair

_DAMAGE = (
    *(apsw.CorruptError, apsw.NotADBError, apsw.SQLError, apsw.SchemaChangeError),
    UnicodeDecodeError,  # of text whose page in the log is damaged
)


@contextmanager
def translated(path: Path | None) -> Iterator[None]:
    """Raise our errors instead of SQLite's."""
    where = "The collection in memory" if path is None else str(path)
    try:
        yield
    except _DAMAGE:
        raise CollectionDamaged(
            f"{where} is damaged: SQLite cannot read it.", hint=repair(path) if path else None
        ) from None
    except (apsw.BusyError, apsw.LockedError, apsw.ProtocolError):
        raise CollectionBusy(f"{where} is locked by another process.", hint="Try again.") from None
    except apsw.ConnectionClosedError:
        raise NotAvailable(f"{where} is closed.", hint="Open it again.") from None
    except (apsw.FullError, apsw.IOError) as error:
        if not is_full(error):
            raise unusable(where, error) from None
        or_else = "" if isinstance(error, apsw.FullError) else ", a quota is reached, or it fails"
        raise DiskFull(
            f"The disk is full{or_else}: nothing of this batch was stored in {where}.",
            hint="Free some space and run the same again; what was stored before is kept.",
        ) from None
    except (apsw.CantOpenError, apsw.ReadOnlyError, apsw.PermissionsError) as error:
        raise unusable(where, error) from None


def is_full(error: apsw.Error) -> bool:
    """Whether the disk, a quota or a limit on the size of files left no room."""
    # FULL is a full disk, IOERR_WRITE whatever else keeps SQLite from writing
    no_room = (apsw.SQLITE_IOERR_WRITE, apsw.SQLITE_IOERR_SHMSIZE)
    return isinstance(error, apsw.FullError) or extended(error) in no_room


def extended(error: apsw.Error) -> int:
    """Return SQLite's extended code, 0 where it has none."""
    return int(getattr(error, "extendedresult", 0))


def unusable(where: str, error: Exception) -> NotAvailable:
    """Return the error of what can neither be read nor written, for a reason of the system's."""
    return NotAvailable(
        f"{where} cannot be used: {type(error).__name__.removesuffix('Error')}.",
        hint="Check that the folder exists and that you may write to it.",
    )
