"""Writes of other processes, done by the one that holds a collection's write lock.

It serves a Unix socket in the collection's folder; whoever else wants to write hands it the
request. A request is first taken (ACCEPTED), then done, then answered. So a writer that goes away
before it has taken a request has certainly not done it; after that, nobody can know.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from triptych.errors import CollectionBusy, InvalidInput, NotAvailable, TriptychError
from triptych.index.remote.channel import SOCKET, address, check_peer, receive, send
from triptych.index.remote.codec import (
    decode_reply,
    decode_request,
    encode_error,
    encode_reply,
    encode_request,
)
from triptych.index.remote.requests import (
    BeginSpace,
    Compact,
    Delete,
    DropSpace,
    Ping,
    PutVectors,
    Reply,
    Request,
    SwitchSpace,
    Touch,
    Write,
)
from triptych.index.remote.wire import ACCEPTED, Buffer, Frame, write_frame
from triptych.index.sqlite.meta import Space
from triptych.index.sqlite.records import Entry, FileState, Tokens
from triptych.types import Matrix, Rows

logger = logging.getLogger(__name__)

_STALL = 10.0  # seconds without progress
_WHOLE = 60.0  # seconds for one request to arrive: the largest one takes less than one
_ANSWER = 600.0  # seconds for a write, and for those before it in the queue
_THREADS = 16
_BACKLOG = 128
_PAUSE = 0.1
_TAKEN = write_frame(ACCEPTED, {})

_TIMEVAL = struct.Struct("@ll")


class Unanswered(NotAvailable):
    """A request was taken, and whether it was done is unknown."""


class WriteServer:
    """Calls `handle` for each request of another process, in threads of its own.

    Several may call it at once. What it raises is raised in the process that asked. A client that
    lies, breaks off or sleeps costs one of 16 threads, for a minute at most.
    """

    def __init__(
        self, folder: Path, handle: Callable[[Request], Reply], *, stall: float = _STALL
    ) -> None:
        self._path = folder / SOCKET
        self._handle = handle
        self._stall = stall  # seconds without progress after which a client is dropped
        self._service: _Service | None = None
        self._inode = 0

    @property
    def serving(self) -> bool:
        """Whether this process serves the others."""
        return self._service is not None and self._service.mine

    def start(self) -> None:
        """Serve from now on; the caller holds the write lock. Twice is harmless.

        Where the file system has no sockets, a warning is logged and nobody is served.
        """
        if self.serving:
            return
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(listener.fileno(), 0o600)  # the mode that bind gives the file
            self._path.unlink(missing_ok=True)
            with address(self._path.parent) as short:
                listener.bind(short)
            self._inode = self._path.stat().st_ino
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            logger.warning(
                "No other process can write to %s meanwhile: its socket cannot be made (%s).",
                self._path.parent,
                error.strerror or error,
            )
            return
        self._service = _Service(listener, self._handle, stall=self._stall)
        self._service.start()

    def stop(self) -> None:
        """Finish what was taken, refuse the rest, remove the socket; harmless when stopped.

        `handle` may call it; otherwise the caller holds nothing that `handle` waits for.
        """
        service, self._service = self._service, None
        if service is None or not service.mine:
            return
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                self._path.unlink()
        service.stop()


class _Service:
    """The threads behind one listening socket: each accepts, serves, and accepts again."""

    def __init__(
        self, listener: socket.socket, handle: Callable[[Request], Reply], *, stall: float
    ) -> None:
        self._listener = listener
        self._handle = handle
        self._stall = stall
        self._pid = os.getpid()
        self._mutex = threading.Lock()
        self._stopping = False
        self._threads: list[threading.Thread] = []
        self._idle = 0
        self._open: set[socket.socket] = set()
        self._reading: set[socket.socket] = set()
        _services.add(self)

    @property
    def mine(self) -> bool:
        """Whether this process began it; a forked child has the object without its threads."""
        return self._pid == os.getpid()

    def start(self) -> None:
        with self._mutex:
            self._spawn()

    def stop(self) -> None:
        with self._mutex:
            self._stopping = True
            with suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes those that accept
            for connection in self._reading:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RD)
            threads = [one for one in self._threads if one is not threading.current_thread()]
        for thread in threads:
            thread.join()
        self._listener.close()

    def drop(self) -> None:
        """Close the sockets without a word to their other ends, which the parent talks to."""
        for inherited in (self._listener, *self._open):
            inherited.close()

    def _spawn(self) -> None:
        thread = threading.Thread(target=self._work, name="triptych-writer", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            logger.warning("No thread could be started for the writes of other processes.")
            return
        self._threads.append(thread)
        self._idle += 1

    def _work(self) -> None:
        while (connection := self._accepted()) is not None:
            try:
                with connection:
                    self._serve(connection)
            except Exception:
                logger.exception("A write of another process failed.")
            finally:
                with self._mutex:
                    self._reading.discard(connection)
                    self._open.discard(connection)
                    self._idle += 1

    def _accepted(self) -> socket.socket | None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                if self._stopping:
                    return None
                time.sleep(_PAUSE)  # out of files, say
                continue
            with self._mutex:
                self._open.add(connection)
                self._reading.add(connection)
                self._idle -= 1
                if not self._idle and len(self._threads) < _THREADS and not self._stopping:
                    self._spawn()
            return connection

    def _serve(self, connection: socket.socket) -> None:
        try:
            check_peer(connection)
            # after the listener was shut down, those in its queue still come
            request = None if self._stopping else self._request(connection)
        except (InvalidInput, NotAvailable) as error:
            self._answer(connection, encode_error(error))
            return
        with self._mutex:
            self._reading.discard(connection)
            stopping = self._stopping
        if stopping:
            self._answer(connection, encode_error(_ending()))
            return
        if request is None or not self._answer(connection, _TAKEN):
            return
        if not isinstance(request, Ping):
            self._answer(connection, self._done(request))

    def _request(self, connection: socket.socket) -> Request | None:
        try:
            return decode_request(receive(connection, stall=self._stall, total=_WHOLE))
        except (OSError, EOFError):
            return None

    def _done(self, request: Request) -> list[Buffer]:
        try:
            return encode_reply(self._handle(request))
        except TriptychError as error:
            return encode_error(error)
        except Exception as error:
            logger.exception("A write of another process failed.")
            what = f"The process that writes failed: {type(error).__name__}."
            return encode_error(TriptychError(what, hint="Its log says more."))

    def _answer(self, connection: socket.socket, parts: list[Buffer]) -> bool:
        try:
            send(connection, parts, timeout=self._stall)
        except OSError:
            return False
        return True


_services: weakref.WeakSet[_Service] = weakref.WeakSet()


def _drop_inherited() -> None:
    for service in list(_services):
        service.drop()


# a child that kept the sockets would keep clients waiting after its parent's death
os.register_at_fork(after_in_child=_drop_inherited)


class RemoteWriter:
    """Hands writes to the process that holds the lock. Stateless: threads and forks may share it.

    Each method raises what it would raise in that process, CollectionBusy where nobody answers
    (nothing was written; the lock may be free now), NotAvailable where the connection broke after
    the request was taken, InvalidInput for a request over 256 MB.
    """

    def __init__(self, folder: Path, *, timeout: float = _STALL, patience: float = _ANSWER) -> None:
        self._folder = folder
        self._timeout = timeout  # seconds until the request is taken
        self._patience = patience  # seconds until it is done

    def check(self) -> None:
        """Raise CollectionBusy where nobody takes writes."""
        parts = encode_request(Ping())
        with self._connected() as connection:
            self._hand_over(connection, parts)

    def write(self, entries: Sequence[Entry], *, replace: bool, fingerprint: str) -> int:
        """Return how many items were stored, in one transaction."""
        request = Write(entries=entries, replace=replace, fingerprint=fingerprint)
        return self._ask(request, self._patience).number

    def delete(self, ids: Sequence[str]) -> int:
        """Return how many of the ids were there and are gone."""
        return self._ask(Delete(ids=ids), self._patience).number

    def touch(self, states: Mapping[int, FileState]) -> None:
        """Note how the files behind these rows look now."""
        self._ask(Touch(states=states), self._patience)

    def compact(self) -> None:
        """Give space back, however long it takes."""
        self._ask(Compact(), None)

    def begin_space(self, space: Space) -> int:
        """Return the number of the space begun for this model."""
        return self._ask(BeginSpace(space), self._patience).number

    def put_vectors(
        self, space: int, rows_N: Rows, vectors_NM: Matrix, states: Sequence[Tokens | None]
    ) -> None:
        """Store vectors of a space, and token states where it keeps them."""
        request = PutVectors(space=space, rows_N=rows_N, vectors_NM=vectors_NM, states=states)
        self._ask(request, self._patience)

    def switch(self, space: int, *, from_thumbnails: bool) -> None:
        """Have this space searched, and its index built, however long it takes."""
        self._ask(SwitchSpace(space, from_thumbnails), None)

    def drop_space(self, space: int) -> None:
        """Delete a space."""
        self._ask(DropSpace(space), self._patience)

    def _ask(self, request: Request, patience: float | None) -> Reply:
        parts = encode_request(request)
        with self._connected() as connection:
            self._hand_over(connection, parts)
            try:
                answer = receive(connection, stall=patience)
            except (OSError, EOFError, InvalidInput):
                raise Unanswered(
                    f"The process that writes to {self._folder} took the request and never "
                    f"answered: whether it was done is unknown.",
                    hint="Run the same upsert or delete again, twice is harmless.",
                ) from None
        return decode_reply(answer)

    def _hand_over(self, connection: socket.socket, parts: Sequence[Buffer]) -> None:
        # where it is refused in the middle, the reason is there to be read
        with suppress(OSError):
            send(connection, parts, timeout=self._timeout)
        try:
            first = self._first_frame(connection)
        except (OSError, EOFError):
            raise self._busy("does not take writes of others now") from None
        except InvalidInput as error:
            raise NotAvailable(f"{self._folder / SOCKET}: {error.message}") from None
        if first.kind != ACCEPTED:
            decode_reply(first)  # raises the refusal

    def _first_frame(self, connection: socket.socket) -> Frame:
        try:
            return receive(connection, stall=self._timeout)
        except TimeoutError:
            # from now on nothing can come; what came in time can still be read
            connection.shutdown(socket.SHUT_RDWR)
            return receive(connection, stall=self._timeout)

    def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            # with Python's own timeout a full queue would fail at once instead of being waited for
            whole, part = divmod(self._timeout, 1)
            wait = _TIMEVAL.pack(int(whole), int(part * 1e6))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
            with address(self._folder) as short:
                connection.connect(short)
            if os.geteuid() != 0:
                check_peer(connection)
        except BaseException as error:
            connection.close()
            if isinstance(error, PermissionError):
                raise NotAvailable(
                    f"You may not write to {self._folder}: process {self._holder()}, which "
                    "does, is another user's.",
                    hint="Run both as the same user.",
                ) from None
            if isinstance(error, OSError):
                raise self._busy("serves no others") from None
            raise
        return connection

    def _busy(self, what: str) -> CollectionBusy:
        return CollectionBusy(
            f"{self._folder} is being written to by process {self._holder()}, which {what}.",
            hint="Wait for it to end; searching works meanwhile.",
        )

    def _holder(self) -> str:
        try:
            pid = (self._folder / "lock").read_bytes()[:32]
        except OSError:
            return "unknown"
        return pid.decode("ascii", "replace").strip() or "unknown"


def _ending() -> CollectionBusy:
    return CollectionBusy(
        f"Process {os.getpid()}, which wrote to the collection, is letting go of it.",
        hint="Run the same again.",
    )
