"""Connections to Redis from their making to their end."""

from __future__ import annotations

import threading
from typing import Any

from redis.exceptions import RedisError

from tests.redis_server import RedisServer
from triptych.cache.connections import Connections


def test_a_connection_that_is_made_when_all_was_closed_is_closed_too(
    redis_server: RedisServer,
) -> None:
    connections = Connections(redis_server.url)
    connected, closed, gone = threading.Event(), threading.Event(), threading.Event()
    base: Any = connections._make

    class Slow(base):
        def connect(self) -> None:
            super().connect()
            connected.set()
            assert closed.wait(10)

        def disconnect(self, *arguments: Any) -> None:
            super().disconnect(*arguments)
            gone.set()

    connections._make = Slow
    asking = threading.Thread(target=_ask, args=(connections,))
    asking.start()
    assert connected.wait(10)
    connections.close()
    closed.set()
    asking.join()
    assert gone.wait(10)


def _ask(connections: Connections) -> None:
    try:
        connections.exchange([("PING",)], timeout=10)
    except RedisError:
        return
    raise AssertionError("It was closed and answered.")
