"""SQLite as the store wants it. The only file with its settings.

apsw, not the standard library: a SQLite before 3.51.3 may lose commits in WAL mode. One connection
writes; others read, each from a state of its own, and never wait for a write.
"""

from __future__ import annotations

import ctypes
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import apsw

from triptych.errors import CollectionDamaged, NotAvailable
from triptych.index.disk import sync_file, sync_folder
from triptych.index.sqlite.errors import extended, is_full, translated, unusable
from triptych.index.sqlite.forks import check_own, watch
from triptych.index.sqlite.lock import WriterLock
from triptych.index.sqlite.open_mode import READ_WRITE, OpenMode, look_at
from triptych.index.sqlite.pages import CHECKED, PAGE, has_sums, reserve_sums
from triptych.index.sqlite.reserve import Reserve

logger = logging.getLogger(__name__)

_PATIENCE_MS = 5_000
_READING_KB, _WRITING_KB = 32_000, 64_000
READERS = max(4, os.cpu_count() or 1)  # kept; any more are opened anew, and know no page yet
_CHECKPOINT_PAGES = 2_000  # 16 MB: what is written often goes to its place once
_PAGES_AHEAD = 128  # taken at once: each time costs as much as a sync
_PLENTY = 16 * _PAGES_AHEAD * PAGE
_LONG_LOG_PAGES = 32_000


