"""What an answer cache does beside answering: tidy up after changes, and have answers ready.

Answers of before a change are out of reach at once; here they are also deleted, in every tier, so
that what was deleted from the collection is soon nowhere.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from triptych.errors import TriptychError
from triptych.retrieval.answers import OPTIONS, Answers
from triptych.retrieval.query_log import QueryLog
from triptych.types import Part, Query

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpkeepConfig:
    pause: float = 10.0  # seconds between a change and the tidying, which looks at every key
    warm: int = 200  # questions that are asked again at the start, and of another model


DEFAULT = UpkeepConfig()


class Upkeep:
    """Looks after `answers` until close, in threads that live for as long as there is work.

    What is logged, and asked again, goes by way of `collection.search`: see `Answers.attach`.
    """

    def __init__(
        self, answers: Answers, *, log: QueryLog | None = None, config: UpkeepConfig = DEFAULT
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

    def _is_ready(self, question: Any) -> bool:
        if self._closed:
            return False
        try:
            asked, options = _unsaid(question)
            self._answers.collection.search(asked, **options)
        except (TriptychError, ValueError, TypeError, KeyError):
            return False  # of a deleted item, another model, or another release
        return True

    def _note(self, asked: Query, options: tuple[Any, ...]) -> None:
        if self._log is None or getattr(self._warming, "on", False):
            return
        if all(part.image is None and part.vector is None for part in asked.parts):
            parts = [[part.weight, part.text, part.id] for part in asked.parts]
            self._log.note({"parts": parts, **dict(zip(OPTIONS, options, strict=True))})

    def _is_stale(self, question: Any) -> bool:
        try:
            ids = [part[2] for part in question["parts"] if part[2] is not None]
            return None in self._answers.collection.get(ids)
        except (TypeError, KeyError, IndexError, ValueError):
            return True  # no question of ours


def _unsaid(question: dict[str, Any]) -> tuple[Query, dict[str, Any]]:
    parts = [Part(weight=weight, text=text, id=id) for weight, text, id in question["parts"]]
    options = {name: question[name] for name in OPTIONS}
    if options["filter"] is not None:
        options["filter"] = json.loads(options["filter"])
    return Query(tuple(parts)), options
