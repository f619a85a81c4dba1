"""Folders into collections: what changed, what vanished, what cannot be read."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.retrieval.fakes import BLACK, BLUE, GREEN, RED, CountingModel, encoded, paint
from triptych.encoders.pictures.picture import PictureLimits
from triptych.encoders.vectors import CallerVectors
from triptych.errors import InvalidInput, ModelMismatch, NotFound, PictureError
from triptych.retrieval.collection import Collection
from triptych.retrieval.ingest.run import IngestOptions, IngestReport, index_folder
from triptych.types import Item, Matrix

PRUNE = IngestOptions(prune=True)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for name, colour in (("a.png", RED), ("b.png", GREEN), ("sub/c.png", BLUE), ("d.JPG", BLACK)):
        paint(root / name, colour)
    return root


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    with Collection.open(tmp_path / "c", embedder=CountingModel()) as collection:
        yield collection


def counts(report: IngestReport) -> tuple[int, int, int, int, int]:
    return (
        report.added, report.updated, report.unchanged, report.removed, report.failed,
    )  # fmt: skip


def codes(report: IngestReport) -> dict[str, str]:
    return {os.path.basename(failure.place): failure.code for failure in report.failures}


def embedded(collection: Collection) -> list[str]:
    model: Any = collection.embedder
    names = [os.path.basename(id) for id in model.embedded]
    model.embedded.clear()
    return names


def test_a_folder_becomes_findable(collection: Collection, root: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    options = IngestOptions(progress=lambda *done: seen.append(done))
    report = index_folder(collection, root, options)
    assert counts(report) == (4, 0, 0, 0, 0) and report.seconds > 0
    assert seen == [(0, 4), (4, 4)]
    assert embedded(collection) == ["a.png", "b.png", "d.JPG", "c.png"]
    hit = collection.search("blue", limit=1)[0]
    assert hit.id == hit.uri == str(root / "sub/c.png") and hit.modality == "image"
    assert (collection.thumbnail(hit.id) or b"").startswith(b"\xff\xd8")


def test_the_second_run_does_nothing(collection: Collection, root: Path) -> None:
    index_folder(collection, root)
    sequence = collection.info()["sequence"]
    embedded(collection)
    assert counts(index_folder(collection, root)) == (0, 0, 4, 0, 0)
    assert embedded(collection) == [] and collection.info()["sequence"] == sequence


def test_only_what_changed_is_embedded(collection: Collection, root: Path) -> None:
    index_folder(collection, root)
    embedded(collection)
    paint(root / "a.png", BLUE)
    paint(root / "new.png", (90, 90, 90))
    os.utime(root / "b.png", (1, 1))  # touched, the same content
    assert counts(index_folder(collection, root)) == (1, 1, 3, 0, 0)
    assert sorted(embedded(collection)) == ["a.png", "new.png"]
    assert counts(index_folder(collection, root)) == (0, 0, 5, 0, 0)
    assert str(root / "a.png") in [hit.id for hit in collection.search("blue", limit=2)]


def test_touched_files_are_hashed_once(
    collection: Collection, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index_folder(collection, root)
    os.utime(root / "b.png", (1, 1))
    index_folder(collection, root)
    monkeypatch.setattr("triptych.retrieval.ingest.lanes.picture_bytes", None)
    assert counts(index_folder(collection, root)) == (0, 0, 4, 0, 0)


def test_more_than_half_gone_is_refused(collection: Collection, root: Path) -> None:
    index_folder(collection, root)
    for name in ("a.png", "b.png", "d.JPG"):
        (root / name).unlink()
    paint(root / "new.png", (90, 90, 90))
    with pytest.raises(InvalidInput, match=r"3 of the 4 .*--prune"):
        index_folder(collection, root)
    assert collection.count() == 4
    assert counts(index_folder(collection, root, PRUNE)) == (1, 0, 1, 3, 0)


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_a_root_that_is_gone_or_empty_drops_nothing(
    collection: Collection, root: Path, how: str
) -> None:
    index_folder(collection, root)
    shutil.rmtree(root)
    if how == "empty":
        root.mkdir()
    with pytest.raises(InvalidInput, match="--prune"):
        index_folder(collection, root)
    assert collection.count() == 4
    assert counts(index_folder(collection, root, PRUNE)) == (0, 0, 0, 4, 0)


def test_no_folder_is_a_sentence(collection: Collection, root: Path) -> None:
    with pytest.raises(NotFound, match="no folder"):
        index_folder(collection, root / "nowhere", PRUNE)
    with pytest.raises(InvalidInput, match="is a file"):
        index_folder(collection, root / "a.png")


def test_other_roots_and_other_items_are_left_alone(collection: Collection, root: Path) -> None:
    other = root.parent / "pictures2"
    paint(other / "z.png", RED)
    index_folder(collection, root)
    index_folder(collection, other)
    collection.add([{"id": str(root / "by hand"), "text": "by hand"}])
    assert counts(index_folder(collection, root)) == (0, 0, 4, 0, 0)
    assert collection.count() == 6


def test_every_unreadable_picture_is_named(collection: Collection, root: Path) -> None:
    bad = {
        "empty.png": b"",
        "text.jpg": b"this is no picture",
        "page.png": b"<!doctype html><p>404",
        "cut.png": encoded(RED)[:60],
        "drawing.svg": b'<svg xmlns="http://www.w3.org/2000/svg"/>',
        "phone.heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "layers.psd": b"8BPS\0\x01",
    }
    for name, content in bad.items():
        (root / name).write_bytes(content)
    (root / "outside.png").symlink_to("/etc/passwd")
    os.mkfifo(root / "pipe.png")
    Image.new("1", (9000, 9000)).save(root / "bomb.png")
    options = IngestOptions(limits=PictureLimits(max_pixels=1_000_000))
    report = index_folder(collection, root, options)
    assert counts(report)[:4] == (4, 0, 0, 0)
    found = codes(report)
    assert found.keys() == {*bad, "outside.png", "pipe.png", "bomb.png"}
    assert found["empty.png"] == "picture_empty" and found["bomb.png"] == "picture_too_large"
    assert found["drawing.svg"] == found["phone.heic"] == "picture_format"
    assert found["outside.png"] == "link" and found["pipe.png"] == "picture_not_file"
    assert all(
        reason.endswith(".") and "0x" not in reason
        for reason in (failure.reason for failure in report.failures)
    )
    assert collection.count() == 4


def test_a_picture_that_became_unreadable_is_dropped(collection: Collection, root: Path) -> None:
    index_folder(collection, root)
    (root / "a.png").write_bytes(b"garbage")
    report = index_folder(collection, root)
    assert counts(report) == (0, 0, 3, 1, 1) and "a.png" in codes(report)
    assert collection.get(str(root / "a.png")) == [None]


def test_an_error_of_the_disk_drops_nothing(
    collection: Collection, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any, **__: Any) -> bytes:
        raise PictureError("picture_unreadable", "It cannot be read: input/output error.")

    index_folder(collection, root)
    for name in ("a.png", "b.png", "d.JPG"):
        os.utime(root / name, (1, 1))
    monkeypatch.setattr("triptych.retrieval.ingest.lanes.picture_bytes", failing)
    assert counts(index_folder(collection, root)) == (0, 0, 1, 0, 3)
    assert collection.count() == 4


def test_links_and_hidden_folders_are_not_followed(collection: Collection, root: Path) -> None:
    outside = paint(root.parent / "outside" / "o.png", RED).parent
    (root / "loop").symlink_to(root)
    (root / "escape").symlink_to(outside)
    paint(root / ".thumbnails" / "t.png", RED)
    paint(root / "._a.png", RED)
    report = index_folder(collection, root)
    assert report.added == 4 and codes(report) == {"loop": "link", "escape": "link"}


def test_names_that_are_no_text(collection: Collection, root: Path) -> None:
    names = [b"caf\xe9.png", b"new\nline.png", "übung ☃.png".encode(), b" .png", b"-n.png"]
    for name in names:
        with open(os.path.join(os.fsencode(root), name), "wb") as file:
            file.write(encoded(GREEN))
    assert counts(index_folder(collection, root)) == (9, 0, 0, 0, 0)
    assert counts(index_folder(collection, root)) == (0, 0, 9, 0, 0)
    ids = {os.fsencode(hit.id) for hit in collection.search("green", limit=99)}
    assert {os.path.join(os.fsencode(root), name) for name in names} < ids
    os.unlink(os.path.join(os.fsencode(root), names[0]))
    assert index_folder(collection, root).removed == 1


class Refusing(CountingModel):
    """Cannot place black pictures."""

    def embed(self, items: Sequence[Item]) -> Matrix:
        if any(getattr(item.image, "getpixel", lambda _: 1)((0, 0)) == BLACK for item in items):
            raise InvalidInput("A vector is zero: it points nowhere, so it has no cosine.")
        return super().embed(items)


def test_a_picture_that_the_model_refuses_costs_only_itself(tmp_path: Path, root: Path) -> None:
    paint(root / "e.png", RED)
    paint(root / "black.png", BLACK)
    (root / "d.JPG").unlink()
    with Collection.open(tmp_path / "c", embedder=Refusing()) as collection:
        report = index_folder(collection, root)
        assert report.added == 4 and codes(report) == {"black.png": "invalid_input"}


def test_pictures_do_not_enter_a_collection_of_own_vectors(tmp_path: Path, root: Path) -> None:
    own = CallerVectors("mine", 8)
    with Collection.open(tmp_path / "c", embedder=own) as c, pytest.raises(ModelMismatch):
        index_folder(c, root)


def test_a_second_indexer_hands_its_writes_over(tmp_path: Path, root: Path) -> None:
    with (
        Collection.open(tmp_path / "c", embedder=CountingModel()) as first,
        Collection.open(tmp_path / "c", embedder=CountingModel()) as second,
    ):
        first.add([{"id": "x", "text": "x"}])
        report = index_folder(second, root)
        assert first.count() == second.count() == 1 + report.added
        assert index_folder(first, root).unchanged == report.added


class Interrupted(CountingModel):
    """The user presses Ctrl-C while the third block is embedded."""

    def embed(self, items: Sequence[Item]) -> Matrix:
        if len(self.embedded) >= 64:
            raise KeyboardInterrupt
        return super().embed(items)


def test_ctrl_c_keeps_what_was_done_and_the_next_run_goes_on(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    for at in range(100):
        paint(root / f"{at:03}.png", (at, 0, 0))
    with (
        pytest.raises(KeyboardInterrupt),
        Collection.open(tmp_path / "c", embedder=Interrupted()) as collection,
    ):
        index_folder(collection, root, IngestOptions(lanes=1))
    with Collection.open(tmp_path / "c", embedder=CountingModel()) as collection:
        assert collection.count() == 64
        assert counts(index_folder(collection, root)) == (36, 0, 64, 0, 0)
        assert len(embedded(collection)) == 36


CHILD = """
import sys, time
from tests.retrieval.fakes import CountingModel
from triptych.retrieval.collection import Collection
from triptych.retrieval.ingest.run import IngestOptions, index_folder
done = 0
def told(now, total):
    global done
    done = now
    print(done, flush=True)
