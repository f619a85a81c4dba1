"""Items into collections, each with its own fate: a go at a time. Runs in the pool.

How much a go is, is for the caller to say: see `Pace`.
"""

from __future__ import annotations

import time
from codecs import BOM_UTF8
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from triptych.api.bodies import parse_json, validated
from triptych.api.catalog import Catalog
from triptych.api.config import Limits
from triptych.api.errors import ApiError, shown, too_large
from triptych.api.pictures import Pictures
from triptych.api.schemas import ItemBody
from triptych.deadline import remaining
from triptych.errors import InvalidInput, ModelMismatch, Overloaded, TimedOut, TriptychError
from triptych.index.sqlite.records import Picture
from triptych.retrieval.collection import Collection
from triptych.retrieval.models import holds_own_vectors
from triptych.retrieval.prepare import FIRST, Prepared, next_size, prepare
from triptych.types import Item

Mode: TypeAlias = Literal["add", "upsert"]
Before: TypeAlias = Callable[[set[str]], set[str]]
"""Of the ids that are there to those that were, before a go that broke off and is done again."""

_MOST = 64
_MOST_VECTORS = 1_024
_LONGEST_WAIT = 1.0  # seconds between two looks whether there is room


@dataclass(slots=True)
class WriteOutcome:
    """What became of items."""

    most: int  # errors listed
    written: int = 0
    num_errors: int = 0
    errors: list[dict[str, Any]] = field(default_factory=list)

    def fail(self, index: int, id: Any, error: TriptychError) -> None:
        """Note that an item was left out, and why."""
        self.num_errors += 1
        if len(self.errors) < self.most:
            name = id if isinstance(id, str) else None
            self.errors.append({"index": index, "id": name, "error": shown(error)})

    def add(self, other: WriteOutcome) -> None:
        """Take over what became of other items."""
        self.written += other.written
        self.num_errors += other.num_errors
        self.errors += other.errors[: self.most - len(self.errors)]

    def json(self) -> dict[str, Any]:
        """Return it as a reply shows it."""
        return {"written": self.written, "errors": self.errors, "num_errors": self.num_errors}


@dataclass(slots=True)
class Pace:
    """How many items are in the next go: what takes some two seconds; of vectors there are more."""

    most: int = _MOST
    size: int = FIRST
    done: int = 0  # items, or lines

    @contextmanager
    def going(self, size: int) -> Iterator[None]:
        """Have so many, `self.size` at most, stored inside."""
        start = time.monotonic()
        yield
        self.size = next_size(self.size, size, time.monotonic() - start, most=self.most)
        self.done += size


