"""A disk without room, as it meets what a server writes beside its collections."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EIO, ENOSPC
from pathlib import Path
from typing import Any

import pytest

from tests.api.live import Live, serving
from tests.api.test_http_life import finished
from triptych.api.config import Limits
from triptych.api.item_writer import WriteOutcome
from triptych.api.jobs import Jobs
from triptych.api.routes import jobs as route
from triptych.retrieval.maintenance import portable

JOBS = "/v1/collections/photos/jobs"
ITEMS = {"items": [{"id": "a", "text": "a dog"}]}


@pytest.fixture
def live(data: Path) -> Iterator[Live]:
    with serving(data) as running:
        running.json("POST", "/v1/collections", {"name": "photos"})
        yield running


@contextmanager
def failing(monkeypatch: pytest.MonkeyPatch, code: int, *places: tuple[Any, str]) -> Iterator[None]:
    """Have functions that write fail as the system would."""

    def no(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as broken:
        for where, name in places:
            broken.setattr(where, name, no)
        yield


def left_of_jobs(live: Live) -> list[Path]:
    return list((live.services.catalog.settings.data / ".jobs").glob("*/*"))


@pytest.mark.parametrize("place", [(route, "_write"), (json, "dump")])
def test_a_job_that_finds_no_room_is_refused_and_leaves_nothing(
    live: Live, monkeypatch: pytest.MonkeyPatch, place: tuple[Any, str]
) -> None:
    with failing(monkeypatch, ENOSPC, place):
        assert live.error("POST", JOBS, ITEMS) == (507, "disk_full")
        assert live.json("GET", "/v1/jobs") == {"jobs": []}
    assert left_of_jobs(live) == []


def test_another_error_of_the_disk_is_ours(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, EIO, (route, "_write")):
        assert live.error("POST", JOBS, ITEMS) == (500, "internal")


@pytest.mark.parametrize("code", [ENOSPC, EIO])
def test_jobs_go_on_when_the_disk_takes_notes_again(
    live: Live, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    folder, dump = live.services.catalog.settings.data / ".jobs" / "default", json.dump

    def takes_new_ones_only(job: Any, file: Any) -> None:
        if job["status"] != "queued":
            raise OSError(code, os.strerror(code))
        dump(job, file)

    with monkeypatch.context() as broken:
        broken.setattr(json, "dump", takes_new_ones_only)
        first = live.json("POST", JOBS, ITEMS)["id"]
        assert finished(live, first)["status"] == "failed"
        second = live.json("POST", JOBS, ITEMS)["id"]
        time.sleep(0.5)
        assert json.loads((folder / f"{first}.json").read_text())["status"] == "queued"
    assert finished(live, second)["status"] == "done"
    noted = json.loads((folder / f"{first}.json").read_text())
    assert (noted["status"], noted["error"]["code"]) == (
        "failed",
        "disk_full" if code == ENOSPC else "internal",
    )
    assert {path.suffix for path in left_of_jobs(live)} == {".json"}


def test_a_body_that_was_never_noted_is_swept_away(tmp_path: Path) -> None:
    jobs = Jobs(folder=tmp_path, write=lambda *_: WriteOutcome(10), limits=Limits())
    old, fresh, noted = (jobs.scratch("a").with_suffix(".ndjson") for _ in range(3))
    for path in (old, fresh, noted):
        path.write_text("{}")
    noted.with_suffix(".json").write_text("{}")
    for path in (old, noted):
        os.utime(path, (time.time() - 7_200,) * 2)
    jobs.start()
    jobs.stop()
    assert not old.exists() and fresh.exists() and noted.exists()


def test_an_export_that_finds_no_room(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    with failing(monkeypatch, ENOSPC, (portable, "write_archive")):
        status = live.error("GET", "/v1/collections/photos/export")
    assert status == (507, "disk_full")
    assert live.client.get("/v1/collections/photos/export").status_code == 200


@pytest.mark.parametrize("path", ["export", "changes"])
def test_an_archive_is_sent_whole_and_leaves_nothing(live: Live, path: str) -> None:
    live.json("PUT", "/v1/collections/photos/items", ITEMS)
    url = f"/v1/collections/photos/{path}"
    whole = live.client.get(url)
    assert whole.headers.get("content-length", str(len(whole.content))) == str(len(whole.content))
    for asked in ("bytes=5-", "bytes=99999999-", "bytes=", "lines=1"):
        reply = live.client.get(url, headers={"Range": asked})
        assert (reply.status_code, reply.content) == (200, whole.content)
    assert live.client.head(url).status_code == 200
    assert list((live.services.catalog.settings.data / ".exports").iterdir()) == []
