"""Whether the server can do what it is for: a true embedding and a true search, again and again."""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from triptych.encoders.base import EmbeddingModel
from triptych.errors import NotAvailable, Overloaded
from triptych.retrieval.batching import BatchingModel
from triptych.retrieval.collection import Collection
from triptych.retrieval.models import holds_own_vectors
from triptych.types import Item

logger = logging.getLogger(__name__)

_EVERY = 5.0  # seconds
_OLD = 15.0  # a success that is older counts for nothing
_WINDOW = 10.0
_MANY = 5  # errors of ours in a window without one success


@dataclass(slots=True)
class _Check:
    went_well: float = 0.0  # time.monotonic()
    ok: bool = False
    ms: float = 0.0

    def json(self, now: float) -> dict[str, Any]:
        age = round(now - self.went_well, 1) if self.went_well else None
        return {"ok": self.is_good(now), "ms": round(self.ms, 2), "age_s": age}

    def is_good(self, now: float) -> bool:
        return self.ok and now - self.went_well <= _OLD


class Health:
    """Tries the model and a small collection in memory, and watches what callers are answered."""

    def __init__(
        self, *, model: Callable[[], EmbeddingModel], data: Path, every: float = _EVERY
    ) -> None:
        self._model, self._data, self._every = model, data, every
        self._checks = {name: _Check() for name in ("embed", "search", "data")}
        self._collection: Collection | None = None
        self._numbers = itertools.count()
        self._task: asyncio.Task[None] | None = None
        self._failed, self._went_well = 0, 0
        self._calls, self._goes_on = 0, False  # of the model: done, and more than at the last look
        self._since = time.monotonic()
        self.draining = False
        self.also: dict[str, Callable[[], bool]] = {}  # further things that must go well

    def note(self, status: int) -> None:
        """Count an answer that was given to a caller."""
        now = time.monotonic()
        if now - self._since > _WINDOW:
            self._failed, self._went_well, self._since = 0, 0, now
        if status == 500:
            self._failed += 1
        elif status < 400:
            self._went_well += 1

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the server is ready, and why."""
        now = time.monotonic()
        checks = {name: check.json(now) for name, check in self._checks.items()}
        recent = now - self._since <= _WINDOW
        checks["answers"] = {"ok": not (recent and self._failed >= _MANY and not self._went_well)}
        checks |= {name: {"ok": is_well()} for name, is_well in self.also.items()}
        is_ready = not self.draining and all(check["ok"] for check in checks.values())
        return is_ready, {"status": "ready" if is_ready else "not_ready", "checks": checks}

    async def start(self) -> None:
        """Try once, then again and again until stopped."""
        await asyncio.to_thread(self.probe)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """Try no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._collection is not None:
            self._collection.close()

    def probe(self) -> None:
        """Try everything now."""
        calls = self._calls_done()
        self._goes_on, self._calls = calls > self._calls, calls
        self._try("data", lambda: os.scandir(self._data).close())
        self._try("embed", self._embed)
        self._try("search", self._search)

    def _try(self, name: str, attempt: Callable[[], object]) -> None:
        check, start = self._checks[name], time.monotonic()
        try:
            attempt()
        except Overloaded:
            # so many wait: all servers red at once would send everybody away, while a model that
            # stands still is to be told from one that is busy
            if self._goes_on:
                check.ok, check.went_well = True, time.monotonic()
        except Exception as error:
            # of a server that stops the collection is closed, perhaps while it is searched
            if (check.ok or not check.ms) and not self.draining:
                logger.error("not ready, %s: %s", name, error)
            check.ok = False
        else:
            check.ok, check.went_well = True, time.monotonic()
        check.ms = (time.monotonic() - start) * 1000

    def _calls_done(self) -> int:
        try:
            model = self._model()
        except Exception:  # the probe of it will say why
            return 0
        return model.load.calls if isinstance(model, BatchingModel) else 0

    def _embed(self) -> None:
        model = self._model()
        if holds_own_vectors(model):
            return
        # never the same text: no cache may answer
        rows_NM = model.embed([Item(id="probe", text=f"probe {next(self._numbers)}")])
        if rows_NM.shape != (1, model.dim):
            raise NotAvailable(f"The model gave {rows_NM.shape}.")

    def _search(self) -> None:
        if self._collection is None:
            self._collection = self._filled()
        if holds_own_vectors(model := self._model()):
            found = self._collection.search(vector=[1.0] * model.dim, limit=1)
        else:
            found = self._collection.search(f"dog {next(self._numbers)}", limit=1)
        if not found:
            raise NotAvailable("A search found nothing.")

    def _filled(self) -> Collection:
        model = self._model()
        collection = Collection.open(":memory:", embedder=model)
        if holds_own_vectors(model):
            collection.add([{"id": "a", "vector": [1.0] * model.dim}])
        else:
            collection.add([{"id": "a", "text": "a dog"}, {"id": "b", "text": "a red shoe"}])
        return collection

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._every)
            await asyncio.to_thread(self.probe)
