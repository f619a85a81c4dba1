"""Several processes that serve one address, and one that looks after them.

Each worker listens by itself on a socket of the same address, and the system deals connections out
to them. The sockets are the parent's: who comes while a worker begins anew waits, and is not sent
away. Workers share the data folder, where one of them writes for all, tier 2 of the cache, and
here what keys have left of their rates.
"""

from __future__ import annotations

import fcntl
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from multiprocessing import connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from triptych.api.rates import Cell, Cells

logger = logging.getLogger(__name__)

_CELLS = 8_192  # two for a key: its rate and its quota
_SOUND = 30.0  # seconds: who has lived so long begins anew at once
_LONGEST = 30.0  # seconds between two beginnings of who dies again and again
_GRACE = 15.0  # seconds, beside those for draining, until what does not end is ended

_spawning = multiprocessing.get_context("spawn")  # threads and locks are not for forking


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """What a worker is told of itself and shares with the others."""

    number: int
    folder: Path  # what they say of themselves lies there
    memory: Any = field(repr=False)

    @property
    def cells(self) -> Cells:
        """What is left of rates and quotas, for all workers."""
        return Cells(self.memory, WorkerLock(self.folder / "turn"))


class WorkerLock(AbstractContextManager[None]):
    """One at a time, of all threads of all workers; the kernel takes it back from one that dies."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)  # until the process ends
        self._threads = threading.Lock()  # a process does not lock itself out

    def __enter__(self) -> None:
        self._threads.acquire()
        fcntl.lockf(self._file, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        fcntl.lockf(self._file, fcntl.LOCK_UN)
        self._threads.release()


Work = Callable[[Worker, socket.socket, Any], None]
"""Serves as this worker on the socket, as the third says, until SIGTERM; it can be imported."""


class Workers:
    """Starts workers, starts anew those that die, and stops all of them."""

    def __init__(self, work: Work, given: Any, sockets: list[socket.socket]) -> None:
        self._work, self._given, self._sockets = work, given, sockets
        self._memory = _spawning.RawArray(Cell, _CELLS)
        self._processes: dict[int, SpawnProcess] = {}
        self._started: dict[int, float] = {}
        self._failures = [0] * len(sockets)
        self._due: dict[int, float] = {}  # who is to begin anew, and when
        self._stop = threading.Event()

    def run(self, *, drain: float) -> None:
        """Serve until SIGTERM or SIGINT, then let all of them finish what runs."""
        for told in (signal.SIGTERM, signal.SIGINT):
            signal.signal(told, lambda *_: self._stop.set())
        with TemporaryDirectory(prefix="triptych-workers-") as folder:
            for number in range(len(self._sockets)):
                self._start(number, Path(folder))
            try:
                while not self._stop.is_set():
                    self._look(Path(folder))
            finally:
                self._end(drain + _GRACE)

    def _start(self, number: int, folder: Path) -> None:
        worker = Worker(number=number, folder=folder, memory=self._memory)
        process = _spawning.Process(
            target=_begin, args=(self._work, worker, self._sockets[number], self._given)
        )
        process.start()
        self._processes[number], self._started[number] = process, time.monotonic()

    def _look(self, folder: Path) -> None:
        """Wait a moment for a worker to die; have those that did begin anew when it is time."""
        connection.wait([one.sentinel for one in self._processes.values()], timeout=0.2)
        now = time.monotonic()
        for number, process in list(self._processes.items()):
            if process.is_alive() or self._stop.is_set():
                continue
            del self._processes[number]
            lived = now - self._started[number]
            self._failures[number] = 0 if lived > _SOUND else self._failures[number] + 1
            wait = min(2.0 ** (self._failures[number] - 2), _LONGEST)
            self._due[number] = now + (wait if self._failures[number] > 1 else 0.0)
            logger.error("worker %d ended (%s): it begins anew", number, process.exitcode)
        for number in [number for number, at in self._due.items() if at <= now]:
            del self._due[number]
            self._start(number, folder)

    def _end(self, patience: float) -> None:
        for process in self._processes.values():
            process.terminate()
        for listener in self._sockets:
            listener.close()  # or the system goes on taking connections, that nobody answers
        until = time.monotonic() + patience
        for process in self._processes.values():
            process.join(max(until - time.monotonic(), 0))
            if process.is_alive():
                process.kill()
                process.join()


def _begin(work: Work, worker: Worker, listener: socket.socket, given: Any) -> None:
    """Be a worker, and end with the parent, however that ends."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    work(worker, listener, given)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
