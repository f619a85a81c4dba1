"""Manifests and tars into a collection: what is skipped, what is done again, what a kill leaves."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.retrieval.fakes import BLUE, GREEN, RED, CountingModel, encoded, paint
from triptych.encoders.pictures.picture import PictureLimits
from triptych.retrieval.collection import Collection
from triptych.retrieval.ingest.run import IngestOptions, IngestReport, index_source
from triptych.retrieval.ingest.sources import sources_of

Row = dict[str, Any]


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    with Collection.open(tmp_path / "c", embedder=CountingModel()) as collection:
        yield collection


def rows_of(folder: Path, count: int) -> list[Row]:
    paths = [paint(folder / f"img/{at}.png", (at % 256, at // 256, 9)) for at in range(count)]
    return [
        {"id": f"r{at}", "image": f"img/{path.name}", "text": f"picture {at}", "n": at}
        for at, path in enumerate(paths)
    ]


def as_jsonl(folder: Path, rows: list[Row]) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def as_csv(folder: Path, rows: list[Row]) -> Path:
    path = folder / "rows.csv"
    lines = [",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]
    path.write_text("\n".join(lines))
    return path


def as_parquet(folder: Path, rows: list[Row]) -> Path:
    path = folder / "rows.parquet"
    held = [{**row, "image": (folder / row["image"]).read_bytes()} for row in rows]
    pq.write_table(pa.Table.from_pylist(held), path)
    return path


def as_tar(folder: Path, rows: list[Row]) -> Path:
    path = folder / "rows.tar"
    with tarfile.open(path, "w") as archive:
        for row in rows:
            parts = {
                "png": (folder / row["image"]).read_bytes(),
                "txt": row["text"].encode(),
                "json": json.dumps({"n": row["n"]}).encode(),
            }
            for ending, data in parts.items():
                info = tarfile.TarInfo(f"{row['id']}.{ending}")
                info.size = len(data)
                archive.addfile(info, BytesIO(data))
    return path


Pack = Callable[[Path, list[Row]], Path]
every_kind = pytest.mark.parametrize("pack", [as_jsonl, as_csv, as_parquet, as_tar])


def index(collection: Collection, path: Path, **options: Any) -> IngestReport:
    [source] = sources_of([str(path)])
    return index_source(collection, source, IngestOptions(**options))


def counts(report: IngestReport) -> tuple[int, int, int, int]:
    return report.added, report.updated, report.unchanged, report.failed


def embedded(collection: Collection) -> list[str]:
    model: Any = collection.embedder
    found = sorted(model.embedded)
    model.embedded.clear()
    return found


@every_kind
def test_rows_are_found_and_the_second_run_embeds_nothing(
    collection: Collection, tmp_path: Path, pack: Pack
) -> None:
    path = pack(tmp_path, rows_of(tmp_path, 100))
    seen: list[tuple[int, int | None]] = []
    report = index(collection, path, progress=lambda *done: seen.append(done))
    assert counts(report) == (100, 0, 0, 0)
    assert seen[0][0] == 0 and seen[-1] == (100, 100)
    assert len(embedded(collection)) == 100
    hit = collection.search("picture 42", limit=1)[0]
    assert hit.id.endswith("r42") and hit.metadata == {"n": 42} and hit.modality == "both"
    assert (collection.thumbnail(hit.id) or b"").startswith(b"\xff\xd8")
    sequence = collection.info()["sequence"]
    embedded(collection)
    assert counts(index(collection, path)) == (0, 0, 100, 0)
    assert embedded(collection) == [] and collection.info()["sequence"] == sequence


def test_what_is_stored_with_the_same_content_is_not_decoded(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = as_jsonl(tmp_path, rows_of(tmp_path, 5))
    index(collection, path)
    monkeypatch.setattr("triptych.retrieval.ingest.lanes.load_picture", None)
    assert counts(index(collection, path)) == (0, 0, 5, 0)


@pytest.mark.parametrize("part", ["picture", "text", "n", "uri"])
def test_only_the_row_that_changed_is_done_again(
    collection: Collection, tmp_path: Path, part: str
) -> None:
    rows = rows_of(tmp_path, 5)
    index(collection, as_jsonl(tmp_path, rows))
    embedded(collection)
    if part == "picture":
        paint(tmp_path / "img/3.png", GREEN)
    else:
        rows[3][part] = "new"
    assert counts(index(collection, as_jsonl(tmp_path, rows))) == (0, 1, 4, 0)
    assert embedded(collection) == ["r3"] and collection.count() == 5


def test_a_row_that_is_gone_or_became_bad_keeps_its_item(
    collection: Collection, tmp_path: Path
) -> None:
    rows = rows_of(tmp_path, 4)
    index(collection, as_jsonl(tmp_path, rows))
    (tmp_path / "img/1.png").write_bytes(b"garbage")
    (tmp_path / "img/2.png").unlink()
    assert counts(index(collection, as_jsonl(tmp_path, rows[1:]))) == (0, 0, 1, 2)
    assert collection.count() == 4


def test_every_failure_is_named_and_passed_on(collection: Collection, tmp_path: Path) -> None:
    paint(tmp_path / "big.png", RED)
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "secret").mkdir()
    paint(tmp_path / "secret/s.png", BLUE)
    (tmp_path / "link.png").symlink_to(tmp_path / "secret/s.png")
    os.mkfifo(tmp_path / "pipe.png")
    bad = base64.b64encode(encoded(GREEN)).decode()
    images = [
        "https://example.org/a.jpg", "file:///etc/passwd", "none.png", "empty.png", "text.png",
        "pipe.png", "secret", "/dev/zero", "/proc/self/environ", "data:image/png;base64,!!",
        "data:image/png,x", "../c/lock/../../nothing.png",
        "link.png", str(tmp_path / "big.png"), f"data:image/png;base64,{bad}",
    ]  # fmt: skip
    rows = [{"id": str(at), "image": image} for at, image in enumerate(images)]
    path = as_jsonl(tmp_path, [*rows, {"id": "0", "text": "again"}, {"id": "x"}])
    failures: list[Any] = []
    report = index(collection, path, on_failure=failures.append)
    assert counts(report) == (3, 0, 0, 14)
    assert report.failures == failures
    codes = {failure.place: failure.code for failure in failures}
    assert codes.pop("line 16") == "row_duplicate" and codes.pop("line 17") == "row_empty"
    assert list(dict(sorted(codes.items(), key=lambda pair: int(pair[0][5:]))).values()) == [
        "picture_url", "picture_url", "picture_missing", "picture_empty", "picture_format",
        "picture_not_file", "picture_not_file", "picture_not_file", "picture_format",
        "picture_data_uri", "picture_data_uri", "picture_missing",
    ]  # fmt: skip
    assert "not fetched" in next(f.reason for f in failures if f.code == "picture_url")
    assert all("\n" not in failure.reason for failure in failures)


def test_large_pictures_go_in_small_batches(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[int] = []
    put = collection.put
    monkeypatch.setattr(
        collection, "put", lambda batch: written.append(len(batch)) or put(batch), raising=True
    )
    monkeypatch.setattr("triptych.retrieval.ingest.lanes._BATCH_PIXELS", 3 * 48 * 40 - 1)
    index(collection, as_jsonl(tmp_path, rows_of(tmp_path, 32)))
    assert written == [3] * 10 + [2]


def test_limits_hold(collection: Collection, tmp_path: Path) -> None:
    path = as_jsonl(tmp_path, rows_of(tmp_path, 2))
    report = index(collection, path, limits=PictureLimits(max_pixels=100))
    assert counts(report) == (0, 0, 0, 2)
    assert {failure.code for failure in report.failures} == {"picture_too_large"}


def test_a_thousand_failures_are_counted_and_a_hundred_kept(
    collection: Collection, tmp_path: Path
) -> None:
    path = as_jsonl(tmp_path, [{"id": "a", "text": "x"}, *({"id": f"e{at}"} for at in range(1000))])
    told: list[Any] = []
    report = index(collection, path, on_failure=told.append)
    assert report.failed == len(told) == 1000 and len(report.failures) == 100


CHILD = """
import sys, time
from tests.retrieval.fakes import CountingModel
from triptych.retrieval.collection import Collection
from triptych.retrieval.ingest.run import IngestOptions, index_source
from triptych.retrieval.ingest.sources import sources_of
class Slow(CountingModel):
    def embed(self, items):
        time.sleep(0.05)
        return super().embed(items)
