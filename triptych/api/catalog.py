"""The collections of all tenants, each opened when it is first asked for, and their models."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from triptych.api.errors import ApiError
from triptych.cache.base import Cache, NoCache
from triptych.cache.keys import answer_prefix
from triptych.encoders.base import EmbeddingModel
from triptych.errors import CollectionBusy, InvalidInput, NotFound, TriptychError
from triptych.index.sqlite.meta import Meta, Space
from triptych.retrieval.answering.answer_cache import AnswerCache
from triptych.retrieval.answering.query_log import NAME as QUERIES
from triptych.retrieval.answering.upkeep import DEFAULT as UPKEEP
from triptych.retrieval.answering.upkeep import Upkeep, UpkeepConfig
from triptych.retrieval.batching import BatchingModel, batched
from triptych.retrieval.collection import Collection
from triptych.retrieval.folder import STORE
from triptych.retrieval.library import Library
from triptych.retrieval.models import holds_own_vectors
from triptych.settings import Settings
from triptych.types import Precision, Query

logger = logging.getLogger(__name__)

_OPEN = 64  # collections kept open without being used
_PATIENCE = 10.0  # seconds that a drop waits for those who still read
_DROPPING = "dropping"  # in a collection's folder: another worker waits to delete it
_LOOK = 0.05  # seconds between two tries


@dataclass(slots=True, eq=False)
class _Slot:
    answers: AnswerCache | None = None
    upkeep: Upkeep | None = None
    path: Path | None = None  # of what is open
    store: tuple[int, int] | None = None  # its file
    users: int = 0
    dropping: bool = False
    replacing: bool = False
    waiting: int = 0  # of the users, those who wait for it to be open
    opening: threading.Lock = field(default_factory=threading.Lock)

    def close(self) -> None:
        """Close what is open; twice is harmless."""
        if self.upkeep is not None:
            self.upkeep.close()
        if self.answers is not None:
            self.answers.collection.close()
        self.answers = self.upkeep = self.path = None


class Catalog:
    """Hands out open collections; any thread may ask."""

    def __init__(
        self,
        settings: Settings,
        *,
        models: tuple[str, ...],
        cache: Cache | None = None,
        keep_open: int = _OPEN,
        upkeep: UpkeepConfig = UPKEEP,
    ) -> None:
        self.settings = settings
        self.cache: Cache = NoCache() if cache is None else cache
        self.model_names = models  # the first is the default
        self._keep_open = keep_open
        self._upkeep = upkeep
        self.has_siblings = False  # other processes of the same server
        self.again: Callable[[AnswerCache, Query, Mapping[str, Any]], object] | None = None
        """Asks a question that was logged, so that its answer is ready."""
        self._models: dict[str, EmbeddingModel] = {}
        self._remembering: dict[tuple[str, str], EmbeddingModel] = {}
        self._slots: OrderedDict[tuple[str, str], _Slot] = OrderedDict()
        self._mutex = threading.Lock()
        self._idle = threading.Condition(self._mutex)
        self._loading = threading.RLock()

    @property
    def num_open(self) -> int:
        """How many collections are open."""
        return sum(slot.answers is not None for slot in list(self._slots.values()))

    def names(self, tenant: str) -> list[str]:
        """Return the names of the tenant's collections, sorted."""
        return self._library(tenant).list()

    def peek(self, tenant: str, name: str) -> AnswerCache | None:
        """Return the answers of a collection that is open, perhaps not for long."""
        slot = self._slots.get((tenant, name))
        return None if slot is None or slot.dropping or slot.replacing else slot.answers

    @contextmanager
    def using(self, tenant: str, name: str) -> Iterator[Collection]:
        """Yield the open collection; raises NotFound."""
        with self.answering(tenant, name) as answers:
            yield answers.collection

    @contextmanager
    def answering(self, tenant: str, name: str) -> Iterator[AnswerCache]:
        """Yield the open collection's answers; raises NotFound."""
        if self.peek(tenant, name) is None:
            self._present(tenant, name)  # before it has a slot: names that are none need none
        slot = self._enter(tenant, name)
        try:
            with self._opening(slot):
                if slot.path is not None and slot.store != _identity(slot.path):
                    slot.close()  # another process dropped it, and may have made it anew
                if slot.answers is None:
                    path = self._existing(tenant, name)
                    slot.path, slot.store = path, _identity(path)
                    slot.answers = self._open(path, tenant, name)
                    slot.upkeep = self._looked_after(slot.answers)
            yield slot.answers
        finally:
            self._leave(slot)

    def create(
        self, tenant: str, name: str, *, model: str, precision: Precision, tokens: bool
    ) -> None:
        """Make an empty collection; raises ApiError where it exists, NotFound for the model."""
        library = self._library(tenant)
        embedder = self.model_for(model)
        with self._loading:
            self.settings.keep(embedder)  # first: no collection is made whose model is not here
            try:
                path = library.create(name)
            except InvalidInput:
                if name not in library.list():
                    raise
                raise ApiError(
                    409, "already_exists", f"The collection {name!r} exists already."
                ) from None
            Collection.open(path, embedder=embedder, precision=precision, tokens=tokens).close()

    def drop(self, tenant: str, name: str) -> None:
        """Delete the collection once nobody uses it; raises NotFound, CollectionBusy."""
        self._existing(tenant, name)
        slot = self._enter(tenant, name)
        try:
            with self._mutex:
                slot.dropping = True
                if not self._idle.wait_for(lambda: slot.users == 1, timeout=_PATIENCE):
                    raise CollectionBusy(f"The collection {name!r} is in use.", hint="Try again.")
            slot.close()
            self._drop(tenant, name)
            # whoever makes another of this name has other generations; this is for tidiness
            self.cache.purge(answer_prefix(tenant, name))
        finally:
            slot.dropping = False
            self._leave(slot)

    def _drop(self, tenant: str, name: str) -> None:
        """Delete the files, once no other worker writes to them either."""
        library, until = self._library(tenant), time.monotonic() + _PATIENCE
        marker = library.path(name) / _DROPPING
        while True:
            try:
                library.drop(name)
                return
            except CollectionBusy:
                if not self.has_siblings or time.monotonic() > until:
                    marker.unlink(missing_ok=True)
                    raise
            marker.touch()  # again and again: of one that crashed it becomes old
            time.sleep(_LOOK)

    def let_go(self) -> None:
        """Close what another worker wants to drop, unless it is in use this very moment."""
        for (tenant, name), slot in list(self._slots.items()):
            marker = self._library(tenant).path(name) / _DROPPING
            try:
                is_wanted = time.time() - marker.stat().st_mtime < _PATIENCE
            except OSError:
                continue
            with self._mutex:
                if not is_wanted or slot.users or slot.dropping:
                    continue
                slot.dropping = True  # nobody enters meanwhile
            slot.close()
            slot.dropping = False

    def replace(self, tenant: str, name: str, folder: Path) -> None:
        """Put the collection in `folder` in the place of `name`; who asks meanwhile waits a moment.

        Raises CollectionBusy where somebody does not end.
        """
        slot = self._enter(tenant, name)
        with slot.opening:
            try:
                with self._mutex:
                    slot.replacing = True
                    if not self._idle.wait_for(lambda: slot.users <= 1 + slot.waiting, _PATIENCE):
                        raise CollectionBusy(f"{name!r} is in use.", hint="Try again.")
                slot.close()
                self._library(tenant).replace(name, folder)
            finally:
                slot.replacing = False
                self._leave(slot)

    def model(self, name: str | None) -> EmbeddingModel:
        """Return a model that requests may name; raises NotFound for any other."""
        name = name or self.model_names[0]
        if name not in self.model_names:
            known = ", ".join(self.model_names)
            raise NotFound(f"There is no model {name!r}, known: {known}.")
        with self._loading:
            if name not in self._models:
                self._models[name] = self._shared(
                    self.settings.open_model(name, threads=self.settings.threads or 1)
                )
            return self._models[name]

    def models(self) -> list[EmbeddingModel]:
        """Return the models that are loaded, each once."""
        return [model for name, model in list(self._models.items()) if name.startswith("=")]

    def remembering(self, name: str | None, tenant: str) -> EmbeddingModel:
        """Return the model with a memory for what this tenant embedded."""
        model = self.model(name)
        key = (tenant, model.fingerprint)
        if key not in self._remembering:
            self._remembering[key] = self.settings.cached(model, cache=self.cache, tenant=tenant)
        return self._remembering[key]

    def model_for(self, name: str | None) -> EmbeddingModel:
        """Return the model of a new collection: one of ours, or the caller's own vectors."""
        if name is not None and name.startswith("vectors:"):
            return self.settings.open_model(name)
        return self.model(name)

    def warm(self) -> None:
        """Open the collections whose questions are logged: their answers are then made ready."""
        if not self.settings.cache.query_log:
            return
        for path in sorted(self.settings.data.glob(f"*/*/{QUERIES}"))[: self._keep_open]:
            try:
                with self.answering(path.parent.parent.name, path.parent.name):
                    pass
            except (TriptychError, OSError):
                logger.warning("%s was not made ready", path.parent, exc_info=True)

    def close_models(self) -> None:
        """Have the models answer what waits and take nothing more in."""
        for model in list(self._models.values()):
            if isinstance(model, BatchingModel):
                model.close()

    def close(self) -> None:
        """Close all collections and models."""
        with self._mutex:
            slots = list(self._slots.values())
            self._slots.clear()
        for slot in slots:
            slot.close()
        self.close_models()
        self.cache.close()

    def _library(self, tenant: str) -> Library:
        return self.settings.library(tenant)

    def _existing(self, tenant: str, name: str) -> Path:
        try:
            return self._library(tenant).existing(name)
        except InvalidInput:  # no such name can be: the same answer as for one that is free
            raise NotFound(
                f"There is no collection {name!r}.", hint="See: GET /v1/collections"
            ) from None
        except NotFound as error:
            raise NotFound(error.message, hint="See: GET /v1/collections") from None

    def _present(self, tenant: str, name: str) -> Path:
        """Return where it is, waiting for one that is being replaced; raises NotFound."""
        try:
            return self._existing(tenant, name)
        except NotFound:
            slot = self._slots.get((tenant, name))
            if slot is None or not slot.replacing:
                raise
        with slot.opening:
            return self._existing(tenant, name)

    def _enter(self, tenant: str, name: str) -> _Slot:
        with self._mutex:
            slot = self._slots.setdefault((tenant, name), _Slot())
            self._slots.move_to_end((tenant, name))
            if slot.dropping:
                raise NotFound(f"There is no collection {name!r}.", hint="See: GET /v1/collections")
            slot.users += 1
        return slot

    @contextmanager
    def _opening(self, slot: _Slot) -> Iterator[None]:
        with self._mutex:
            slot.waiting += 1
            self._idle.notify_all()
        with slot.opening:
            with self._mutex:
                slot.waiting -= 1
            yield

    def _leave(self, slot: _Slot) -> None:
        closing = []
        with self._mutex:
            slot.users -= 1
            self._idle.notify_all()
            for key in list(self._slots)[: max(len(self._slots) - self._keep_open, 0)]:
                if not self._slots[key].users:
                    closing.append(self._slots.pop(key))
        for old in closing:
            old.close()

    def _open(self, path: Path, tenant: str, name: str) -> AnswerCache:
        known = Collection.peek(path)
        if known is None:
            raise NotFound(f"There is no collection {path.name!r}.")
        cached = partial(self.settings.cached, cache=self.cache, tenant=tenant)
        collection = Collection.open(
            path,
            embedder=cached(self._model_of(known)),
            budget=self.settings.budget,
            model_of=lambda known: cached(self._model_of(known)),
            threads=self.settings.num_threads,
        )
        answers = self.settings.answers(collection, cache=self.cache, tenant=tenant, name=name)
        return answers.attach_near()

    def _looked_after(self, answers: AnswerCache) -> Upkeep:
        """Have what a change puts out of reach deleted, and what is asked most ready."""
        upkeep = self.settings.upkeep(answers, config=self._upkeep)
        if self.again is not None:
            upkeep.ask = partial(self.again, answers)
        upkeep.start()
        return upkeep

    def _model_of(self, known: Meta | Space) -> EmbeddingModel:
        with self._loading:
            name = f"={known.fingerprint}"
            if name not in self._models:
                threads = self.settings.threads or 1
                self._models[name] = self._shared(self.settings.model_of(known, threads=threads))
            return self._models[name]

    def _shared(self, model: EmbeddingModel) -> EmbeddingModel:
        """Return the one already open that has the same fingerprint, or this one, queued for."""
        name = f"={model.fingerprint}"
        if name not in self._models:
            self._models[name] = model if holds_own_vectors(model) else batched(model)
        return self._models[name]


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(f"{path}/{STORE}")  # for each search: quicker than to join two paths
    except OSError:
        return None
    return found.st_dev, found.st_ino
