"""Stored pictures as a person looks at them: large while the original is here, tiny in a mosaic."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from tests.retrieval.fakes import encoded
from triptych.encoders.hashing import HashingEncoder
from triptych.retrieval.collection import Collection
from triptych.retrieval.display.showing import CELL, COLUMNS, enlarged, mosaic
from triptych.retrieval.ingest.run import index_folder


@pytest.fixture
def collection() -> Iterator[Collection]:
    with Collection.open(":memory:", embedder=HashingEncoder()) as collection:
        yield collection


def large(path: Path, colour: str = "red") -> Path:
    picture = Image.new("RGB", (1000, 500), colour)
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    picture.save(path, exif=exif)
    return path


def size(jpeg: bytes | None) -> tuple[int, int]:
    assert jpeg is not None and b"where I live" not in jpeg
    return Image.open(BytesIO(jpeg), formats=("JPEG",)).size


def test_a_file_is_shown_large_while_it_is_what_was_indexed(
    collection: Collection, tmp_path: Path
) -> None:
    path = large(tmp_path / "a.jpg")
    assert index_folder(collection, tmp_path).added == 1
    (id,) = collection.sample(1)
    assert size(enlarged(collection, id, side=800)) == (800, 400)
    assert size(enlarged(collection, id, side=5_000)) == (1000, 500)
    large(path, "blue")
    assert enlarged(collection, id, side=800) == collection.thumbnail(id)
    path.unlink()
    assert enlarged(collection, id, side=800) == collection.thumbnail(id)
    path.mkdir()
    assert enlarged(collection, id, side=800) == collection.thumbnail(id)


def test_what_was_sent_is_shown_large_and_without_its_notes(
    collection: Collection, tmp_path: Path
) -> None:
    sent = large(tmp_path / "a.jpg").read_bytes()
    collection.add([{"id": "sent", "image": sent}, {"id": "words", "text": "x"}])
    assert size(enlarged(collection, "sent", side=640)) == (640, 320)
    assert enlarged(collection, "words", side=640) is None
    assert enlarged(collection, "none", side=640) is None


def test_a_file_that_was_added_by_its_path_is_shown_large_from_anywhere(
    collection: Collection, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = large(tmp_path / "a.jpg")
    monkeypatch.chdir(tmp_path)
    collection.add([{"id": "bare", "image": "a.jpg"}, {"id": "said", "image": path, "text": "x"}])
    monkeypatch.chdir("/")
    for id in ("bare", "said"):
        assert size(enlarged(collection, id, side=800)) == (800, 400)
    large(path, "blue")
    assert enlarged(collection, "bare", side=800) == collection.thumbnail("bare")


def test_a_file_that_was_added_by_hand_belongs_to_its_folder_once_that_is_indexed(
    collection: Collection, tmp_path: Path
) -> None:
    path = large(tmp_path / "a.jpg")
    large(tmp_path / "b.jpg", "blue")
    collection.add([{"id": str(path), "image": path}])
    report = index_folder(collection, tmp_path)
    assert (report.added, report.updated) == (1, 1)
    assert index_folder(collection, tmp_path).unchanged == 2
    path.unlink()
    assert index_folder(collection, tmp_path).removed == 1


def test_an_address_that_a_caller_made_up_opens_nothing(
    collection: Collection, tmp_path: Path
) -> None:
    secret = large(tmp_path / "secret.jpg")
    collection.keep_pictures = False
    small = encoded((250, 0, 0))
    for at, uri in enumerate([str(secret), "/etc/passwd", f"file://{secret}", "a\0b", ".", ""]):
        collection.add([{"id": str(at), "image": small, "uri": uri}])
        assert enlarged(collection, str(at), side=800) == collection.thumbnail(str(at))


def test_a_mosaic_has_a_cell_for_each(collection: Collection) -> None:
    pictures = [("a", (200, 50), "red"), ("b", (50, 50), "blue"), ("c", (50, 200), "lime")]
    for id, shape, colour in pictures:
        collection.add([{"id": id, "image": Image.new("RGB", shape, colour)}])
    ids = ["a", "none", *["b"] * 39, "c"]
    whole = Image.open(BytesIO(mosaic(collection.thumbnail(id) for id in ids)))
    assert whole.size == (CELL * COLUMNS, CELL * 2)

    def near(cell: int, x: int, y: int, colour: tuple[int, int, int]) -> bool:
        at = ((cell % COLUMNS) * CELL + x, (cell // COLUMNS) * CELL + y)
        return all(
            abs(a - b) < 40
            for a, b in zip(whole.getpixel(at), colour, strict=True)  # type: ignore[arg-type]
        )

    assert near(0, 8, 8, (255, 0, 0)) and near(0, 8, 1, (255, 255, 255))
    assert near(1, 8, 8, (255, 255, 255)) and near(2, 8, 8, (0, 0, 255))
    assert near(41, 8, 8, (0, 255, 0)) and near(41, 1, 8, (255, 255, 255))
    assert Image.open(BytesIO(mosaic([]))).size == (CELL * COLUMNS, CELL)