class Database:
    """The connections to one file, or to one database in memory. Any thread may call."""

    def __init__(self, path: Path | None, *, vfs: str = CHECKED) -> None:
        """Open the database, created where there is none; raises CollectionDamaged."""
        self.path = path
        self.reserve = Reserve(path.with_name("reserve")) if path else None
        self._vfs = vfs
        self._mutex = threading.RLock()  # of the connection that writes
        self._local = threading.local()
        self._idle: list[tuple[OpenMode, apsw.Connection]] = []
        self._closed = False
        self._trusted = self._failed = False
        self._log_pages = self._pages = 0  # of the log; of the file, at least
        self.log_is_moved = False  # all of it: the file is known to be whole without the log
        self._long_log = _LONG_LOG_PAGES  # the next that is worth a warning
        self._writer: apsw.Connection | None = None
        if path is None:
            self._writer = _settled(apsw.Connection(":memory:"), _WRITING_KB)
            return
        with translated(path):
            try:
                if not path.exists() or not path.stat().st_size:
                    _create(path)
                self._file = _identity(path)
                self._writable = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
            except OSError as error:
                raise unusable(str(path), error) from None
        watch(self)

    @property
    def read_only(self) -> bool:
        """Whether the file or its folder cannot be written to."""
        return self.path is not None and not self._writable

    @contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """Yield a connection that sees one state; within one thread the same to the end."""
        nested: apsw.Connection | None = getattr(self._local, "connection", None)
        if nested is not None:
            with translated(self.path):
                yield nested
            return
        with self.own_reading() as connection:
            self._local.connection = connection
            try:
                yield connection
            finally:
                self._local.connection = None

    @contextmanager
    def own_reading(self) -> Iterator[apsw.Connection]:
        """Yield a connection that sees one state and belongs to no thread."""
        with translated(self.path):
            if self.path is None:
                with self._mutex:  # the one connection to it: nobody else writes meanwhile
                    yield self._open_writer()
                return
            look = READ_WRITE if self._writable else look_at(self.path)
            connection = self._take(look)
            try:
                with look.held(self.path), transaction(connection, "DEFERRED"):
                    yield connection
            finally:
                self._give(look, connection)

    @contextmanager
    def writing(self) -> Iterator[apsw.Connection]:
        """Yield the connection that writes, inside of a transaction that is durable at the end.

        SQLite's own errors pass, for the caller to act on them.
        """
        with self._mutex:
            connection = self._open_writer()
            self.check_there()
            try:
                with transaction(connection, "IMMEDIATE"):
                    before = connection.total_changes()
                    yield connection
                    if connection.total_changes() != before:  # else nothing would cut it off again
                        self._make_room(connection)
            except apsw.IOError as error:
                # the system may have dropped what it could not sync, and says so only once
                syncs = (apsw.SQLITE_IOERR_FSYNC, apsw.SQLITE_IOERR_DIR_FSYNC)
                self._failed |= extended(error) in syncs
                raise
            if self._log_pages >= _CHECKPOINT_PAGES:
                self.checkpoint()

    @contextmanager
    def creating(self) -> Iterator[apsw.Connection]:
        """Yield the connection that writes, to make the tables with."""
        with translated(self.path), self._mutex:
            connection = self._open_writer()
            if self.path is not None and not has_sums(self.path):
                raise CollectionDamaged(f"{self.path} is no store, but an empty database.")
            yield connection

    def checkpoint(self) -> None:
        """Move what is in the log to its place, as far as readers allow.

        Not inside of a commit, as SQLite does it: a failure here must not look like a lost write.
        """
        if self.path is None:
            return
        with self._mutex:
            try:
                pages, moved = self._open_writer().wal_checkpoint()
                self._pages = 0  # it cuts off what it does not need
                self.log_is_moved = moved == pages
            except (apsw.Error, CollectionDamaged) as error:
                logger.warning("%s: the log cannot be moved to its place: %s", self.path, error)
                return
        if moved < pages > self._long_log:
            self._long_log = 2 * pages
            logger.warning("%s: the log grows: a reader holds %d pages", self.path, pages - moved)

    def used(self) -> int:
        """Return how many bytes of the file are in use."""
        with self.reading() as connection:
            pages = connection.execute("PRAGMA page_count").get
            return int(PAGE * (pages - connection.execute("PRAGMA freelist_count").get))

    def vacuum(self) -> None:
        """Write the file anew without free pages, and empty the log."""
        with self._mutex:
            connection = self._open_writer()
            connection.execute("VACUUM")
            self._pages = 0
            ((busy, _, _),) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self.log_is_moved = not busy
        if busy:
            logger.warning("%s: a reader holds the log: what was deleted is in it still", self.path)

    def check_writable(self) -> None:
        """Raise NotAvailable where nothing can be written: closed, read-only, gone, failed."""
        with translated(self.path), self._mutex:
            self.check_there()
            self._open_writer()

    def check_there(self) -> None:
        """Raise NotAvailable where the file was removed or replaced since it was opened."""
        if self.path is None:
            return
        with suppress(OSError):
            if _identity(self.path) == self._file:
                return
        raise NotAvailable(
            f"{self.path} was removed or replaced while it was open.", hint="Open it again."
        )

    def trust(self) -> None:
        """Let the log be moved to its place at the end, now that it is known to be of this file.

        Before that a look at files that do not belong together would mix them for good.
        """
        self._trusted = True

    def close(self) -> None:
        """Close every connection, those in use when they are given back; twice is harmless."""
        with self._mutex:
            self._closed = True
            self._close_idle()

    def before_fork(self) -> None:
        """Close what is not in use; the log stays, for the next one to open the file."""
        with self._mutex:
            if self.path is not None and not (self._writer and self._writer.in_transaction):
                self._pages = 0  # a child may write before this process does again
                self._close_idle(keep_log=True)

    def in_child(self) -> None:
        """Begin anew, with nothing open; whoever held the mutex is not here."""
        self._mutex, self._local = threading.RLock(), threading.local()
        if self.path is not None:
            self._idle, self._writer = [], None

    def _close_idle(self, *, keep_log: bool = False) -> None:
        open_ones = [connection for _, connection in self._idle]
        open_ones += [self._writer] if self._writer else []
        self._idle, self._writer = [], None
        for connection in open_ones:
            self._close_one(connection, keep_log=keep_log)

    def _open_writer(self) -> apsw.Connection:
        if self._failed:
            raise NotAvailable(
                f"{self.path} could not be synced to the disk: nothing more is written.",
                hint="Check the disk, then open it again.",
            )
        if self._writer is None:
            if self._closed:
                raise apsw.ConnectionClosedError
            if self.read_only:
                raise NotAvailable(
                    f"{self.path} can be read, not written: the file or its folder is read-only.",
                    hint="Copy the folder to where you may write.",
                )
            assert self.path is not None
            self.check_there()
            self._writer = self._connect("rw", _WRITING_KB)
            self._writer.set_wal_hook(self._note_log)
            # without a unit SQLite takes no hint about the size of the file
            unit = ctypes.c_int(PAGE)
            pointer = ctypes.addressof(unit)
            self._writer.file_control("main", apsw.SQLITE_FCNTL_CHUNK_SIZE, pointer)
        return self._writer

    def _make_room(self, connection: apsw.Connection) -> None:
        """Take what the file will need, so that a full disk never keeps the log from shrinking."""
        if self.path is None:
            return
        pages = connection.execute("PRAGMA page_count").get
        if pages <= self._pages:
            return
        # where it is short, what is taken ahead would be missing for the log
        ahead = _PAGES_AHEAD if shutil.disk_usage(self.path).free > _PLENTY else 0
        for wanted in (pages + ahead, pages):
            try:
                size = ctypes.c_int64(wanted * PAGE)
                pointer = ctypes.addressof(size)
                connection.file_control("main", apsw.SQLITE_FCNTL_SIZE_HINT, pointer)
                self._pages = wanted
                return
            except (apsw.FullError, apsw.IOError):
                if wanted == pages:
                    raise

    def _note_log(self, connection: apsw.Connection, name: str, pages: int) -> int:
        self._log_pages, self.log_is_moved = pages, False
        return apsw.SQLITE_OK

    def _take(self, look: OpenMode) -> apsw.Connection:
        self.check_there()
        if self._closed:
            raise apsw.ConnectionClosedError
        with suppress(IndexError):
            while True:
                then, connection = self._idle.pop()
                if then == look:
                    return connection
                self._close_one(connection)
        return self._connect(look.mode, _READING_KB)

    def _connect(self, mode: str, cache_kb: int) -> apsw.Connection:
        """Return a new connection; on a full disk it takes of the room kept for deletions."""
        assert self.path is not None and self.reserve is not None
        check_own(self.path)
        try:
            return opened(self.path, mode, self._vfs, cache_kb)
        except (apsw.FullError, apsw.IOError) as error:
            if not is_full(error) or not self.reserve.lend():
                raise
        return opened(self.path, mode, self._vfs, cache_kb)

    def _give(self, look: OpenMode, connection: apsw.Connection) -> None:
        if self._closed or len(self._idle) >= READERS:
            self._close_one(connection)
        else:
            self._idle.append((look, connection))

    def _close_one(self, connection: apsw.Connection, *, keep_log: bool = False) -> None:
        # the last one moves the log to its place; what cannot be moved stays in the log
        name = connection.filename  # which a closed one does not say
        may_move = self._trusted and not self.read_only and not keep_log
        try:
            connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, int(not may_move))
            connection.close()
        except (apsw.Error, CollectionDamaged) as error:
            logger.warning("%s: %s", name, error)


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


