"""What no request pays for: threads that it does not need, connections that are thrown away."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from triptych.api.app import _ROUTERS
from triptych.encoders.hashing import HashingEncoder
from triptych.index.sqlite import database
from triptych.index.sqlite.database import Database
from triptych.retrieval.collection import Collection


def dependants(dependant: Dependant) -> Iterator[Dependant]:
    """Yield it and all that it depends on."""
    yield dependant
    for inner in dependant.dependencies:
        yield from dependants(inner)


def test_nothing_waits_for_a_thread_that_has_nothing_to_do() -> None:
    """What is no coroutine function FastAPI runs in a thread of its own, once for each request."""
    for module in _ROUTERS:
        for route in module.router.routes:
            assert isinstance(route, APIRoute)
            for one in dependants(route.dependant):
                assert inspect.iscoroutinefunction(one.call), f"{route.path}: {one.call}"


def test_searches_at_once_share_the_readers_that_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    connect = Database._connect
    monkeypatch.setattr(database, "READERS", 2)
    monkeypatch.setattr("triptych.retrieval.collection._AT_ONCE", 2)
    monkeypatch.setattr(
        Database, "_connect", lambda *given: opened.append(given) or connect(*given)
    )
    with Collection.open(tmp_path / "c", embedder=HashingEncoder(dim=16)) as collection:
        collection.add({"id": str(at), "text": f"thing {at}"} for at in range(50))
        opened.clear()
        together = threading.Barrier(12)

        def ask() -> None:
            together.wait()
            for at in range(5):
                assert collection.search(f"thing {at}", limit=5)

        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(opened) <= 2
