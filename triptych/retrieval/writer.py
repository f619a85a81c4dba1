"""Writes to a collection: done here where this process may, else handed to the process that does.

The first write takes the lock and keeps it until close; from then on this process serves the
writes of the others over a local socket.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from triptych.errors import CollectionBusy, ModelMismatch
from triptych.index.handoff import RemoteWriter, WriteServer
from triptych.index.records import Entry, FileState
from triptych.index.requests import Compact, Delete, Ping, Reply, Request, Touch, Write
from triptych.index.store import Store
from triptych.retrieval.builder import Builder
from triptych.retrieval.live import LiveIndex

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
    ) -> None:
        self._store = store
        self._live = live
        self._builder = builder
        self._folder = folder
        self._check = check
        self._mutex = mutex
        self._server = WriteServer(folder, self._serve) if folder else None
        self._ready = False  # this process holds the lock and serves the others

    def write(self, entries: Sequence[Entry], *, replace: bool) -> int:
        """Return how many items are stored now."""

        def here() -> int:
            self._live.follow(self._store.write(entries, replace=replace))
            return len(entries)

        fingerprint = self._store.meta.fingerprint
        return self._do(
            here, lambda other: other.write(entries, replace=replace, fingerprint=fingerprint)
        )

    def delete(self, ids: Sequence[str]) -> int:
        """Return how many of the ids were there and are gone."""

        def here() -> int:
            change = self._store.delete(ids)
            self._live.follow(change)
            return len(change.removed_N)

        return self._do(here, lambda other: other.delete(ids))

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

    def optimize(self) -> None:
        """Build the index now if it has fallen behind; nothing where another process writes."""
        if self._do(lambda: True, lambda other: False):
            self._builder.build_if_due()

    def claim(self) -> None:
        """Make sure that writing is possible; raises CollectionBusy."""
        self._do(lambda: None, lambda other: other.check())

    def close(self) -> None:
        """Stop serving, with what is being written finished, and save the index."""
        if self._server is not None:
            self._server.stop()
        self._builder.close()

    def _do(self, here: Callable[[], T], there: Callable[[RemoteWriter], T]) -> T:
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
                    self._builder.poke()
                    return done
            try:
                return there(RemoteWriter(self._folder))
            except CollectionBusy:
                if time.monotonic() > until:
                    raise
            time.sleep(_PAUSE)  # whoever wrote may just be coming or going

    def _become(self) -> None:
        if self._ready:
            return
        self._store.lock()
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
                self._check_fingerprint(request.fingerprint)
                number = self.write(request.entries, replace=request.replace)
            case Delete():
                number = self.delete(request.ids)
            case Touch():
                self.touch(request.states)
                number = len(request.states)
            case Compact():
                self.compact()
                number = 0
            case Ping():
                number = 0
        return Reply(number=number, sequence=self._store.sequence)

    def _check_fingerprint(self, fingerprint: str) -> None:
        if fingerprint != self._store.meta.fingerprint:
            raise ModelMismatch(
                f"Got vectors of the model {fingerprint[:12]}, the collection holds those of "
                f"{self._store.meta.fingerprint[:12]}.",
                hint="Open the collection again.",
            )
