"""Triptych: find pictures and text with either, or with both at once.

    import triptych

    with triptych.open("my-pictures") as collection:
        collection.upsert([{"id": "1", "image": "photo.jpg"}])
        collection.search("a dog on a beach")

Names are resolved on first use (PEP 562), so that `import triptych` costs nothing.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from triptych.client.collection import connect as connect
    from triptych.client.collection import connect_async as connect_async
    from triptych.errors import TriptychError as TriptychError
    from triptych.retrieval.collection import Collection as Collection
    from triptych.retrieval.display.hits import sheet as sheet
    from triptych.retrieval.rag.retriever import Retriever as Retriever
    from triptych.retrieval.rag.retriever import RetrieverConfig as RetrieverConfig
    from triptych.settings import collections as collections
    from triptych.settings import create as create
    from triptych.settings import drop as drop
    from triptych.settings import open as open
    from triptych.types import Hit as Hit
    from triptych.types import Item as Item
    from triptych.types import Part as Part
    from triptych.types import Query as Query

if sys.platform != "linux":
    raise ImportError(
        f"Triptych runs on Linux, this is {sys.platform}: its locks and its way to the disk are "
        "Linux's. On Windows use WSL, elsewhere a container."
    )

_WHERE = {
    "Collection": "triptych.retrieval.collection",
    "Hit": "triptych.types",
    "Item": "triptych.types",
    "Part": "triptych.types",
    "Query": "triptych.types",
    "Retriever": "triptych.retrieval.rag.retriever",
    "RetrieverConfig": "triptych.retrieval.rag.retriever",
    "TriptychError": "triptych.errors",
    "collections": "triptych.settings",
    "connect": "triptych.client.collection",
    "connect_async": "triptych.client.collection",
    "create": "triptych.settings",
    "drop": "triptych.settings",
    "open": "triptych.settings",
    "sheet": "triptych.retrieval.display.hits",
}

__all__ = list(_WHERE)
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'triptych' has no attribute {name!r}")
    return getattr(import_module(_WHERE[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
