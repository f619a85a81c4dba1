"""What an answer cache does beside answering: tidy up after changes, and have answers ready.

Answers of before a change are out of reach at once; here they are also deleted, in every tier, so
that what was deleted from the collection is soon nowhere.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from triptych.errors import TriptychError
from triptych.retrieval.answering.answer_cache import AnswerCache
from triptych.retrieval.answering.query_log import QueryLog
from triptych.retrieval.answering.questions import asked_of, ids_in
from triptych.types import Query

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepConfig:
    pause: float = 10.0  # seconds between a change and the tidying, which looks at every key
    warm: int = 200  # questions that are asked again at the start, and of another model


DEFAULT = UpkeepConfig()


class Upkeep:
    """Looks after `answers` until close, in threads that live for as long as there is work.

    What is logged, and asked again, goes by way of `collection.search` (see `AnswerCache.attach`),
    unless `ask` is set to another.
    """

    def __init__(
        self, answers: AnswerCache, *, log: QueryLog | None = None, config: UpkeepConfig = DEFAULT
    ) -> None:
        self._answers = answers
        self._log = log
        self._config = config
        self._lock = threading.Lock()
        self._pending: threading.Timer | None = None
        self._closed = False
        self._warming = threading.local()
        self._model = answers.collection.embedder.fingerprint
        answers.changed = self._changed
        answers.asked = None if log is None else self._note
        self.ask: Callable[[Query, Mapping[str, Any]], object] = self._search  # to warm with

    def warm(self) -> int:
        """Ask the most frequent questions again; return how many of them have an answer ready."""
        self._warming.on = True
        try:
            questions = self._log.top(self._config.warm) if self._log else []
            return sum(self._is_ready(question) for question in questions)
        finally:
            self._warming.on = False

    def start(self) -> None:
        """Do `warm` in a thread of its own, where there is a log."""
        if self._log is not None:
            work = partial(self._quietly, self.warm)
            threading.Thread(target=work, name="triptych-warm", daemon=True).start()

    def tidy(self) -> None:
        """Delete what is out of reach: older answers, questions that name items that are gone."""
        self._answers.purge()
        if self._log is not None:
            self._log.drop(self._is_stale)

    def close(self) -> None:
        """Stop, and write the log down. Twice is harmless."""
        with self._lock:
            self._closed = True
            if self._pending is not None:
                self._pending.cancel()
        if self._log is not None:
            self._log.save()

    def _changed(self) -> None:
        with self._lock:
            if self._closed or self._pending is not None:
                return
            self._pending = threading.Timer(self._config.pause, self._after_change)
            self._pending.daemon = True
            self._pending.start()

    def _after_change(self) -> None:
        with self._lock:
            self._pending = None
        self._quietly(self.tidy)
        model = self._answers.collection.embedder.fingerprint
        if model != self._model:
            self._model = model
            self._quietly(self.warm)

    def _quietly(self, work: Callable[[], object]) -> None:
        try:
            work()
        # a copy that is not tidied, or not there yet, is still only a copy
        except Exception:
            if not self._closed:
                logger.debug("The cache was not looked after.", exc_info=True)

    def _is_ready(self, question: str) -> bool:
        if self._closed:
            return False
        try:
            self.ask(*asked_of(question))
        except (TriptychError, ValueError, TypeError, KeyError):
            return False  # of a deleted item, another model, or another release
        return True

    def _note(self, question: str) -> None:
        if getattr(self._warming, "on", False) or self._log is None:
            return
        if self._log.note(question):
            # whoever asked, perhaps an event loop, does not wait for the disk
            threading.Thread(target=self._log.save, name="triptych-log", daemon=True).start()

    def _is_stale(self, question: str) -> bool:
        try:
            return None in self._answers.collection.get(ids_in(question))
        except (TypeError, KeyError, ValueError):
            return True  # no question of ours

    def _search(self, asked: Query, options: Mapping[str, Any]) -> object:
        return self._answers.collection.search(asked, **options)