class Slow(CountingModel):
    def embed(self, items):
        # from there on it is to be killed, however long whoever does it is held up
        time.sleep(0.05 if done < int(sys.argv[3]) else 1.0)
        return super().embed(items)
with Collection.open(sys.argv[1], embedder=Slow()) as collection:
    options = IngestOptions(progress=told)
    index_folder(collection, sys.argv[2], options)
"""


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT], ids=lambda sent: sent.name)
def test_a_kill_in_the_middle_is_made_good_by_the_next_run(tmp_path: Path, sent: int) -> None:
    root = tmp_path / "pictures"
    for at in range(400):
        paint(root / f"{at:03}.png", (at % 256, at // 256, 9))
    before = 0
    for wait in (70, 150, 260):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path / "c"), str(root), str(wait)],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if int(line) >= wait:
                    break
            os.kill(child.pid, sent)
            started = time.monotonic()
            child.wait(timeout=10)
            assert time.monotonic() - started < 5
        with Collection.open(tmp_path / "c", embedder=CountingModel()) as collection:
            assert before <= collection.count() < 400
            assert len(collection.search("red", limit=1000)) == collection.count()
            before = collection.count()
    assert before > 0
    with Collection.open(tmp_path / "c", embedder=CountingModel()) as collection:
        report = index_folder(collection, root)
        assert counts(report) == (400 - before, 0, before, 0, 0)
        assert len(embedded(collection)) == 400 - before
        assert len(collection.search("red", limit=1000)) == 400
