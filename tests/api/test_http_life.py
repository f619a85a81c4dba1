"""Jobs, health, numbers, the log, and an end that loses nothing."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.api.live import Live, serving, told
from triptych.api.config import Limits, Times
from triptych.api.item_writer import Before, WriteOutcome
from triptych.api.jobs import Job, Jobs
from triptych.api.logs import AccessLog, JsonFormatter
from triptych.errors import Overloaded
from triptych.keys import new_key
from triptych.retrieval import prepare
from triptych.retrieval.batching import BatchingModel
from triptych.types import Item, Matrix

JOBS = "/v1/collections/photos/jobs"


def finished(live: Live, id: str, *, seconds: float = 20) -> Any:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        job = live.json("GET", f"/v1/jobs/{id}")
        if job["finished"] is not None:
            return job
        time.sleep(0.02)
    raise AssertionError(job)


def test_a_job_stores_its_items(live: Live) -> None:
    lines = [json.dumps({"id": f"job{at}", "text": f"item {at}"}) for at in range(150)]
    lines[70:70] = ["", "no json"]
    headers = {"content-type": "application/x-ndjson"}
    reply = live.client.post(JOBS, content="\n".join(lines), headers=headers)
    assert reply.status_code == 202
    job = reply.json()
    assert reply.headers["location"] == f"/v1/jobs/{job['id']}"
    assert (job["total"], job["collection"], job["mode"]) == (151, "photos", "upsert")
    over = finished(live, job["id"])
    assert (over["status"], over["written"], over["num_errors"]) == ("done", 150, 1)
    assert over["errors"][0]["index"] == 71
    assert over["done"] == over["total"], "a blank line is no item"
    assert live.json("GET", "/v1/jobs")["jobs"][0] == over
    folder = live.services.catalog.settings.data / ".jobs" / "default"
    assert [path.suffix for path in folder.glob(f"{job['id']}*")] == [".json"]


def test_a_job_is_watched_to_its_end(live: Live) -> None:
    items = {"items": [{"id": f"w{at}", "text": "w"} for at in range(100)]}
    job = live.json("POST", JOBS, items)
    with live.client.stream("GET", f"/v1/jobs/{job['id']}/events") as reply:
        assert reply.headers["content-type"].startswith("text/event-stream")
        assert reply.headers["x-accel-buffering"] == "no"
        events = "".join(reply.iter_text()).strip().split("\n\n")
    assert all(event.startswith("event: progress\ndata: {") for event in events[:-1])
    kind, data = events[-1].split("\ndata: ")
    assert kind == "event: end"
    assert (json.loads(data)["status"], json.loads(data)["written"]) == ("done", 100)


def test_a_job_in_mode_add_names_what_is_there(live: Live) -> None:
    items = {"items": [{"id": "once", "text": "a"}]}
    finished(live, live.json("POST", JOBS, items)["id"])
    over = finished(live, live.json("POST", f"{JOBS}?mode=add", items)["id"])
    assert (over["written"], over["errors"][0]["error"]["code"]) == (0, "already_exists")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_job_that_adds_knows_its_own_items_when_it_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed when they were stored, and the job was not, it said of them that they are there."""
    items = [{"id": id, "text": id} for id in ("old", "new", "newer", "new")]
    with serving(tmp_path) as live:
        live.json("POST", "/v1/collections", {"name": "photos"})
        live.json("PUT", "/v1/collections/photos/items", {"items": items[:1]})
        write, stored = live.services.jobs._write, threading.Event()

        def dies(*args: Any) -> Any:
            write(*args)
            stored.set()
            raise SystemExit  # the end of the thread; nothing is noted any more

        monkeypatch.setattr(live.services.jobs, "_write", dies)
        job = live.json("POST", f"{JOBS}?mode=add", {"items": items})
        assert stored.wait(10)
    with serving(tmp_path) as live:
        over = finished(live, job["id"])
        named = [(one["index"], one["error"]["code"]) for one in over["errors"]]
        assert (over["status"], over["done"], over["written"]) == ("done", 4, 2)
        assert named == [(0, "already_exists"), (3, "already_exists")]
        assert live.json("POST", "/v1/collections/photos/items/count", {}) == {"count": 3}
        # what is there by somebody else stays an error of the next job
        again = finished(live, live.json("POST", f"{JOBS}?mode=add", {"items": items})["id"])
        assert (again["written"], again["num_errors"]) == (0, 4)


