"""Requests that wait for the model: in turn, and each with an answer or error of its own.

Letters: N items of a request, M embedding width.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from itertools import islice, repeat, zip_longest
from typing import TypeAlias

import numpy as np

from triptych.lengths import plan
from triptych.types import Item, Matrix, Vector

_LOOKED_AT = 256  # items that a plan is made of: a call holds fewer, and planning takes a moment


class Request:
    """Items of one caller, what each costs in tokens, and where their vectors go."""

    def __init__(self, items: Sequence[Item], costs: Sequence[int], dim: int) -> None:
        self.items, self.costs = items, costs
        self.answer: Future[Matrix] = Future()
        self.open = dict.fromkeys(range(len(items)))  # not yet taken, in order
        self._missing = len(items)
        self._emb_NM = np.empty((len(items), dim), dtype=np.float32)

    @property
    def cost(self) -> int:
        """Tokens that are not yet taken."""
        return sum(self.costs[at] for at in self.open)

    def fill(self, at: int, vector_M: Vector) -> None:
        """Take in the vector of one item; the last one answers the caller."""
        self._emb_NM[at] = vector_M
        self._missing -= 1
        if not self._missing and not self.answer.done():
            self.answer.set_result(self._emb_NM)

    def fail(self, error: BaseException) -> None:
        """Answer the caller with the first error."""
        if not self.answer.done():
            self.answer.set_exception(error)


Share: TypeAlias = tuple[Request, int]
"""One item of a request."""


class Waiting:
    """The queue of requests. Its owner holds a lock around each call."""

    def __init__(self) -> None:
        self._requests: deque[Request] = deque()
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._requests)

    def put(self, request: Request) -> None:
        """Add a request behind all others."""
        self._requests.append(request)
        self.tokens += request.cost

    def drop(self, request: Request) -> None:
        """Forget what of a request is not yet taken."""
        if request in self._requests:
            self._requests.remove(request)
            self.tokens -= request.cost

    def take(self, *, budget: int, overhead: int) -> list[Share]:
        """Return the items of one model call; the first of whoever's turn it is is among them.

        What waits is planned anew each time, one item of every request after the other. Who has
        more than the call holds waits for his next turn behind all others, so a thousand items
        delay another's one by a call, not by a thousand.
        """
        shares = list(islice(self._in_turn(), _LOOKED_AT))
        costs = [request.costs[at] for request, at in shares]
        batches = plan(costs, budget=budget, overhead=overhead)
        taken = [shares[at] for at in next(sorted(one) for one in batches if 0 in one)]
        for request, at in taken:
            del request.open[at]
            self.tokens -= request.costs[at]
        self._requests.rotate(-1)
        self._requests = deque(request for request in self._requests if request.open)
        return taken

    def _in_turn(self) -> Iterator[Share]:
        first = islice(self._requests, _LOOKED_AT)
        for layer in zip_longest(*(zip(repeat(one), one.open) for one in first)):
            yield from (share for share in layer if share is not None)
