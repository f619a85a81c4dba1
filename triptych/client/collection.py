"""Collections of a server, with the methods of one that is here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

from triptych.client.call import Call
from triptych.client.calls import Calls
from triptych.client.transport import Address, Awaiting, Waiting
from triptych.errors import TriptychError
from triptych.retrieval.prepare import AnyItems

P = ParamSpec("P")
T = TypeVar("T")


def _waiting(
    build: Callable[Concatenate[Calls, P], Call[T]],
) -> Callable[Concatenate[RemoteCollection, P], T]:
    @wraps(build)
    def method(self: RemoteCollection, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(build(self.calls, *args, **kwargs))

    return method


def _awaiting(
    build: Callable[Concatenate[Calls, P], Call[T]],
) -> Callable[Concatenate[AsyncRemoteCollection, P], Coroutine[Any, Any, T]]:
    @wraps(build)
    async def method(self: AsyncRemoteCollection, /, *args: P.args, **kwargs: P.kwargs) -> T:
        # reading and packing a picture would hold up the loop
        return await self.send(await asyncio.to_thread(build, self.calls, *args, **kwargs))

    return method


class RemoteCollection(Waiting):
    """One collection of a server. Threads may share it.

    Its errors are those of `Collection`; RemoteError for what only a server says.
    """

    def __init__(self, address: Address, collection: str) -> None:
        super().__init__(address)
        self.calls = Calls(collection)

    def add(self, items: AnyItems) -> int:
        """Return how many items, or dicts of their fields, were added, in durable batches.

        Raises the error of the first item that is refused; the others of its batch are stored.
        Its `taken_in` says how many of all items are done with.
        """
        return self._write(items, replace=False)

    def upsert(self, items: AnyItems) -> int:
        """Return how many were written, replacing by id; batches as in `add`."""
        return self._write(items, replace=True)

    delete = _waiting(Calls.delete)
    get = _waiting(Calls.get)
    vectors = _waiting(Calls.vectors)
    count = _waiting(Calls.count)
    facets = _waiting(Calls.facets)
    search = _waiting(Calls.search)
    thumbnail = _waiting(Calls.thumbnail)
    picture = _waiting(Calls.picture)
    info = _waiting(Calls.info)
    compact = _waiting(Calls.compact)
    create = _waiting(Calls.create)
    drop = _waiting(Calls.drop)
    collections = _waiting(Calls.collections)

    def __repr__(self) -> str:
        return f"<RemoteCollection {self.calls.name!r} of {self.address.url}>"

    def _write(self, items: AnyItems, *, replace: bool) -> int:
        calls = self.calls.writes(items, replace=replace)
        written = done = 0
        while True:
            with _after(done):
                call = next(calls, None)
                if call is None:
                    return written
                written += self.send(call)
            done += call.num_items

    def to_async(self) -> AsyncRemoteCollection:
        """Return the same collection to await, with connections of its own."""
        return AsyncRemoteCollection(self.address, self.calls.name)

    def __len__(self) -> int:
        return self.count()


class AsyncRemoteCollection(Awaiting):
    """The same to await. Tasks of one event loop may share it."""

    def __init__(self, address: Address, collection: str) -> None:
        super().__init__(address)
        self.calls = Calls(collection)

    async def add(self, items: AnyItems) -> int:
        """Return how many were added, as `RemoteCollection.add` does."""
        return await self._write(items, replace=False)

    async def upsert(self, items: AnyItems) -> int:
        """Return how many were written, replacing by id."""
        return await self._write(items, replace=True)

    delete = _awaiting(Calls.delete)
    get = _awaiting(Calls.get)
    vectors = _awaiting(Calls.vectors)
    count = _awaiting(Calls.count)
    facets = _awaiting(Calls.facets)
    search = _awaiting(Calls.search)
    thumbnail = _awaiting(Calls.thumbnail)
    picture = _awaiting(Calls.picture)
    info = _awaiting(Calls.info)
    compact = _awaiting(Calls.compact)
    create = _awaiting(Calls.create)
    drop = _awaiting(Calls.drop)
    collections = _awaiting(Calls.collections)

    def __repr__(self) -> str:
        return f"<AsyncRemoteCollection {self.calls.name!r} of {self.address.url}>"

    async def _write(self, items: AnyItems, *, replace: bool) -> int:
        calls = self.calls.writes(items, replace=replace)
        written = done = 0
        while True:
            with _after(done):
                call = await asyncio.to_thread(next, calls, None)
                if call is None:
                    return written
                written += await self.send(call)
            done += call.num_items


@contextmanager
def _after(done: int) -> Iterator[None]:
    """Have an error inside count the items of earlier requests too."""
    try:
        yield
    except TriptychError as error:
        error.taken_in = (error.taken_in or 0) + done or None
        raise


def connect(
    url: str,
    *,
    collection: str = "default",
    key: str | None = None,
    timeout: float = 60.0,
    retries: int = 3,
) -> RemoteCollection:
    """Return a collection of the server at `url`; nothing is sent until it is used.

    `timeout` in seconds; `retries` of what is safe to repeat, waiting as the server asks.
    """
    address = Address(url=url, key=key, timeout=timeout, retries=retries)
    return RemoteCollection(address, collection)


def connect_async(
    url: str,
    *,
    collection: str = "default",
    key: str | None = None,
    timeout: float = 60.0,
    retries: int = 3,
) -> AsyncRemoteCollection:
    """Return the same with methods to await."""
    address = Address(url=url, key=key, timeout=timeout, retries=retries)
    return AsyncRemoteCollection(address, collection)
