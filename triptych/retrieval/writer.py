"""Writes to a collection: done here where this process may, else handed to the process that does.

The first write takes the lock and keeps it until close; from then on this process serves the
writes of the others over a local socket.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TypeVar

from triptych.errors import CollectionBusy
from triptych.index.remote.handoff import RemoteWriter, Unanswered, WriteServer
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
from triptych.index.sqlite.meta import Space
from triptych.index.sqlite.records import Entry, FileState, Tokens
from triptych.index.sqlite.store import Store
from triptych.retrieval.builder import Builder
from triptych.retrieval.folder import REPAIRING
from triptych.retrieval.live import LiveIndex
from triptych.types import Matrix, Rows

T = TypeVar("T")

_PATIENCE = 1.0  # seconds
_PAUSE = 0.02


class Writer:
    """One per open collection; any thread may call."""

    def __init__(
        self,
        store: Store,
        live: LiveIndex,
        builder: Builder,
        mutex: threading.RLock,
        *,
        folder: Path | None,
        check: Callable[[], None],
        finish: Callable[[Space, bool], None],
    ) -> None:
        self._store = store
        self._live = live
        self._builder = builder
        self._folder = folder
        self._check = check
        self._finish = finish
        self._mutex = mutex
        self._server = WriteServer(folder, self._serve) if folder else None
        self._ready = False  # this process holds the lock and serves the others

    def write(self, entries: Sequence[Entry], *, replace: bool, fingerprint: str) -> int:
        """Return how many items are stored now.

        Raises ModelMismatch where another model than that of `fingerprint` is searched by now.
        """

        def here() -> int:
            change = self._store.write(entries, replace=replace, fingerprint=fingerprint)
            self._live.follow(change)
            return len(entries)

        return self._do(
            here,
            lambda other: other.write(entries, replace=replace, fingerprint=fingerprint),
            repeatable=replace,
        )

    def delete(self, ids: Sequence[str]) -> int:
        """Return how many of the ids were there and are gone."""

        def here() -> int:
            change = self._store.delete(ids)
            self._live.follow(change)
            return len(change.removed_N)

        return self._do(here, lambda other: other.delete(ids))

    def apply(self, entries: Sequence[Entry], gone: Sequence[int]) -> None:
        """Store items, replacing by id, and take rows away besides, in one transaction.

        Raises CollectionBusy where another process writes: it has no word for this.
        """

        def here() -> None:
            self._live.follow(self._store.apply(entries, gone))

        self._do(here, _refuse)

    def touch(self, states: Mapping[int, FileState]) -> None:
        """Note that these files look different while their content is the same."""
        self._do(lambda: self._store.touch(dict(states)), lambda other: other.touch(states))

    def compact(self) -> None:
        """Give space back and build the index anew."""

        def here() -> bool:
            self._store.compact()
            return True

        def there(other: RemoteWriter) -> bool:
            other.compact()
            return False

        with self._builder.paused():
            done_here = self._do(here, there)
        if done_here:
            self._builder.build()  # not under the mutex, which a build in the background waits for

    def begin_space(self, wanted: Space) -> Space:
        """Return the space begun for this model before, or a new one."""

        def here() -> int:
            begun = self._store.begin_space(
                model=wanted.model,
                fingerprint=wanted.fingerprint,
                dim=wanted.dim,
                precision=wanted.precision,
                token_width=wanted.token_width,
            )
            return begun.space

        return self._store.space(self._do(here, lambda other: other.begin_space(wanted)))

    def put_vectors(
        self, space: Space, rows_N: Rows, vectors_NM: Matrix, states: Sequence[Tokens | None]
    ) -> None:
        """Store what a space has of items; rows that are gone are skipped."""

        def here() -> None:
            self._store.put_vectors(self._store.space(space.space), rows_N, vectors_NM, states)

        self._do(here, lambda other: other.put_vectors(space.space, rows_N, vectors_NM, states))

    def switch(self, space: Space, *, from_thumbnails: bool) -> None:
        """Search this space from now on; `build` its index afterwards.

        The last few vectors are made here, `from_thumbnails` where a picture is lost. Raises
        InvalidInput while an item has no vector in it, ModelMismatch without its model.
        """

        def here() -> None:
            self._finish(self._store.space(space.space), from_thumbnails)
            if len(self._store.missing(space, limit=1)) == 0:
                self._builder.withdraw()
            self._store.switch(space)
            self._live.refresh()

        def there(other: RemoteWriter) -> None:
            other.switch(space.space, from_thumbnails=from_thumbnails)

        self._do(here, there, poke=False)

    def build(self) -> None:
        """Build the index where this process writes and it lacks something.

        Not while `holding`: a build in the background, which it waits for, waits for the holder.
        """
        if self._ready:
            self._builder.build()

    def drop_space(self, space: Space) -> None:
        """Delete a space that is not searched."""
        self._do(
            lambda: self._store.drop_space(self._store.space(space.space)),
            lambda other: other.drop_space(space.space),
        )

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Let nobody else write meanwhile; nothing where another process writes."""
        with self._mutex if self._ready else nullcontext():
            yield

    def optimize(self) -> None:
        """Do now what would come later: build the index, if it has fallen behind, and move the log.

        Nothing where another process writes.
        """

        def here() -> bool:
            self._store.move_log()
            return True

        if self._do(here, lambda other: False):
            self._builder.build_if_due()

    def claim(self) -> None:
        """Make sure that writing is possible; raises CollectionBusy."""
        self._do(lambda: None, lambda other: other.check())

    def close(self) -> None:
        """Stop serving, with what is being written finished, and save the index."""
        if self._server is not None:
            self._server.stop()
        if self._ready and self._store.is_mostly_free():
            with self._builder.paused():
                self._store.compact()
        self._builder.close()

    def _do(
        self,
        here: Callable[[], T],
        there: Callable[[RemoteWriter], T],
        *,
        poke: bool = True,
        repeatable: bool = False,
    ) -> T:
        """Write here or have it written; what is `repeatable` again, if the writer died at it."""
        until = time.monotonic() + _PATIENCE
        while True:
            with self._mutex:
                try:
                    self._become()
                except CollectionBusy:
                    if self._folder is None:
                        raise
                else:
                    done = here()
                    if poke:
                        self._builder.poke()
                    return done
            try:
                return there(RemoteWriter(self._folder))
            except CollectionBusy:
                if time.monotonic() > until:
                    raise
            except Unanswered:
                if not repeatable:
                    raise
                repeatable, until = False, time.monotonic() + _PATIENCE
            time.sleep(_PAUSE)  # whoever wrote may just be coming or going

    def _become(self) -> None:
        if self._ready and self._store.writing:  # a forked child has the lock no more
            return
        self._store.lock()
        if self._folder is not None:  # what a repair left that was killed
            shutil.rmtree(self._folder / REPAIRING, ignore_errors=True)
        # until now another process may have written, or given the collection a model
        self._store.refreshed_meta()
        self._check()
        self._live.refresh()
        self._builder.sweep()
        if self._server is not None:
            self._server.start()
        self._ready = True

    def _serve(self, request: Request) -> Reply:
        match request:
            case Write():
                number = self.write(
                    request.entries, replace=request.replace, fingerprint=request.fingerprint
                )
            case Delete():
                number = self.delete(request.ids)
            case Touch():
                self.touch(request.states)
                number = len(request.states)
            case Compact():
                self.compact()
                number = 0
            case BeginSpace():
                number = self.begin_space(request.space).space
            case PutVectors():
                space = self._store.space(request.space)
                self.put_vectors(space, request.rows_N, request.vectors_NM, request.states)
                number = len(request.rows_N)
            case SwitchSpace():
                space = self._store.space(request.space)
                self.switch(space, from_thumbnails=request.from_thumbnails)
                self.build()
                number = request.space
            case DropSpace():
                self.drop_space(self._store.space(request.space))
                number = request.space
            case Ping():
                number = 0
        return Reply(number=number, sequence=self._store.sequence)


def _refuse(other: RemoteWriter) -> None:
    raise CollectionBusy("Another process writes to this copy of a collection.")
