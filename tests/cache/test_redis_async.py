"""The event loop's own connection to Redis finds what the threads' connections put, wherever that
is: another database, behind a password, behind TLS."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.redis_server import RedisServer
from triptych.cache.base import CacheHit
from triptych.cache.circuit_breaker import CircuitBreakerConfig
from triptych.cache.redis import RedisCache, RedisConfig

KEY, VALUE = b"tr1:a:key", b"value"
PATIENT = RedisConfig(timeout=10.0, breaker=CircuitBreakerConfig(slow=10.0))
PASSWORD = "p@ss word"


def found_far(url: str) -> CacheHit | None:
    """Put a value by thread, and ask for it by event loop."""

    async def ask() -> CacheHit | None:
        cache = RedisCache(url, config=PATIENT)
        await asyncio.to_thread(cache.put_many, [(KEY, VALUE)])
        await asyncio.to_thread(cache.get_many, [KEY])  # it has arrived
        try:
            return await cache.far(KEY)
        finally:
            cache.close()
            await asyncio.sleep(0.01)

    return asyncio.run(ask())


@pytest.fixture
def port() -> Iterator[int]:
    """A Redis over TCP that wants a password."""
    port = free_port()
    server = RedisServer("--port", str(port), "--requirepass", PASSWORD)
    server.start(password=PASSWORD)
    yield port
    server.remove()


def test_a_password_and_a_database_are_those_of_the_address(port: int) -> None:
    quoted = PASSWORD.replace("@", "%40").replace(" ", "%20")
    assert found_far(f"redis://:{quoted}@127.0.0.1:{port}/3") == CacheHit(VALUE, "redis")
    assert found_far(f"redis://default:{quoted}@localhost:{port}/0") == CacheHit(VALUE, "redis")


def test_a_wrong_password_or_none_is_a_miss(port: int) -> None:
    assert found_far(f"redis://:wrong@127.0.0.1:{port}") is None
    assert found_far(f"redis://127.0.0.1:{port}") is None


def test_a_database_that_is_not_there_is_a_miss(redis_server: RedisServer) -> None:
    assert found_far(f"{redis_server.url}?db=5") == CacheHit(VALUE, "redis")
    assert found_far(f"{redis_server.url}?db=999") is None


def test_tls_is_spoken_and_a_stranger_is_not_believed(tmp_path: Path) -> None:
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    command += ["-addext", "subjectAltName=DNS:localhost", "-keyout", "key", "-out", "cert"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    cert, port = tmp_path / "cert", free_port()
    files = ["--tls-cert-file", str(cert), "--tls-key-file", str(tmp_path / "key")]
    server = RedisServer("--tls-port", str(port), *files, "--tls-auth-clients", "no")
    server.start()
    try:
        url = f"rediss://localhost:{port}/1"
        assert found_far(f"{url}?ssl_ca_certs={cert}") == CacheHit(VALUE, "redis")
        assert found_far(url) is None
    finally:
        server.remove()
