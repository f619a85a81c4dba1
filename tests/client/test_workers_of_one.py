"""`triptych serve --workers 2`: two processes behind one address, as one server."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.client.serving import started
from triptych.api.config import ServerConfig
from triptych.api.rates import Cell, Cells
from triptych.api.server import HttpServer
from triptych.api.workers import WorkerLock
from triptych.errors import InvalidInput
from triptych.keys import new_key, write_keys
from triptych.settings import Settings


class Both:
    """Asks each time over another connection, so that chance picks the worker."""

    def __init__(self, url: str, key: str = "") -> None:
        self.url = url
        self.headers = {"Authorization": f"Bearer {key}"} if key else {}

    def reply(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        return httpx2.request(
            method, f"{self.url}{path}", json=body, headers=self.headers, timeout=30
        )

    def json(self, method: str, path: str, body: Any = None) -> Any:
        reply = self.reply(method, path, body).raise_for_status()
        return reply.json() if reply.content else None

    def numbers(self, name: str) -> dict[str, float]:
        """Return a number of each worker."""
        text = self.reply("GET", "/metrics").text
        return {
            found[1]: float(found[2])
            for found in re.finditer(rf'^{name}{{[^}}]*worker="(\d)"[^}}]*}} (\S+)$', text, re.M)
        }


def until(true: Callable[[], bool], seconds: float = 40) -> None:
    """Wait for something."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.1)


