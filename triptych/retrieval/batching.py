"""Dynamic batching: requests that come at the same time share the calls of one model.

As in Orca and Clipper: nobody waits for a batch to fill, the batch is what came while the model
was busy. Which of it shares a call is planned by length (`triptych.lengths`).

Letters: N items of a call, M embedding width.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, replace
from math import ceil
from threading import Condition, Thread
from typing import NamedTuple

import numpy as np

from triptych.deadline import remaining
from triptych.encoders.base import EmbeddingModel
from triptych.encoders.pictures.picture import load_picture
from triptych.encoders.segments import ReadsSegments, Segment, mean_of_segments
from triptych.errors import InvalidInput, NotAvailable, Overloaded, TimedOut
from triptych.retrieval.prepare import batches, weighed
from triptych.retrieval.waiting import Request, Share, Waiting
from triptych.types import Item, Matrix

_AT_ONCE = 64  # items of one request in the queue: their pictures are decoded
_BYTES_A_TOKEN = 4
_LONG = 256  # tokens, estimated: who has more may have more than one segment
_NEWEST = 0.2  # share of the latest call in the running mean of the pace


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchingConfig:
    """All in tokens, but for `linger`."""

    budget: int = 768  # of one model call: count x longest
    overhead: int = 512  # what a call costs besides: much, as the default model pads nothing
    picture: int = 32  # what a picture costs: 6.5 ms
    longest: int = 2048  # what a text counts at most that is not read in segments
    most: int = 16_384  # that may wait; 4 s
    share: int = 2_048  # of that, what one request takes at a time: else others are refused for it
    linger: float = 0.002  # seconds for company to come back, after a call that had company


DEFAULT = BatchingConfig()


class Load(NamedTuple):
    """What the queue holds and how fast it goes."""

    requests: int
    tokens: int
    seconds: float  # until all that waits is done, estimated
    calls: int  # of the model, since the start
    items: int  # that were in them


class BatchingModel:
    """An `EmbeddingModel` that threads share; the rows are those of the model without company.

    One thread runs the model. `embed` raises Overloaded when too much waits, TimedOut when the
    caller's deadline (`triptych.deadline`) passes or would.
    """

    def __init__(self, model: EmbeddingModel, config: BatchingConfig = DEFAULT) -> None:
        self.name, self.fingerprint, self.dim = model.name, model.fingerprint, model.dim
        self.languages = model.languages
        # what collections ask of a model beside the protocol
        self.picture_size: int | None = getattr(model, "picture_size", None)
        self.folder = getattr(model, "folder", None)
        self.config = config
        self.model = model  # for what is not batched: token states, scores of pairs
        self._segmented = model.segmented if isinstance(model, ReadsSegments) else None
        self._waiting = Waiting()
        self._come = Condition()  # guards all below
        self._wanted = 1  # so many requests wake the thread
        self._company = 1  # requests in the last call
        self._pace = 0.0  # seconds a token, running mean
        self._calls = self._items = 0
        self._thread: Thread | None = None
        self._is_closing = False

    def embed(self, items: Sequence[Item]) -> Matrix:
        """Return emb_NM, float32 unit rows, in order.

        A long text goes in segments, and others get in between. Raises PictureError and the
        model's own errors for these items only, whatever else is in the calls that they share.
        What was let in is not refused for want of room midway.
        """
        owners: list[int] = []
        parts = (
            part
            for batch in batches(self._in_segments(items, owners), _AT_ONCE)
            for part in weighed(batch, self._cost, most=self.config.share)
        )
        rows = [self._ask(part, begins=not at) for at, part in enumerate(parts)]
        if not rows:
            return np.empty((0, self.dim), dtype=np.float32)
        emb_NM = rows[0] if len(rows) == 1 else np.concatenate(rows)
        if len(owners) == len(items):
            return emb_NM
        return mean_of_segments(emb_NM, owners, len(items))

    def _in_segments(self, items: Sequence[Item], owners: list[int]) -> Iterator[Item]:
        """Yield the items, or one for each segment of a long text, and note whose each is.

        A picture goes with each segment: to read it again is a tenth of what a segment takes.
        """
        for owner, item in enumerate(items):
            some = [item]
            if self._segmented and item.text and self._cost(replace(item, image=None)) > _LONG:
                parts = self._segmented(item.text, pictured=item.image is not None)
                seen = self._decoded(item)  # once for all of them
                some = [replace(seen, text=one) for one in parts]
            owners += [owner] * len(some)
            yield from some

    @property
    def load(self) -> Load:
        with self._come:
            return Load(
                requests=len(self._waiting),
                tokens=self._waiting.tokens,
                seconds=self._seconds(),
                calls=self._calls,
                items=self._items,
            )

    def close(self) -> None:
        """Take nothing more in, and return when all that waits is answered."""
        with self._come:
            self._is_closing = True
            self._come.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _ask(self, items: Sequence[Item], *, begins: bool) -> Matrix:
        # decoded by the caller's own thread: a broken picture meets nobody else
        ready = [self._decoded(item) for item in items]
        request = Request(ready, [self._cost(item) for item in ready], self.dim)
        with self._come:
            self._admit(request, begins=begins)
            self._waiting.put(request)
            if len(self._waiting) >= self._wanted:
                self._come.notify()
        try:
            return request.answer.result(remaining())
        except NotYet:
            with self._come:
                self._waiting.drop(request)
            raise self._late("The deadline has passed.") from None

    def _decoded(self, item: Item) -> Item:
        if item.image is None:
            return item
        return replace(item, image=load_picture(item.image, size_hint=self.picture_size))

    def _cost(self, item: Item) -> int:
        picture = 0 if item.image is None else self.config.picture
        if isinstance(item.text, Segment):
            return len(item.text.ids) + picture
        text = 0 if item.text is None else 2 + len(item.text.encode()) // _BYTES_A_TOKEN
        return max(1, min(text, self.config.longest) + picture)

    def _admit(self, request: Request, *, begins: bool) -> None:
        if self._is_closing:
            raise NotAvailable(f"The model {self.name} is being closed.")
        tokens = self._waiting.tokens
        if begins and tokens and tokens + request.cost > self.config.most:
            raise Overloaded(
                f"{len(self._waiting)} requests wait for the model already.",
                retry_after=self._retry_after(),
            )
        left = remaining()
        if left is not None and left <= self._seconds():
            raise self._late(f"{max(left, 0):.1f} s are left, and what waits takes longer.")
        if self._thread is None:
            self._thread = Thread(target=self._run, name="triptych-model", daemon=True)
            self._thread.start()

    def _late(self, message: str) -> TimedOut:
        return TimedOut(message, retry_after=self._retry_after())

    def _retry_after(self) -> float:
        return max(0.1, self._seconds())

    def _seconds(self) -> float:
        """Return how long all that waits takes, estimated; what a call costs besides counts too.

        Else the first few words, whose call is nearly all overhead, foretell hours for a long text.
        """
        calls = ceil(self._waiting.tokens / self.config.budget)
        return (self._waiting.tokens + calls * self.config.overhead) * self._pace

    def _run(self) -> None:
        ended = 0.0
        while True:
            with self._come:
                self._wait(ended)
                if not self._waiting:
                    return
                taken = self._waiting.take(budget=self.config.budget, overhead=self.config.overhead)
            start = time.monotonic()
            self._answer(taken)
            ended = time.monotonic()
            with self._come:
                self._note(taken, ended - start)

    def _wait(self, ended: float) -> None:
        """Return when there is something to do, or never again will be.

        The callers of a shared call come back together: they are waited for, a moment.
        """
        self._wanted = self._company
        until = ended + self.config.linger
        while len(self._waiting) < self._wanted and not self._is_closing:
            left = until - time.monotonic()
            if left <= 0:
                if self._waiting:
                    break
                self._wanted = 1
            self._come.wait(left if left > 0 else None)
        self._wanted = 1

    def _note(self, taken: Sequence[Share], seconds: float) -> None:
        tokens = self.config.overhead + sum(request.costs[at] for request, at in taken)
        pace = seconds / tokens
        self._pace += (pace - self._pace) * (_NEWEST if self._calls else 1.0)
        self._company = len({id(request) for request, _ in taken})
        self._calls += 1
        self._items += len(taken)

    def _answer(self, taken: Sequence[Share]) -> None:
        """Embed the items; where that fails, halve the company until the error has an owner."""
        try:
            rows_NM = self.model.embed([request.items[at] for request, at in taken])
            if rows_NM.shape != (len(taken), self.dim):
                raise InvalidInput(
                    f"{self.name} gave rows of shape {rows_NM.shape}, "
                    f"expected {(len(taken), self.dim)}."
                )
        except BaseException as error:  # whatever it is, it must not end the thread
            owners = list(dict.fromkeys(request for request, _ in taken))
            if len(owners) == 1:
                self._fail(owners[0], error)
                return
            half = set(owners[: len(owners) // 2])
            self._answer([share for share in taken if share[0] in half])
            self._answer([share for share in taken if share[0] not in half])
        else:
            for (request, at), vector_M in zip(taken, rows_NM, strict=True):
                request.fill(at, vector_M)

    def _fail(self, owner: Request, error: BaseException) -> None:
        with self._come:
            self._waiting.drop(owner)
        owner.fail(error)


def batched(model: EmbeddingModel, config: BatchingConfig = DEFAULT) -> BatchingModel:
    """Return the model behind a queue."""
    return BatchingModel(model, config)
