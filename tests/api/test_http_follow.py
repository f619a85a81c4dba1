"""A server that follows another one: two real processes, on two folders."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.api.conftest import png
from tests.api.live import serving
from tests.ports import free_port
from triptych.api.catalog import Catalog
from triptych.api.follower import FollowConfig, Follower
from triptych.errors import InvalidInput
from triptych.settings import Settings

KEY = "k" * 40


class Process:
    """`triptych serve` on a folder and a port."""

    def __init__(self, data: Path, port: int, *options: str) -> None:
        command = [sys.executable, "-m", "triptych", "serve", "--port", str(port)]
        self.child = subprocess.Popen(
            [*command, "--data", str(data), "--model", "hashing:64", "--log", "off", *options],
            env={"TRIPTYCH_API_KEY": KEY, "PATH": "/usr/bin:/bin", "PYTHONPATH": "."},
            stderr=subprocess.DEVNULL,
        )
        self.client = httpx2.Client(
            base_url=f"http://127.0.0.1:{port}", headers={"Authorization": f"Bearer {KEY}"}
        )
        until(lambda: self.status("/livez") == 200)

    def status(self, path: str) -> int:
        try:
            return self.client.get(path).status_code
        except httpx2.TransportError:
            return 0

    def json(self, method: str, path: str, body: Any = None) -> Any:
        reply = self.client.request(method, path, json=body)
        assert reply.status_code < 300, reply.text
        return reply.json() if reply.content else None

    def ids(self) -> set[str]:
        reply = self.client.post("/v1/collections/c/search", json={"query": "a", "limit": 1000})
        return {hit["id"] for hit in reply.json()["hits"]} if reply.status_code == 200 else set()

    def lag(self) -> float:
        text = self.client.get("/metrics").text
        return float(re.findall(r"^triptych_follower_lag_seconds (\S+)", text, re.M)[0])

    def end(self, number: int = signal.SIGTERM) -> None:
        self.client.close()
        self.child.send_signal(number)
        self.child.wait(30)


def until(condition: Callable[[], bool], *, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.02)


@contextmanager
def running(*arguments: Any) -> Iterator[Process]:
    process = Process(*arguments)
    try:
        yield process
    finally:
        process.end(signal.SIGKILL)


@pytest.fixture
def ports() -> tuple[int, int]:
    return free_port(), free_port()


def follow(port: int) -> tuple[str, ...]:
    return (
        "--follow", f"http://127.0.0.1:{port}", "--follow-key", KEY, "--follow-every", "0.1",
    )  # fmt: skip


def put(server: Process, *ids: str) -> None:
    items = [{"id": id, "text": f"a {id}"} for id in ids]
    server.json("PUT", "/v1/collections/c/items", {"items": items})


def test_a_follower_has_what_the_writer_has(tmp_path: Path, ports: tuple[int, int]) -> None:
    with (
        running(tmp_path / "writer", ports[0]) as writer,
        running(tmp_path / "reader", ports[1], *follow(ports[0])) as reader,
    ):
        writer.json("POST", "/v1/collections", {"name": "c"})
        put(writer, "1", "2")
        files = {"image": ("x.png", png("red"), "image/png")}
        reply = writer.client.put("/v1/collections/c/items", data={"id": "red"}, files=files)
        assert reply.status_code == 200
        until(lambda: reader.ids() == {"1", "2", "red"})
        assert reader.status("/readyz") == 200
        assert reader.client.get("/v1/collections/c/items/red/picture").content == png("red")
        writer.json("DELETE", "/v1/collections/c/items/1")
        put(writer, "3")
        until(lambda: reader.ids() == {"2", "3", "red"})
        assert reader.lag() < 5
        refused = reader.client.put("/v1/collections/c/items", json={"items": [{"id": "x"}]})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "read_only")
        assert "follows" in refused.json()["error"]["hint"]
        writer.json("DELETE", "/v1/collections/c")
        until(lambda: reader.status("/v1/collections/c") == 404)


@pytest.mark.slow
def test_what_is_followed_may_die_and_come_back(tmp_path: Path, ports: tuple[int, int]) -> None:
    with running(tmp_path / "reader", ports[1], *follow(ports[0])) as reader:
        assert reader.status("/readyz") == 503  # nothing to answer with yet
        with running(tmp_path / "writer", ports[0]) as writer:
            writer.json("POST", "/v1/collections", {"name": "c"})
            put(writer, "1")
            until(lambda: reader.ids() == {"1"})
        before = reader.lag()  # the writer was killed
        until(lambda: reader.lag() > before + 0.5)
        assert reader.ids() == {"1"}
        assert reader.status("/readyz") == 200
        with running(tmp_path / "writer", ports[0]) as writer:
            put(writer, "2")
            until(lambda: reader.ids() == {"1", "2"})
            until(lambda: reader.lag() < 1)


@pytest.mark.slow
def test_a_follower_that_was_killed_goes_on(tmp_path: Path, ports: tuple[int, int]) -> None:
    with running(tmp_path / "writer", ports[0]) as writer:
        writer.json("POST", "/v1/collections", {"name": "c"})
        put(writer, *(str(n) for n in range(50)))
        for delay in (0.0, 0.05, 0.2):
            with running(tmp_path / "reader", ports[1], *follow(ports[0])):
                time.sleep(delay)
        put(writer, "last")
        with running(tmp_path / "reader", ports[1], *follow(ports[0])) as reader:
            until(lambda: reader.ids() == {*(str(n) for n in range(50)), "last"})
            folder = tmp_path / "reader" / "default"
            until(lambda: sorted(path.name for path in folder.iterdir()) == ["c"])


@pytest.mark.slow
def test_no_search_fails_while_states_are_switched(tmp_path: Path, ports: tuple[int, int]) -> None:
    with (
        running(tmp_path / "writer", ports[0]) as writer,
        running(tmp_path / "reader", ports[1], *follow(ports[0])) as reader,
    ):
        writer.json("POST", "/v1/collections", {"name": "c"})
        put(writer, "0")
        until(lambda: reader.ids() == {"0"})
        statuses, seen = set(), set()
        for n in range(1, 300):
            if n % 10 == 0:
                put(writer, str(n))
            reply = reader.client.post("/v1/collections/c/search", json={"query": f"a {n}"})
            statuses.add(reply.status_code)
            seen.add(len(reply.json().get("hits", ())))
        assert statuses == {200}
        assert len(seen) > 1, "no state was switched"


def test_changes_are_fetched_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(tmp_path / "writer") as writer:
        catalog = Catalog(Settings(data=tmp_path / "reader"), models=("hashing:64",))
        follower = Follower(FollowConfig(url=writer.url), catalog=catalog)
        replaced: list[str] = []
        replace = catalog.replace
        monkeypatch.setattr(
            catalog, "replace", lambda *given: (replaced.append(given[1]), replace(*given))
        )

        def put(*ids: str) -> None:
            items = [{"id": id, "text": f"a {id}"} for id in ids]
            writer.json("PUT", "/v1/collections/c/items", {"items": items})

        def followed(*ids: str, whole: int) -> None:
            follower.look()
            with catalog.using("default", "c") as copy:
                assert {hit.id for hit in copy.search("a", limit=100)} == set(ids)
            assert len(replaced) == whole

        writer.json("POST", "/v1/collections", {"name": "c"})
        put("1", "2", "3")
        followed("1", "2", "3", whole=1)
        put("3", "4")
        writer.json("DELETE", "/v1/collections/c/items/1")
        followed("2", "3", "4", whole=1)
        followed("2", "3", "4", whole=1)
        with catalog.using("default", "c") as copy:
            copy.delete("2")  # it is no copy any more
        put("5")
        followed("2", "3", "4", "5", whole=2)
        (tmp_path / "reader" / "default" / "c" / "followed.json").write_text("{")
        put("6")
        followed("2", "3", "4", "5", "6", whole=3)
        writer.json("DELETE", "/v1/collections/c")
        writer.json("POST", "/v1/collections", {"name": "c"})
        put("1", "2", "3")
        followed("1", "2", "3", whole=4)
        catalog.close()


def test_one_that_cannot_be_copied_keeps_back_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    catalog = Catalog(Settings(data=tmp_path), models=("hashing:64",))
    follower = Follower(FollowConfig(url="http://127.0.0.1:1"), catalog=catalog)
    copied: list[str] = []

    def follow(library: Any, tenant: str, name: str, noted: Any) -> None:
        if name == "b":
            raise InvalidInput("This archive is broken.")
        copied.append(name)

    said = {"tenant": "default", "generations": dict.fromkeys("abc", "1")}
    monkeypatch.setattr(follower, "_json", lambda path: said)
    monkeypatch.setattr(follower, "_follow", follow)
    with pytest.raises(InvalidInput, match="broken"):
        follower.look()
    assert copied == ["a", "c"]
    assert not follower.has_all()