def children(pid: int) -> list[int]:
    """Return the workers of a server, without what Python starts besides."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = {int(one): Path(f"/proc/{one}/cmdline").read_bytes() for one in found}
    return [one for one, line in lines.items() if b"spawn_main" in line]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Both, Both]]:
    """A server as its admin sees it, and somebody who may ask twice a second."""
    folder = tmp_path_factory.mktemp("workers")
    admin, one = new_key("admin", role="admin")
    slow, other = new_key("slow", role="read", rate=2.0)
    write_keys(folder / "keys.json", [one, other])
    with started(folder / "data", "--workers", "2", "--key-file", str(folder / "keys.json")) as (
        url,
        _,
    ):
        asked = Both(url, admin)
        until(lambda: asked.numbers("triptych_ready") == {"0": 1, "1": 1})
        yield asked, Both(url, slow)


def test_a_write_that_lands_on_either_is_found_by_both(server: tuple[Both, Both]) -> None:
    asked, _ = server
    asked.json("POST", "/v1/collections", {"name": "shoes"})
    for at in range(12):
        body = {"items": [{"id": f"{at}", "text": f"shoe number {at}"}]}
        assert asked.json("POST", "/v1/collections/shoes/items", body)["written"] == 1
        for _ in range(3):
            assert asked.json("POST", "/v1/collections/shoes/items/count", {})["count"] == at + 1
    for at in range(12):
        body = {"query": f"shoe number {at}", "limit": 1}
        (hit,) = asked.json("POST", "/v1/collections/shoes/search", body)["hits"]
        assert hit["id"] == f"{at}"

    def counted() -> list[float]:
        pattern = r'requests_total{.*items/count",status="200",worker="\d"} (\S+)'
        return [float(one) for one in re.findall(pattern, asked.reply("GET", "/metrics").text)]

    until(lambda: sum(counted()) == 36)  # the other one's are told within a second
    assert len(counted()) == 2


def test_a_collection_made_anew_is_the_new_one_for_both(server: tuple[Both, Both]) -> None:
    asked, _ = server
    for text in ("old", "new"):
        asked.json("POST", "/v1/collections", {"name": "again"})
        asked.json("POST", "/v1/collections/again/items", {"items": [{"id": text, "text": text}]})
        for _ in range(10):
            (hit,) = asked.json("POST", "/v1/collections/again/search", {"query": "x"})["hits"]
            assert hit["id"] == text
        asked.json("DELETE", "/v1/collections/again")
        for _ in range(10):
            reply = asked.reply("POST", "/v1/collections/again/search", {"query": "x"})
            assert reply.status_code == 404


def test_every_job_is_known_to_both(server: tuple[Both, Both]) -> None:
    asked, _ = server
    asked.json("POST", "/v1/collections", {"name": "jobs"})
    ids = set()
    for at in range(4):
        items = [{"id": f"{at}-{n}", "text": f"hat {n}"} for n in range(20)]
        job = asked.json("POST", "/v1/collections/jobs/jobs", {"items": items})
        ids.add(job["id"])
        for _ in range(4):
            assert asked.json("GET", f"/v1/jobs/{job['id']}")["total"] == 20
            assert {one["id"] for one in asked.json("GET", "/v1/jobs")["jobs"]} == ids
    for id in ids:
        until(lambda id=id: asked.json("GET", f"/v1/jobs/{id}")["status"] == "done")
        events = asked.reply("GET", f"/v1/jobs/{id}/events").text
        assert events.count("event: end") == 1
        assert asked.json("DELETE", f"/v1/jobs/{id}")["status"] == "done"
    assert asked.json("POST", "/v1/collections/jobs/items/count", {})["count"] == 80


def test_a_key_has_one_rate_whoever_is_asked(server: tuple[Both, Both]) -> None:
    _, slow = server
    start = time.monotonic()
    replies = [slow.reply("GET", "/v1/models").status_code for _ in range(40)]
    most = 4 + 2 * (time.monotonic() - start)  # at once, and while it took
    assert set(replies) == {200, 429}
    assert replies.count(200) <= most + 1


def test_a_worker_that_is_killed_begins_anew_and_nobody_is_sent_away(tmp_path: Path) -> None:
    with started(tmp_path, "--workers", "2") as (url, process):
        asked = Both(url)
        until(lambda: asked.numbers("triptych_ready") == {"0": 1, "1": 1})
        asked.json("POST", "/v1/collections", {"name": "c"})
        before = children(process.pid)
        for at in range(2):  # one of them writes: the other one takes over
            os.kill(before[at], signal.SIGKILL)
            body = {"items": [{"id": f"{at}", "text": "a shoe"}]}
            # what the dead one was to answer is lost with it; all that comes later waits for it
            until(lambda body=body: _written(asked, body))
            until(lambda at=at: len({*children(process.pid)} - {before[at]}) == 2)
        for _ in range(10):
            assert asked.json("POST", "/v1/collections/c/items/count", {})["count"] == 2


def _written(asked: Both, body: Any) -> bool:
    with suppress(httpx2.TransportError):
        return bool(asked.reply("PUT", "/v1/collections/c/items", body).status_code == 200)
    return False


def test_workers_end_with_their_parent(tmp_path: Path) -> None:
    with started(tmp_path, "--workers", "2") as (url, process):
        until(lambda: Both(url).numbers("triptych_ready") == {"0": 1, "1": 1})
        workers = children(process.pid)
        assert len(workers) == 2
        process.kill()
        until(lambda: not any(Path(f"/proc/{one}").exists() for one in workers))


def test_who_comes_while_it_drains_is_refused_and_does_not_wait(tmp_path: Path) -> None:
    with started(tmp_path, "--workers", "2") as (url, server):
        place = ("127.0.0.1", int(url.rpartition(":")[2]))
        until(lambda: Both(url).reply("GET", "/livez").status_code == 200)

        def is_refused() -> bool:
            try:
                socket.create_connection(place, timeout=5).close()
            except ConnectionRefusedError:
                return True
            return False

        with socket.create_connection(place) as slow:
            slow.sendall(
                b"POST /v1/collections HTTP/1.1\r\nHost: localhost\r\n"
                b"Content-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
            )
            time.sleep(0.3)
            server.send_signal(signal.SIGTERM)
            until(is_refused, 5)
            assert server.poll() is None, "it was to wait for the slow one"


def test_a_follower_is_one_process(tmp_path: Path) -> None:
    config = ServerConfig(workers=2, follow="http://127.0.0.1:1")
    with pytest.raises(InvalidInput, match="one process, got --workers 2"):
        HttpServer(Settings(data=tmp_path), config)


def test_a_worker_that_dies_in_its_turn_keeps_nobody_waiting(tmp_path: Path) -> None:
    dying = f"""
import pathlib, sys
from triptych.api.workers import WorkerLock
with WorkerLock(pathlib.Path({str(tmp_path / "turn")!r})):
    print("in", flush=True)
    sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", dying], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stdout.readline() == b"in\n"
        taken = threading.Event()

        def take() -> None:
            with WorkerLock(tmp_path / "turn"):
                taken.set()

        thread = threading.Thread(target=take, daemon=True)
        thread.start()
        assert not taken.wait(0.3)
        process.kill()
        assert taken.wait(10)
        thread.join()


def test_threads_of_a_worker_take_turns_too(tmp_path: Path) -> None:
    turn, busy, met = WorkerLock(tmp_path / "turn"), [0], []

    def work() -> None:
        for _ in range(50):
            with turn:
                busy[0] += 1
                time.sleep(0)
                met.append(busy[0])
                busy[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert met == [1] * 200


def test_cells_are_shared_as_far_as_they_go() -> None:
    shared = [Cell() for _ in range(3)]
    one, other = Cells(shared), Cells(shared)
    for name in "abc":
        one.of(name, 5.0).left -= 1
        assert other.of(name, 5.0).left == 4
    one.of("one too many", 5.0).left = 0  # its own: nobody else's is given away
    assert other.of("one too many", 5.0).left == 5
    assert [cell.left for cell in shared] == [4, 4, 4]
