"""What the retriever needs of a collection: one that is here, or one of a server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from triptych.retrieval.prepare import AnyItem
from triptych.types import Hit, Metadata


class Stored(Protocol):
    """What is remembered of an item."""

    @property
    def metadata(self) -> Metadata: ...


class Searchable(Protocol):
    """`triptych.open(...)` and `triptych.connect(...)` both are."""

    def search(
        self, query: Any = None, /, *, filter: Any = None, limit: int = 10, hybrid: float = 0.0
    ) -> list[Hit]: ...

    def upsert(self, items: Iterable[AnyItem], /) -> int: ...

    def delete(self, ids: str | Iterable[str], /) -> int: ...

    def get(self, ids: str | Iterable[str], /) -> Sequence[Stored | None]: ...

    def count(self, filter: Mapping[str, Any] | None = None, /) -> int: ...

    def facets(
        self, fields: str, /, *, filter: Mapping[str, Any] | None = None, limit: int = 20
    ) -> dict[str, list[tuple[Any, int]]]: ...

    def thumbnail(self, id: str, /) -> bytes | None: ...
