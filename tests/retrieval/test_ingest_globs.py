"""Patterns and pictures named one by one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.retrieval.fakes import BLUE, GREEN, RED, CountingModel, paint
from triptych.errors import InvalidInput, NotFound
from triptych.retrieval.collection import Collection
from triptych.retrieval.ingest.globs import scan_pattern
from triptych.retrieval.ingest.run import IngestReport, index_folder, index_source
from triptych.retrieval.ingest.sources import Folder, Pictures, sources_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "pictures"
    for name in ("a.png", "b.jpg", "sub/c.png", "sub/deep/d.png", ".hidden/e.png", "sub/.f.png"):
        paint(root / name, RED)
    (root / "notes.txt").write_text("x")
    (root / "link.png").symlink_to(root / "a.png")
    (root / "loop").symlink_to(root)
    return root


@pytest.fixture
def collection(tmp_path: Path) -> Iterator[Collection]:
    with Collection.open(tmp_path / "c", embedder=CountingModel()) as collection:
        yield collection


def index(collection: Collection, *names: str | Path) -> IngestReport:
    [source] = sources_of([str(name) for name in names])
    return index_source(collection, source)


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["a.png", "link.png"]),
        ("*", ["a.png", "b.jpg", "link.png"]),
        ("*.txt", ["notes.txt"]),
        ("**/*.png", ["a.png", "link.png", "sub/c.png", "sub/deep/d.png"]),
        ("**", ["a.png", "b.jpg", "link.png", "sub/c.png", "sub/deep/d.png"]),
        ("**/**/d.png", ["sub/deep/d.png"]),
        ("*/c.png", ["sub/c.png"]),
        ("[ab].*", ["a.png", "b.jpg"]),
        ("?.png", ["a.png"]),
        ("sub/.*.png", ["sub/.f.png"]),
        (".hidden/*.png", [".hidden/e.png"]),
        ("sub/../*.jpg", ["b.jpg"]),
        ("*.JPG", []),
        ("nowhere/*.png", []),
    ],
)
def test_what_a_pattern_finds(root: Path, pattern: str, expected: list[str]) -> None:
    scan = scan_pattern(f"{root}/{pattern}")
    assert [os.path.relpath(found.path, root) for found in scan.found] == expected
    assert scan.failed == []


def test_a_pattern_is_indexed_and_the_second_time_skipped(
    collection: Collection, root: Path
) -> None:
    pattern = root / "**/*.png"
    assert index(collection, pattern).added == 4
    assert index(collection, pattern).unchanged == 4
    paint(root / "a.png", GREEN)  # and so what link.png points to
    os.utime(root / "sub/c.png", (1, 1))
    report = index(collection, pattern)
    assert (report.added, report.updated, report.unchanged) == (0, 2, 2)
    (root / "sub/c.png").unlink()
    assert index(collection, pattern).removed == 0 and collection.count() == 4


def test_a_folder_and_a_pattern_share_their_items(collection: Collection, root: Path) -> None:
    assert index(collection, root / "**/*.png").added == 4
    report = index_folder(collection, root)
    assert (report.added, report.unchanged, report.removed) == (1, 3, 0)  # b.jpg; link.png stays
    (root / "sub/c.png").unlink()
    assert index_folder(collection, root).removed == 1


def test_pictures_named_one_by_one_are_one_source(collection: Collection, root: Path) -> None:
    report = index(collection, root / "a.png", root / "sub/c.png", root / "link.png")
    assert (report.added, report.failed) == (3, 0)
    assert index(collection, root / "a.png", root / "sub/c.png").unchanged == 2


def test_a_name_with_brackets_that_is_there_is_no_pattern(root: Path) -> None:
    paint(root / "x[1].png", BLUE)
    paint(root / "y[1]" / "z.png", BLUE)
    [source] = sources_of([str(root / "x[1].png")])
    assert isinstance(source, Pictures) and len(source.scan.found) == 1
    assert sources_of([str(root / "y[1]")]) == [Folder(str(root / "y[1]"))]


def test_what_matches_nothing_and_what_is_no_source(root: Path) -> None:
    with pytest.raises(NotFound, match="Nothing matches"):
        sources_of([f"{root}/*.gif"])
    with pytest.raises(InvalidInput, match=r"another kind, expected a folder, pictures, \.jsonl"):
        sources_of([str(root / "notes.txt")])
    (root / "a.csv.gz").write_bytes(b"")
    with pytest.raises(InvalidInput, match=r"packed, .* Unpack it first"):
        sources_of([str(root / "a.csv.gz")])
    with pytest.raises(NotFound, match="no file"):
        sources_of([str(root / "none.jsonl")])


def test_a_pattern_of_manifests_is_a_source_each(root: Path) -> None:
    for name in ("x1.csv", "x2.csv"):
        (root / name).write_text(f"id,text\n{name},words\n")
    assert [source.path for source in sources_of([f"{root}/x*.csv"])] == [
        str(root / "x1.csv"), str(root / "x2.csv"),
    ]  # fmt: skip