with Collection.open(sys.argv[1], embedder=Slow()) as collection:
    options = IngestOptions(progress=lambda done, total: print(done, flush=True))
    index_source(collection, sources_of([sys.argv[2]])[0], options)
"""


def everything(collection: Collection) -> dict[str, Any]:
    hits = collection.search("picture", limit=10_000)
    found = collection.get([hit.id for hit in hits])
    return {one.id: (one.text, one.uri, one.metadata, one.content) for one in found if one}


@pytest.mark.slow
@every_kind
def test_a_kill_in_the_middle_is_made_good_by_the_next_run(tmp_path: Path, pack: Pack) -> None:
    path = pack(tmp_path, rows_of(tmp_path, 300))
    before = 0
    for wait in (1, 100, 200):  # the last lines that a child may print before it is killed
        arguments = [sys.executable, "-c", CHILD, str(tmp_path / "c"), str(path)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if int(line) >= wait:
                    break
            os.kill(child.pid, signal.SIGKILL)
        with Collection.open(tmp_path / "c", embedder=CountingModel()) as collection:
            assert before <= collection.count() < 300
            before = collection.count()
    assert before > 0
    with (
        Collection.open(tmp_path / "c", embedder=CountingModel()) as collection,
        Collection.open(tmp_path / "whole", embedder=CountingModel()) as whole,
    ):
        assert counts(index(collection, path)) == (300 - before, 0, before, 0)
        assert len(embedded(collection)) == 300 - before
        index(whole, path)
        assert everything(collection) == everything(whole) and len(everything(whole)) == 300


WRITER = """
import sys, time
from tests.retrieval.fakes import CountingModel
from triptych.retrieval.collection import Collection
with Collection.open(sys.argv[1], embedder=CountingModel()) as collection:
    collection.claim()
    print("ready", flush=True)
    for line in sys.stdin:
        collection.add([{"id": line.strip(), "text": line.strip()}])
        print(time.time(), flush=True)
"""


def test_an_item_of_another_process_is_found_within_a_second(tmp_path: Path) -> None:
    with (
        Collection.open(tmp_path / "c", embedder=CountingModel()) as collection,
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "c")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as writer,
    ):
        assert writer.stdin is not None and writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        for word in ("apple", "pear", "plum"):
            print(word, file=writer.stdin, flush=True)
            added = float(writer.stdout.readline())
            while collection.search(word, limit=1)[:1] == [] or (
                collection.search(word, limit=1)[0].id != word
            ):
                assert time.time() - added < 1
            assert time.time() - added < 1
        writer.stdin.close()
