"""Another model for a collection, without an outage.

Vectors of the new model are made beside the old ones, batch by batch, each one durable: whatever
stops a migration, the next one goes on. Where token states are kept, to rerank with, each batch
brings those too. When every item has what it needs, one transaction switches the search over. What
is of the old model stays, so going back costs only what was written since.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from triptych.encoders.base import EmbeddingModel
from triptych.encoders.pictures.picture import PictureLimits
from triptych.errors import InvalidInput, NotAvailable, NotFound
from triptych.index.sqlite.meta import Space
from triptych.retrieval.collection import Collection
from triptych.retrieval.late import stored_tokens
from triptych.retrieval.maintenance.originals import Found, Lost
from triptych.retrieval.models import holds_own_vectors
from triptych.retrieval.prepare import batches

Progress = Callable[[int, int], object]
"""Called with how many items are done, and how many there are to do."""

_BATCH = 64
_AT_ONCE = 4_096
_ROUNDS = 2  # before writers are held off: what came during the first is less than all
_OVERHEAD = 64  # bytes that a stored vector takes beside its numbers
_SPARE = 32 * 2**20  # bytes for the log
_REASONS = {
    "picture_gone": "its picture is not there any more",
    "picture_not_kept": "only a thumbnail was kept",
    "picture_changed": "its picture is another one now",
    "damaged": "damaged on disk",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class MigrateOptions:
    """What becomes of items whose picture is gone or another one now, and of token states.

    They stop the migration, unless they are embedded from their thumbnails, which are at most 256
    pixels wide and so less exact, or dropped from the collection.
    """

    from_thumbnails: bool = False
    drop_missing: bool = False
    drop_tokens: bool = False  # keep no states of `model`, searched already or not: no reranking
    limits: PictureLimits = field(default_factory=PictureLimits)
    progress: Progress | None = None


@dataclass(slots=True)
class MigrateReport:
    """What a migration did; `before` and `after` are the models that were and are searched."""

    before: str
    after: str
    embedded: int = 0
    from_thumbnails: int = 0
    without_tokens: int = 0  # items whose states went, where the model was searched already
    dropped: list[Lost] = field(default_factory=list)
    seconds: float = 0.0


def migrate(
    collection: Collection, model: EmbeddingModel, options: MigrateOptions | None = None
) -> MigrateReport:
    """Search `collection` with `model` from now on; everybody may search and write meanwhile.

    The model must be one that `model_of` of the other processes finds. Raises NotAvailable where
    items cannot be embedded again, the disk has not the room or the model gives no token states
    while some are kept (nothing is switched, what was embedded is kept), InvalidInput for vectors
    of the caller's own.
    """
    started = time.monotonic()
    options = options or MigrateOptions()
    before = collection.spaces.current()
    _check_makes_vectors(before, model)
    report = MigrateReport(before=before.model, after=model.name)
    if before.fingerprint != model.fingerprint:
        _Migration(collection, model, options, report).run()
    elif options.drop_tokens and before.token_width:
        report.without_tokens = collection.spaces.drop_tokens(model)
        collection.compact()
    report.seconds = time.monotonic() - started
    return report


def previous(collection: Collection) -> Space:
    """Return the space to go back to: the most complete of those that are not searched.

    Raises NotFound where there is none.
    """
    others = collection.spaces.others()
    if not others:
        raise NotFound(
            "There are no vectors of another model to go back to.",
            hint="Make them anew: triptych migrate --model NAME",
        )
    return others[0]


def drop_old(collection: Collection) -> int:
    """Delete all vectors that are not searched, give their bytes back; return of how many models.

    Raises NotAvailable where the disk has not the room to compact.
    """
    dropped = 0
    for space in collection.spaces.others():
        with suppress(InvalidInput, NotFound):  # another has just switched to it, or dropped it
            collection.spaces.drop(space)
            dropped += 1
    if dropped:
        collection.compact()
    return dropped


class _Migration:
    def __init__(
        self,
        collection: Collection,
        model: EmbeddingModel,
        options: MigrateOptions,
        report: MigrateReport,
    ) -> None:
        self._collection = collection
        self._spaces = collection.spaces
        self._model = model
        self._options = options
        self._report = report
        self._total = 0
        self._originals = self._spaces.originals(
            model, limits=options.limits, from_thumbnails=options.from_thumbnails
        )

    def run(self) -> None:
        space = self._spaces.begin(self._model, drop_tokens=self._options.drop_tokens)
        self._check_room(space)
        if not self._options.drop_missing:
            self._check_present(space)
        for _ in range(_ROUNDS):
            self._fill(space)
        while not self._switched(space):
            self._fill(space)
        self._spaces.build()

    def _switched(self, space: Space) -> bool:
        """Catch up and switch; False where another process has written in between."""
        with self._spaces.holding():
            self._fill(space)
            try:
                self._spaces.switch(space, from_thumbnails=self._options.from_thumbnails)
            except InvalidInput:  # not every item has its vector and its states
                return False
            return True

    def _fill(self, space: Space) -> None:
        """Embed all that has no vector now."""
        lost: list[Lost] = []
        with ThreadPoolExecutor(1, thread_name_prefix="originals") as reader:
            some = self._pending(space)
            coming = reader.submit(self._next, some)
            while (found := coming.result()) is not None:
                coming = reader.submit(self._next, some)
                lost += found.lost + self._embed(space, found)
                self._show()
        self._part_with(lost)

    def _next(self, some: Iterator[list[int]]) -> Found | None:
        rows = next(some, None)
        return None if rows is None else self._originals.read(rows)

    def _pending(self, space: Space) -> Iterator[list[int]]:
        # what is written meanwhile is for the next time: who writes faster is not chased
        yield from batches(self._spaces.missing(space, 0, -1).tolist(), _BATCH)

    def _embed(self, space: Space, found: Found) -> list[Lost]:
        """Embed and store one batch; return the items that the model cannot place."""
        if not found.items:
            return []
        try:
            vectors_NM = self._model.embed(found.items)
            states = stored_tokens(self._model, found.items, space.token_width)
        except InvalidInput as error:
            if len(found.items) == 1:
                return [Lost(row=found.rows[0], id=found.items[0].id, code=error.code)]
            pairs = zip(found.rows, found.items, strict=True)
            alone = (Found(rows=[row], items=[item]) for row, item in pairs)
            return list(chain.from_iterable(self._embed(space, one) for one in alone))
        self._spaces.put(space, np.array(found.rows, dtype=np.int64), vectors_NM, states)
        self._report.embedded += len(found.items)
        self._report.from_thumbnails += found.num_thumbnails
        return []

    def _part_with(self, lost: Sequence[Lost]) -> None:
        there = self._spaces.still_there([one.row for one in lost])
        lost = [one for one in lost if one.row in there]
        if not lost:
            return
        if not self._options.drop_missing:
            raise _stopped(lost, done=self._report.embedded)
        self._collection.delete([one.id for one in lost])
        self._report.dropped += lost

    def _check_present(self, space: Space) -> None:
        """Raise NotAvailable before the work where a look at the files is enough to know."""
        row, lost = 0, []
        while len(rows_N := self._spaces.missing(space, row, _AT_ONCE)):
            row = int(rows_N[-1])
            lost += self._originals.absent(rows_N.tolist())
        if lost:
            raise _stopped(lost, done=0)

    def _check_room(self, space: Space) -> None:
        self._total = len(self._spaces.missing(space, 0, -1))
        folder = self._collection.folder
        if folder is None:
            return
        size = 2 if space.precision == "fp16" else 4
        # once in the store, once in the saved index
        each = 2 * size * space.dim + _OVERHEAD + self._spaces.token_bytes(space)
        needed = self._total * each + _SPARE
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise NotAvailable(
                f"The vectors of {space.model} for {self._total:,} items take "
                f"{needed >> 20:,} MB, {free >> 20:,} MB are free.",
                hint="Free some space and run the same again.",
            )

    def _show(self) -> None:
        done = self._report.embedded
        if self._options.progress is not None:
            self._options.progress(done, max(self._total, done))


def _check_makes_vectors(before: Space, model: EmbeddingModel) -> None:
    if holds_own_vectors(before):
        raise InvalidInput(
            f"This collection holds vectors of the caller's own ({before.model}): no model can "
            "make others of them.",
            hint="Add the items with new vectors to a new collection.",
        )
    if holds_own_vectors(model):
        raise InvalidInput(
            f"{model.name} makes no vectors, so there is nothing to migrate to.",
            hint="See: triptych models",
        )


def _stopped(lost: Sequence[Lost], *, done: int) -> NotAvailable:
    some = ", ".join(f"{one.id!r} ({_REASONS.get(one.code, one.code)})" for one in lost[:3])
    more = f" and {len(lost) - 3:,} more" if len(lost) > 3 else ""
    kept = f" The {done:,} vectors made so far are kept." if done else ""
    count = "1 item" if len(lost) == 1 else f"{len(lost):,} items"
    is_stale = any(one.code == "picture_changed" for one in lost)
    first = "Index their folder again" if is_stale else "Put the files back"
    return NotAvailable(
        f"{count} cannot be embedded again: {some}{more}.{kept}",
        hint=f"{first}, or say --from-thumbnails (less exact) or --drop-missing.",
    )
