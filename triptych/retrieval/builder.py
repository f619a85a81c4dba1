"""Builds the saved index anew, in the background as the collection grows.

The old one serves meanwhile; what is written meanwhile is replayed from the store. Only the
process that holds the write lock builds.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import TypeVar

from triptych.errors import TriptychError
from triptych.index.manifest import Manifest, State
from triptych.index.plan import Budget, kinds
from triptych.index.snapshot import Snapshots, Staged
from triptych.index.sqlite.store import Store
from triptych.index.tuning import fit
from triptych.retrieval.live import LiveIndex, identity_of
from triptych.types import Matrix, Rows

T = TypeVar("T")

logger = logging.getLogger(__name__)

_FEW = 256  # so many rows are read back from the store in milliseconds
_DEAR = 5_000  # so many rows beside an index double the time of a search
_QUIET = 1.0  # seconds without a write
_MANY = 50_000  # rows in memory that are worth a file
_BUSY = 0.1  # seconds after a write in which the next is likely
_WAITED = 2  # times as long as it worked: beside endless writes a build takes three times as long
# nice: what is built in the background leaves the processor to searches; but only while Python's
# lock is free, or who waits for it waits for whoever has the processor
_POLITE = 15
_REMEMBERED = 256  # changes before an index, whose removals copies of the collection may ask for


class Builder:
    """One per open collection. `mutex` is held by whoever writes."""

    def __init__(
        self,
        store: Store,
        live: LiveIndex,
        snapshots: Snapshots | None,
        mutex: threading.RLock,
        *,
        kind: str,
        budget: Budget,
        threads: int,
    ) -> None:
        self._store = store
        self._live = live
        self._snapshots = snapshots
        self._mutex = mutex
        self._kind = kind
        self._budget = budget
        self._threads = threads
        self._one_at_a_time = threading.Lock()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None
        self._tried = 0  # items when an approximate index was last tried
        self._written = 0.0  # when the last write was

    def sweep(self) -> None:
        """Remove what a crash has left half built; the caller holds the write lock."""
        if self._snapshots is not None:
            self._snapshots.sweep()

    def withdraw(self) -> None:
        """Let nobody use what is saved: another model's vectors are next; as with `sweep`."""
        if self._snapshots is not None:
            self._snapshots.withdraw()
        self._tried = 0

    def poke(self) -> None:
        """Begin to build in the background where that is due; called after each write."""
        self._written = time.monotonic()
        if self._thread is None and not self._stopped.is_set() and self._is_due():
            self._thread = threading.Thread(target=self._in_background, daemon=True, name="build")
            self._thread.start()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """End what is built in the background, and begin nothing: it would hold the store's log."""
        self._stopped.set()
        if (thread := self._thread) is not None:
            thread.join()
        try:
            yield
        finally:
            self._stopped.clear()

    def build(self) -> None:
        """Build now and serve from it, unless nothing is missing; the caller holds the lock."""
        wanted = self._wanted(len(self._live))
        saved = self._live.manifest
        if saved is None or self._live.pending or not _fits(saved, wanted):
            self._build(wanted)

    def build_if_due(self) -> None:
        """Build now what would be built in the background, and what is half built there anew.

        The caller waits, so the polite one, which may get no processor at all, is not waited for.
        """
        with self.paused():
            pass
        if self._is_due():
            self.build()

    def close(self) -> None:
        """Stop what is being built, and save what is cheap to save and dear to read again."""
        self._stopped.set()
        if self._thread is not None:
            self._thread.join()
        behind = self._live.manifest is None or self._live.pending > max(_FEW, len(self._live) // 8)
        if self._snapshots is None or not behind or not len(self._live):
            return
        wanted = self._wanted(len(self._live))
        if self._kind == "auto" and wanted[0] != "flat":
            if not self._live.exact:
                return
            wanted = ("flat",)  # the approximate index is built by the next one who has the time
        self._store.lock()
        self._stopped.clear()
        self._build(wanted)

    def _wanted(self, count: int) -> Sequence[str]:
        if self._kind != "auto":
            return (self._kind,)
        meta = self._live.meta
        return kinds(count, meta.dim, meta.precision, self._budget)

    def _is_due(self) -> bool:
        count = len(self._live)
        if self._snapshots is None or self._wanted(count)[0] == "flat":
            return False
        if self._live.exact:
            return self._tried + self._tried // 5 < count
        return self._live.pending > min(count // 5, _DEAR + count // 50)

    def _in_background(self) -> None:
        try:
            while self._is_due() and not self._stopped.wait(_QUIET / 4):
                if time.monotonic() - self._written >= _QUIET:
                    self._build(self._wanted(len(self._live)), polite=True)
                # in a long load a graph would soon be too small; but memory must not grow with it
                elif self._live.pending > max(_MANY, len(self._live) // 2):
                    self._build(("flat",), polite=True)
        except TriptychError as error:
            logger.warning("%s: the index could not be built: %s", self._store.path, error)
        finally:
            self._thread = None

    def _build(self, wanted: Sequence[str], *, polite: bool = False) -> None:
        snapshots = self._snapshots
        if snapshots is None:
            return
        with self._one_at_a_time:
            stage = partial(self._staged, snapshots, wanted, polite=polite)
            # a priority once given up is not to be had again, and those who write wait for the rest
            staged = _in_a_thread(stage) if polite else stage()
            if staged is None:
                return
            if wanted[0] != "flat":
                self._tried = staged.manifest.count
            with self._mutex:
                if not self._store.writing or self._is_past(staged.manifest):
                    snapshots.discard(staged)
                    return
                manifest = snapshots.publish(staged)
                opened = snapshots.open(self._live.identity)
                if opened is not None:
                    self._live.adopt(*opened)
                    # a transaction for nothing would take room ahead of it
                    if manifest.sequence > _REMEMBERED:
                        self._store.forget(manifest.sequence - _REMEMBERED)

    def _is_past(self, built: Manifest) -> bool:
        """Whether another model's vectors are searched by now, or were in between."""
        return (
            built.fingerprint != self._store.meta.fingerprint or built.sequence < self._store.floor
        )

    def _staged(
        self, snapshots: Snapshots, wanted: Sequence[str], *, polite: bool
    ) -> Staged | None:
        """Return what is built of the store as it is now, None where it is empty or cancelled."""
        stopped = self._stepping_aside() if polite else self._stopped.is_set
        with ExitStack() as stack:
            view = stack.enter_context(self._store.view())
            if not view.count:
                return None
            space = view.space

            def chunks() -> Iterator[tuple[Rows, Matrix]]:
                yield from ((part.rows_N, part.vectors_NM) for part in view.chunks())
                stack.close()  # what follows takes minutes, and reads the row file alone
                if polite:  # not before: at this, Python's lock is held
                    _be_polite()

            return snapshots.build(
                chunks(),
                kinds=wanted,
                tune=partial(
                    fit,
                    recall=self._budget.recall,
                    insist=self._kind != "auto",
                    cancelled=self._stopped.is_set,  # searches are timed: they wait for nobody
                ),
                # of the view, whatever is searched by now
                identity=replace(
                    self._live.identity(),
                    fingerprint=space.fingerprint,
                    dim=space.dim,
                    precision=space.precision,
                ),
                state=State(epoch=view.epoch, sequence=view.sequence, last_row=view.last_row),
                count=view.count,
                threads=1 if polite else self._threads,
                cancelled=stopped,
            )

    def _stepping_aside(self) -> Callable[[], bool]:
        """Return what a build asks every now and then: whether to stop. It lets writes go first."""
        began = time.monotonic()

        def stopped() -> bool:
            nonlocal began
            now = time.monotonic()
            until = now + _WAITED * (now - began)
            while time.monotonic() < min(until, self._written + _BUSY):
                if self._stopped.wait(_BUSY / 10):
                    break
            began = time.monotonic()
            return self._stopped.is_set()

        return stopped


def _in_a_thread(work: Callable[[], T]) -> T:
    """Return what `work` returns, or raise what it raises."""
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, daemon=True, name="build").start()
    return done.result()


def _be_polite() -> None:
    """Leave the processor to all others, from now on, in this thread."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _POLITE)


def build_index(
    store: Store, snapshots: Snapshots, wanted: Sequence[str] | None = None, *, threads: int = 1
) -> Manifest | None:
    """Build the saved index of a store that is not being searched, of one of the kinds `wanted`.

    None chooses by the default budget. Never more than a few thousand vectors are in memory,
    beyond what the kind itself takes. The caller holds the store's lock. Returns None where there
    is no item.
    """
    budget, meta = Budget(), store.meta
    with store.view() as view:
        if not view.count:
            return None
        staged = snapshots.build(
            ((part.rows_N, part.vectors_NM) for part in view.chunks()),
            kinds=wanted or kinds(view.count, meta.dim, meta.precision, budget),
            tune=partial(fit, recall=budget.recall, insist=wanted is not None),
            identity=identity_of(store),
            state=State(epoch=view.epoch, sequence=view.sequence, last_row=view.last_row),
            count=view.count,
            threads=threads,
        )
    assert staged is not None, "nobody can cancel it"
    return snapshots.publish(staged)


def _fits(saved: Manifest, wanted: Sequence[str]) -> bool:
    """Whether it is of a kind that would be built again."""
    return saved.kind in wanted and (saved.kind != "flat" or wanted[0] == "flat")
