"""A collection as the frameworks use it: here or on a server, waited for or awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Final, Protocol
from weakref import WeakKeyDictionary

from triptych.errors import InvalidInput, NotAvailable
from triptych.types import Hit

IMAGE: Final = "image"
"""The key of a document's metadata that holds its picture: a path, a data URI or bytes."""

_LISTED = 10_000  # hits that a server gives at once


class Source(Protocol):
    """What `triptych.open` and `triptych.connect` return has these methods."""

    def add(self, items: Iterable[Any]) -> int: ...
    def upsert(self, items: Iterable[Any]) -> int: ...
    def delete(self, ids: Any) -> int: ...
    def get(self, ids: Any) -> list[Any]: ...
    def count(self, filter: Any = None) -> int: ...
    @property
    def search(self) -> Callable[..., list[Hit]]: ...
    def thumbnail(self, id: str) -> bytes | None: ...
    def info(self) -> dict[str, Any]: ...
    def close(self) -> None: ...


class Awaited:
    """Calls methods of a collection without holding up the event loop.

    A server is awaited, calls that overlap in one loop over the same connections; the last closes
    them, because a loop may end at any time and take them along. A collection here computes and
    reads files: that is done in threads, which it may be shared by.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._shared: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Any, list[None]]]
        self._shared = WeakKeyDictionary()

    async def call(self, method: str, *args: Any, **options: Any) -> Any:
        """Return what `method` of the collection returns."""
        to_async = getattr(self._source, "to_async", None)
        if to_async is None:
            return await asyncio.to_thread(getattr(self._source, method), *args, **options)
        loop = asyncio.get_running_loop()
        if loop not in self._shared:
            self._shared[loop] = (to_async(), [])
        remote, users = self._shared[loop]
        users.append(None)
        try:
            return await getattr(remote, method)(*args, **options)
        finally:
            users.pop()
            if not users:
                del self._shared[loop]
                await remote.close()


def listed(source: Source, filter: Any = None) -> list[Hit]:
    """Return all items that match, by id; their scores mean nothing.

    Raises NotAvailable for more than 10,000, of which a part would be a wrong answer.
    """
    total = source.count(filter)
    if total > _LISTED:
        raise NotAvailable(
            f"{total:,} items match, of which at most {_LISTED:,} are listed at once.",
            hint="Narrow the filter.",
        )
    if not total:
        return []
    hits = _some(source, filter, total)
    if len(hits) < total == source.count(filter):
        raise NotAvailable(f"{total:,} items match, but {len(hits):,} were found.")
    return sorted(hits, key=lambda hit: hit.id)


def delete_matching(source: Source, filter: Any = None) -> int:
    """Delete all items that match, however many; return how many they were."""
    deleted = 0
    while left := source.count(filter):
        gone = source.delete([hit.id for hit in _some(source, filter, min(left, _LISTED))])
        if not gone:
            raise NotAvailable(f"{left:,} items match, but none of them could be deleted.")
        deleted += gone
    return deleted


def _some(source: Source, filter: Any, number: int) -> list[Hit]:
    # nothing but the filter decides: any direction is as good as another
    direction = [1.0] + [0.0] * (source.info()["dim"] - 1)
    return source.search(vector=direction, filter=filter, limit=number)


def in_batches(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield lists of at most `size`."""
    iterator = iter(values)
    while batch := list(islice(iterator, size)):
        yield batch


def outside_picture(source: object) -> str:
    """Return a picture that came with a message: a data URI, or an address that is not opened here.

    Raises InvalidInput for a path: who writes a message may not read this machine's files.
    """
    if isinstance(source, str) and source.startswith(("data:", "http://", "https://")):
        return source
    raise InvalidInput(
        "A picture in a message is a data URI (data:image/...;base64,...), not a path.",
        hint="Read the file first, or pass its path as image=...",
    )


def split_picture(metadata: Mapping[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return the metadata that is stored, and the picture that was in it."""
    rest = dict(metadata)
    return rest, rest.pop(IMAGE, None)