def _identity(path: Path) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino


def _create(path: Path) -> None:
    """Make an empty database under another name first: a crash must leave it whole or not at all.

    Raises CollectionBusy while another process does the same.
    """
    with WriterLock(path.with_name("lock")):
        if path.exists() and path.stat().st_size:
            return
        log = log_of(path)
        if log.exists() and log.stat().st_size:
            raise CollectionDamaged(
                f"{path} is missing or empty, but its log is there.",
                hint="Restore it from a backup, or delete the folder and index again.",
            )
        scratch = path.with_name(f"{path.name}.new")
        scratch.unlink(missing_ok=True)
        connection = apsw.Connection(_uri(scratch), _flags("rw") | apsw.SQLITE_OPEN_CREATE, CHECKED)
        try:
            reserve_sums(connection)
            connection.execute(f"PRAGMA page_size = {PAGE}")
            connection.execute(f"PRAGMA application_id = {1 + secrets.randbelow(2**31 - 1)}")
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
        finally:
            connection.close()
        sync_file(scratch)
        scratch.rename(path)
        sync_folder(path.parent)


def _flags(mode: str) -> int:
    access = apsw.SQLITE_OPEN_READWRITE if mode == "rw" else apsw.SQLITE_OPEN_READONLY
    return apsw.SQLITE_OPEN_URI | access


def _uri(path: Path, mode: str = "rw") -> str:
    # resolved: for a path with a symbolic link in it apsw's file systems raise "not an error"
    return path.resolve().as_uri() + ("?immutable=1" if mode == "immutable" else "")


def log_of(path: Path) -> Path:
    """Return where SQLite keeps the log of a file."""
    return path.with_name(f"{path.name}-wal")


def opened(path: Path, mode: str, vfs: str, cache_kb: int = _READING_KB) -> apsw.Connection:
    """Return a new connection; `mode` is rw, ro or, without the log, immutable."""
    if not has_sums(path):
        vfs = ""  # an older format, or no store: `read_meta` says which
    return _settled(apsw.Connection(_uri(path, mode), _flags(mode), vfs or None), cache_kb)


def _settled(connection: apsw.Connection, cache_kb: int) -> apsw.Connection:
    """Synced at every commit, deleted content overwritten."""
    try:
        connection.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)  # see `trust`
        connection.set_busy_timeout(_PATIENCE_MS)
        connection.wal_autocheckpoint(0)
        connection.execute(f"PRAGMA cache_size = {-cache_kb}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON").fetchall()
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA schema_version").fetchall()  # makes what goes with the log
    except BaseException:
        connection.close()
        raise
    return connection