class ItemWriter:
    """Checks items one by one and stores the good ones."""

    def __init__(
        self,
        *,
        catalog: Catalog,
        pictures: Pictures,
        limits: Limits,
        count: Callable[[str, int], None] = lambda outcome, number: None,
        keep: bool = True,
    ) -> None:
        self._catalog, self._pictures, self._limits = catalog, pictures, limits
        self._count = count  # told what became of so many items
        self._keep = keep  # the pictures as they were sent

    def write(
        self,
        tenant: str,
        name: str,
        given: Iterable[tuple[int, Any]],
        *,
        mode: Mode,
        files: Mapping[str, bytes] | None = None,
        before: Before = lambda there: there,
    ) -> WriteOutcome:
        """Store the items, each given with its index; an error in an item's place is its error.

        They are one transaction, unless one of them turns out to be at fault. Raises what is no
        single item's fault: NotFound, CollectionBusy, DiskFull ... And Overloaded only where
        nothing is stored yet: whoever gets that sends all of it again, and what is added twice is
        refused. Later there is room to wait for, up to the deadline. What is added, and is there,
        but was not `before`, is stored already.
        """
        outcome = WriteOutcome(self._limits.errors_listed)
        with self._catalog.using(tenant, name) as collection:
            ready = self._ready(collection, given, files or {}, outcome)
            if mode == "add":
                ready = _new_ones(collection, ready, outcome, before)
            self._put(collection, ready, mode, outcome)
        self._count("written", outcome.written)
        self._count("refused", outcome.num_errors)
        return outcome

    def pace(self, tenant: str, name: str) -> Pace:
        """Return how many items to begin with; raises NotFound for the collection."""
        with self._catalog.using(tenant, name) as collection:
            return Pace(_MOST_VECTORS if holds_own_vectors(collection.embedder) else _MOST)

    def _ready(
        self,
        collection: Collection,
        given: Iterable[tuple[int, Any]],
        files: Mapping[str, bytes],
        outcome: WriteOutcome,
    ) -> list[tuple[int, Prepared]]:
        """Return those that are sound."""
        ready = []
        for index, one in given:
            try:
                if isinstance(one, TriptychError):
                    raise one
                ready.append((index, self._prepared(collection, one, files)))
            except TriptychError as error:
                outcome.fail(index, one.get("id") if isinstance(one, dict) else None, error)
        return ready

    def _put(
        self,
        collection: Collection,
        ready: Sequence[tuple[int, Prepared]],
        mode: Mode,
        outcome: WriteOutcome,
    ) -> None:
        """Store all in one transaction; where one is at fault, halve until it is found."""
        if not ready:
            return
        try:
            _with_patience(
                lambda: collection.put([one for _, one in ready], replace=mode == "upsert"),
                ready[0][0] if outcome.written else 0,
            )
            outcome.written += len(ready)
        except (InvalidInput, ModelMismatch) as error:
            if len(ready) == 1:
                index, one = ready[0]
                outcome.fail(index, one.item.id, error)
                return
            half = len(ready) // 2
            self._put(collection, ready[:half], mode, outcome)
            self._put(collection, ready[half:], mode, outcome)

    def _prepared(self, collection: Collection, given: Any, files: Mapping[str, bytes]) -> Prepared:
        if not isinstance(given, dict):
            raise InvalidInput("An item is a JSON object.")
        body = validated(ItemBody, given)
        hint = getattr(collection.embedder, "picture_size", None)
        image, sent = None, None
        if body.image is not None:
            sent = self._pictures.sent(body.image, files=files)
            image = self._pictures.decode(sent, size_hint=hint)
        item = Item(
            id=body.id,
            text=body.text,
            image=image,
            vector=body.vector,
            metadata=body.metadata,
            uri=body.uri,
        )
        ready = prepare(item, size_hint=hint)
        if sent is None or not self._keep:
            return ready
        return replace(ready, picture=Picture.of(sent))


def _with_patience(put: Callable[[], object], taken_in: int) -> None:
    """Call `put`; where items were taken in before, until there is room for it.

    Raises TimedOut that says how many they are where there is none before the deadline.
    """
    while True:
        try:
            put()
            return
        except Overloaded as error:
            if not taken_in:
                raise
            left = remaining()
            if left is not None and left <= error.retry_after:
                raise late(error, taken_in=taken_in) from None
            time.sleep(min(error.retry_after, _LONGEST_WAIT))


def late(error: Overloaded, *, taken_in: int | None = None) -> TimedOut:
    """Return what it is where there was no room for the rest, all the time that there was."""
    said = TimedOut(error.message, retry_after=error.retry_after, hint=error.hint)
    said.taken_in = taken_in
    return said


def _new_ones(
    collection: Collection,
    ready: list[tuple[int, Prepared]],
    outcome: WriteOutcome,
    before: Before,
) -> list[tuple[int, Prepared]]:
    """Return those whose ids are neither stored nor named before."""
    records = collection.get([one.item.id for _, one in ready])
    there = {record.id for record in records if record is not None}
    taken = before(there)
    stored = there - taken
    new = []
    for index, one in ready:
        if one.item.id in taken:
            error = ApiError(409, "already_exists", f"There is an item {one.item.id!r} already.")
            outcome.fail(index, one.item.id, error)
            continue
        taken.add(one.item.id)
        if one.item.id in stored:
            outcome.written += 1
        else:
            new.append((index, one))
    return new


def parsed_lines(lines: Sequence[bytes], *, first: int, limits: Limits) -> list[tuple[int, Any]]:
    """Return the values of lines of JSON with their numbers; blank lines are left out.

    An error stands in the place of a line that cannot be read.
    """
    found: list[tuple[int, Any]] = []
    for index, line in enumerate(lines, first):
        if index == 0:
            line = line.removeprefix(BOM_UTF8)  # what Windows begins a file with
        if not line.strip():
            continue
        try:
            if len(line) > limits.line_bytes:
                raise too_large(f"The line has {len(line):,} bytes", most=limits.line_bytes)
            found.append((index, parse_json(line, depth=limits.json_depth, what="The line")))
        except TriptychError as error:
            found.append((index, error))
    return found