def test_a_job_is_called_off(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    write = live.services.jobs._write

    def slow(*args: Any) -> Any:
        time.sleep(0.2)
        return write(*args)

    monkeypatch.setattr(live.services.jobs, "_write", slow)
    items = {"items": [{"id": f"c{at}", "text": "c"} for at in range(1_000)]}
    job = live.json("POST", JOBS, items)
    live.json("DELETE", f"/v1/jobs/{job['id']}")
    over = finished(live, job["id"])
    assert over["status"] == "cancelled"
    assert over["written"] < 1_000


def test_a_job_waits_where_requests_take_the_model(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused: list[Overloaded] = [Overloaded("1 requests wait.", retry_after=1)] * 2
    write = live.services.item_writer.write

    def busy(*args: Any, **more: Any) -> Any:
        if refused:
            raise refused.pop()
        return write(*args, **more)

    monkeypatch.setattr(live.services.item_writer, "write", busy)
    job = live.json("POST", JOBS, {"items": [{"id": "patient", "text": "x"}]})
    assert finished(live, job["id"])["status"] == "done"
    assert not refused


def test_the_longest_job_is_there_when_it_ends(tmp_path: Path) -> None:
    jobs = Jobs(folder=tmp_path, write=lambda *_: WriteOutcome(10), limits=Limits())

    def over(at: float, finished: float) -> Job:
        job = Job(f"{int(at):032x}", "a", "photos", "upsert", 1, created=at, finished=finished)
        job.status = "done"
        jobs.scratch("a")  # makes the folder
        jobs._save(job)
        return job

    long = over(1.0, 500.0)
    short = [over(at, at) for at in range(2, 102)]
    jobs._forget_old("a")
    left = {job.id for job in jobs.list("a")}
    assert len(left) == 100
    assert long.id in left and short[0].id not in left


def test_what_a_killed_server_has_left_of_a_body_is_swept_away(tmp_path: Path) -> None:
    jobs = Jobs(folder=tmp_path, write=lambda *_: WriteOutcome(10), limits=Limits())
    old, fresh = jobs.scratch("a"), jobs.scratch("a")
    for path in (old, fresh):
        path.write_text("half")
    os.utime(old, (time.time() - 7_200,) * 2)
    jobs.start()
    jobs.stop()
    assert not old.exists() and fresh.exists()


@pytest.mark.parametrize("tenant", ["lock", "models"])
def test_a_tenant_may_be_called_what_is_on_the_disk(tmp_path: Path, tenant: str) -> None:
    secret, key = new_key("a", role="admin", tenant=tenant)
    with serving(tmp_path, keys=[key]) as live:
        live.client.headers["X-API-Key"] = secret
        live.json("POST", "/v1/collections", {"name": "photos"})
        job = live.json("POST", JOBS, {"items": [{"id": "a", "text": "x"}]})
        assert finished(live, job["id"])["written"] == 1


def test_a_job_of_a_collection_that_goes_away_fails(live: Live) -> None:
    live.json("POST", "/v1/collections", {"name": "gone"})
    live.json("DELETE", "/v1/collections/gone")
    assert live.error("POST", "/v1/collections/gone/jobs", {"items": [{"id": "a"}]})[0] == 404
    assert live.error("GET", f"/v1/jobs/{'0' * 32}") == (404, "not_found")
    assert live.error("GET", "/v1/jobs/..%2f..%2fx") == (404, "not_found")


def test_a_job_writes_to_no_other_collection_of_the_name(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, first = live.services.jobs._write, threading.Event()

    def slow(*args: Any) -> Any:
        outcome = write(*args)
        first.set()
        time.sleep(1.0)
        return outcome

    live.json("POST", "/v1/collections", {"name": "again"})
    items = {"items": [{"id": str(at), "text": "old"} for at in range(600)]}
    with monkeypatch.context() as patched:
        patched.setattr(live.services.jobs, "_write", slow)
        id = live.json("POST", "/v1/collections/again/jobs", items)["id"]
        assert first.wait(10)
        live.json("DELETE", "/v1/collections/again")
        live.json("POST", "/v1/collections", {"name": "again"})
        over = finished(live, id)
    assert (over["status"], over["error"]["code"]) == ("failed", "not_found")
    assert live.json("POST", "/v1/collections/again/items/count", {}) == {"count": 0}


@pytest.mark.alone
@pytest.mark.parametrize(("pace", "expected"), [(0.0, (64, 64)), (0.02, (5, 20)), (0.5, (1, 1))])
def test_a_job_is_worked_off_in_short_steps(
    pace: float, expected: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stop, a cancel and other jobs wait for the end of a step: 64 long texts took minutes."""
    monkeypatch.setattr(prepare, "_GO", 0.2)
    sizes = []

    def write(job: Job, lines: Sequence[bytes], before: Before) -> WriteOutcome:
        sizes.append(len(lines))
        time.sleep(pace * len(lines))
        return WriteOutcome(10, written=len(lines))

    jobs = Jobs(folder=tmp_path, write=write, limits=Limits())
    body = jobs.scratch("a")
    body.write_text("{}\n" * 300)
    jobs.start()
    id = jobs.submit(body, "a", "photos", "upsert", 300, "").id
    while len(sizes) < 6 and not jobs.get("a", id).is_over:
        time.sleep(0.01)
    start = time.monotonic()
    jobs.stop()
    assert time.monotonic() - start < 1.5
    least, most = expected
    assert least <= sizes[4] <= most
    job = jobs.get("a", id)
    assert (job.done, job.written) == (sum(sizes), sum(sizes))


def test_a_job_goes_on_after_a_restart(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = {"items": [{"id": str(at), "text": f"t{at}"} for at in range(300)]}
    with serving(data) as live:
        live.json("POST", "/v1/collections", {"name": "photos"})
        write = live.services.jobs._write
        monkeypatch.setattr(
            live.services.jobs, "_write", lambda *args: time.sleep(0.3) or write(*args)
        )
        id = live.json("POST", JOBS, items)["id"]
    with serving(data) as live:
        over = finished(live, id)
        assert (over["status"], over["written"], over["done"]) == ("done", 300, 300)
        assert live.json("POST", "/v1/collections/photos/items/count", {}) == {"count": 300}


def test_it_is_ready_while_a_true_embedding_and_a_true_search_go_well(data: Path) -> None:
    with serving(data) as live:
        assert live.json("GET", "/livez") == {"status": "ok"}
        ready = live.json("GET", "/readyz")
        assert ready["status"] == "ready"
        assert {name: check["ok"] for name, check in ready["checks"].items()} == {
            "embed": True, "search": True, "data": True, "answers": True,
        }  # fmt: skip
        model = live.services.catalog.model(None)

        def broken(items: Any) -> Any:
            raise MemoryError

        working, model.embed = model.embed, broken  # type: ignore[method-assign]
        live.services.health.probe()
        reply = live.client.get("/readyz")
        assert (reply.status_code, reply.json()["checks"]["embed"]["ok"]) == (503, False)
        assert live.client.get("/livez").status_code == 200
        model.embed = working  # type: ignore[method-assign]
        live.services.health.probe()
        assert live.client.get("/readyz").status_code == 200


def test_it_is_ready_while_it_is_busy_and_not_where_the_model_stands_still(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(data) as live:
        model, health = live.services.catalog.model(None), live.services.health
        assert isinstance(model, BatchingModel)

        def full(items: Any) -> Any:
            raise Overloaded("64 texts wait already.", retry_after=1)

        monkeypatch.setattr(model, "embed", full)
        for check in health._checks.values():
            check.went_well -= 20  # nothing from before counts
        model._calls += 7
        health.probe()
        assert live.client.get("/readyz").status_code == 200
        health._checks["embed"].went_well -= 20
        health.probe()  # no call of the model since
        assert live.client.get("/readyz").json()["checks"]["embed"]["ok"] is False


def test_it_is_not_ready_where_nobody_gets_an_answer(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(data) as live:
        monkeypatch.setattr(live.services.catalog, "names", lambda tenant: 1 / 0)
        live.services.health._went_well = 0
        for _ in range(6):
            assert live.client.get("/v1/collections").status_code == 500
        assert live.client.get("/readyz").status_code == 503


def items_by_outcome(live: Live) -> dict[str, float]:
    text = live.client.get("/metrics").text
    found = re.findall(r'^triptych_items_total{outcome="(\w+)"} (\S+)$', text, re.MULTILINE)
    return {outcome: float(number) for outcome, number in found}


def test_numbers_tell_what_was_done(live: Live) -> None:
    live.json("POST", "/v1/collections/photos/search", {"query": "numbers"})
    live.json("POST", "/v1/collections/photos/search", {"query": "numbers"})
    items = {"items": [{"id": "n1", "text": "n"}, {"id": "n2", "text": "n"}, {"id": "n3"}]}
    before = items_by_outcome(live)
    live.json("PUT", "/v1/collections/photos/items", items)
    live.json("DELETE", "/v1/collections/photos/items/n1")
    after = items_by_outcome(live)
    rose = {name: after[name] - before.get(name, 0) for name in after}
    assert rose == {"written": 2, "refused": 1, "deleted": 1}
    text = live.client.get("/metrics").text
    route = 'route="/v1/collections/{name}/search"'
    assert f'triptych_requests_total{{method="POST",{route},status="200"}}' in text
    assert 'triptych_answers_total{tier="process"}' in text
    assert 'triptych_stage_seconds_count{stage="embed"}' in text
    assert "triptych_pool_waiting 0.0" in text


def test_no_line_of_the_log_can_be_forged() -> None:
    stream = io.StringIO()
    log = AccessLog("json", stream)
    log._timer = object()  # type: ignore[assignment]
    log.note("id", "GET", '/x\n{"status": 200}\x1b[2J"', 404, 0.001, 'na"me')
    log.flush()
    (line,) = stream.getvalue().splitlines()
    said = json.loads(line)
    assert said["path"] == '/x\n{"status": 200}\x1b[2J"'
    assert (said["status"], said["ms"], said["key"]) == (404, 1.0, 'na"me')
    assert JsonFormatter()


def test_the_dashboard_asks_for_numbers_that_there_are(live: Live) -> None:
    text = live.client.get("/metrics").text
    known = set(re.findall(r"^# TYPE (\w+)", text, flags=re.MULTILINE))
    deploy = Path(__file__).parents[2] / "deploy"
    board = json.loads((deploy / "monitoring/grafana/dashboards/triptych.json").read_text())
    asked = {
        name
        for panel in board["panels"]
        for target in panel.get("targets", [])
        for name in re.findall(r"triptych_\w+", target["expr"])
    }
    assert len(asked) >= 6
    for name in asked:
        assert re.sub(r"_(bucket|count|sum)$", "", name) in known | {f"{one}" for one in known}, (
            name
        )


def start(data: Path, *options: str) -> tuple[subprocess.Popen[str], str]:
    """Start `triptych serve` as a person does; return it and where it listens."""
    process = subprocess.Popen(
        [sys.executable, "-m", "triptych", "serve", "--port", "0", *options],
        env={
            **os.environ,
            "TRIPTYCH_DATA": str(data),
            "TRIPTYCH_MODEL": "hashing:64",
            "TRIPTYCH_LOG": "json",
        },
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    line = process.stderr.readline()
    assert "serving" in line, line
    url = line.rsplit(" ", 1)[-1].strip()
    until = time.monotonic() + 20
    while time.monotonic() < until:
        try:
            if httpx2.get(f"{url}/livez").status_code == 200:
                break
        except httpx2.TransportError:
            time.sleep(0.05)
    return process, url


def test_who_is_not_answered_before_the_end_is_told(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(data, times=Times(drain=1)) as live, ThreadPoolExecutor(1) as threads:
        names = live.services.catalog.names
        begun = threading.Event()

        def slow(tenant: str) -> list[str]:
            begun.set()
            time.sleep(2.5)
            return names(tenant)

        monkeypatch.setattr(live.services.catalog, "names", slow)
        asked = threads.submit(httpx2.get, f"{live.url}/v1/collections", timeout=20)
        assert begun.wait(10)
        live.stop()
        reply = asked.result(20)
        assert told(reply) == (503, "shutting_down")
        assert reply.headers["retry-after"] == "1"


@pytest.mark.alone
def test_what_was_given_up_at_the_end_holds_it_up_no_longer(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(data, times=Times(drain=0.5)) as live, ThreadPoolExecutor(1) as threads:
        model, begun = live.services.catalog.model(None), threading.Event()
        assert isinstance(model, BatchingModel)
        embed = model.model.embed

        def slow(items: Sequence[Item]) -> Matrix:
            begun.set()
            time.sleep(0.3)
            return embed(items)

        monkeypatch.setattr(model.model, "embed", slow)
        long = {"input": [f"{at} " + "x" * 8_000 for at in range(64)]}  # each a call of its own
        asked = threads.submit(httpx2.post, f"{live.url}/v1/embeddings", json=long, timeout=30)
        assert begun.wait(10)
        live.stop()
        assert told(asked.result(20)) == (503, "shutting_down")
        start = time.monotonic()
    assert time.monotonic() - start < 5  # and not the 19 s that it had taken


def test_the_end_under_load_loses_nothing_that_was_acknowledged(data: Path) -> None:
    process, url = start(data)
    httpx2.post(f"{url}/v1/collections", json={"name": "photos"}).raise_for_status()
    acknowledged: list[str] = []
    stop = threading.Event()

    def write(number: int) -> None:
        with httpx2.Client(base_url=url, timeout=30) as client:
            for at in range(100_000):
                if stop.is_set():
                    return
                id = f"{number}-{at}"
                try:
                    reply = client.put(
                        "/v1/collections/photos/items", json={"items": [{"id": id, "text": id}]}
                    )
                except httpx2.TransportError:
                    return
                if reply.status_code == 200:
                    acknowledged.append(id)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(1.0)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    _, said = process.communicate(timeout=20)
    stop.set()
    for thread in threads:
        thread.join()
    assert process.returncode == 0, said
    assert "Traceback" not in said, said
    assert len(acknowledged) > 5
    with serving(data) as live:
        for start_at in range(0, len(acknowledged), 500):
            ids = acknowledged[start_at : start_at + 500]
            found = live.json("POST", "/v1/collections/photos/items/get", {"ids": ids})
            assert None not in found["items"]
    lines = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    assert {"request_id", "path", "status", "ms"} <= set(lines[0])


def test_an_address_that_is_taken(data: Path, live: Live) -> None:
    from triptych.errors import NotAvailable

    with pytest.raises(NotAvailable, match="Cannot listen"):
        from triptych.api.config import ServerConfig
        from triptych.api.server import HttpServer
        from triptych.settings import Settings

        config = ServerConfig(port=live.port, model="hashing")
        HttpServer(Settings(data=data, model="hashing"), config).bind()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--model", "defualt"], "did you mean 'default'?), known: default, fine, hashing"),
        (["--model", "hashing", "--also-model", "nothing"], "Unknown model 'nothing', known: "),
        (["--model", "hashing", "--also-model", "default:/none"], "There is no model in /none"),
        (["--model", "nothing", "--workers", "2"], "Unknown model 'nothing', known: "),
    ],
)
def test_a_model_that_is_none_is_named_before_anything_is_served(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from triptych.cli.main import main

    assert main(["serve", "--port", "0", "--data", str(tmp_path), *options]) == 2
    assert said in (printed := capsys.readouterr().err) and "serving" not in printed


def test_a_data_folder_that_cannot_be_used_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from triptych.cli.main import main

    (tmp_path / "file").touch()
    assert main(["serve", "--port", "0", "--data", str(tmp_path / "file" / "data")]) == 2
    said = capsys.readouterr().err
    assert "data cannot be made: Not a directory." in said and "--data" in said
    assert "serving" not in said
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)  # root may
    assert main(["serve", "--port", "0", "--data", str(tmp_path / "theirs")]) == 2
    assert "theirs may not be written to" in capsys.readouterr().err


def test_without_the_extra_it_says_which(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from triptych.cli.main import main

    monkeypatch.setitem(sys.modules, "triptych.api.server", None)
    for name in [name for name in sys.modules if name.startswith("uvicorn")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "triptych.api.server")
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve"]) == 2
    assert 'pip install "triptych[server]"' in capsys.readouterr().err


def test_every_option_is_a_variable_and_the_option_wins(capsys: pytest.CaptureFixture[str]) -> None:
    from triptych.cli.main import main
    from triptych.cli.serve import OPTIONS, resolved
    from triptych.errors import InvalidInput

    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    document = (Path(__file__).parents[2] / "docs" / "http.md").read_text()
    for option in OPTIONS:
        assert (
            f"[{option.variable}]" in shown.replace(" ", "").replace("\n", "")
            or option.variable in shown
        )
        assert f"`{option.flag}` | `{option.variable}`" in document
    both = resolved({"port": "1"}, {"TRIPTYCH_PORT": "2", "TRIPTYCH_MAX_BODY": "3MB"})
    assert both == {"port": 1, "max_body": 3 * 2**20}
    with pytest.raises(InvalidInput, match="TRIPTYCH_PORT"):
        resolved({}, {"TRIPTYCH_PORT": "many"})
    for name, wrong in (
        ("REQUEST_TIMEOUT", "0"), ("REQUEST_TIMEOUT", "nan"), ("RATE", "-1"), ("READ_ONLY", "perhaps"),
        ("LOG", "xml"), ("MAX_BODY", "MB"), ("REQUEST_TIMEOUT", "x"),
    ):  # fmt: skip
        with pytest.raises(InvalidInput, match=f"TRIPTYCH_{name}"):
            resolved({}, {f"TRIPTYCH_{name}": wrong})
