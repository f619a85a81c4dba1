"""The budget, the kinds that it allows, and how much they really take."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from triptych.errors import InvalidInput
from triptych.index import ANNS, INDEXES
from triptych.index.plan import Budget, kinds, resident_bytes
from triptych.index.rowfile import RowFile

MILLION = 1_000_000


@pytest.mark.parametrize(
    ("memory", "expected"),
    [
        (None, None),
        (512, 512),
        ("2GB", 2 * 10**9),
        ("512MB", 512 * 10**6),
        (" 1.5 gib ", 3 * 2**29),
        ("4096", 4096),
        ("7 B", 7),
        ("64KiB", 2**16),
    ],
)
def test_sizes_that_are_read(memory: object, expected: int | None) -> None:
    assert Budget.parse(0.9, memory) == Budget(recall=0.9, memory=expected)


@pytest.mark.parametrize(
    "memory",
    [
        "",
        "GB",
        "2 parsecs",
        "-1",
        "1e9",
        "2GB 3",
        0,
        -5,
        0.5,
        True,
        [],
        "0MB",
        "٢GB",
        "9" * 400 + "GB",
    ],
)
def test_a_memory_that_is_no_size_is_refused(memory: object) -> None:
    with pytest.raises(InvalidInput, match="memory"):
        Budget.parse(0.9, memory)


@pytest.mark.parametrize(
    "recall", [0, -0.1, 1.01, float("nan"), float("inf"), "high", [], 97, 10**400]
)
def test_a_recall_that_is_no_share_is_refused(recall: object) -> None:
    with pytest.raises(InvalidInput, match="recall"):
        Budget.parse(recall)


def test_what_is_not_said_is_the_default() -> None:
    assert Budget.parse() == Budget() == Budget(recall=0.97, memory=None)
    assert Budget.parse("0.9").recall == 0.9


def test_small_collections_and_a_recall_of_one_are_scanned() -> None:
    assert kinds(10_000, 512, "fp32", Budget()) == ("flat",)
    assert kinds(0, 512, "fp32", Budget()) == ("flat",)
    assert kinds(MILLION, 512, "fp32", Budget(recall=1.0)) == ("flat",)


def test_graphs_are_tried_where_they_fit_the_memory() -> None:
    lists = ("ivf_rabitq", "ivf_sq8", "flat")
    many = 400_000
    assert kinds(many, 512, "fp32", Budget()) == ("hnsw_sq8", "hnsw", *lists)
    assert kinds(many, 512, "fp32", Budget(memory=800 * 10**6)) == ("hnsw_sq8", *lists)
    assert kinds(many, 512, "fp32", Budget(memory=200 * 10**6)) == lists
    assert kinds(MILLION, 512, "fp32", Budget()) == lists, "a graph takes too long to build"
    assert kinds(MILLION, 512, "fp32", Budget(memory=1)) == lists


def test_the_tried_kinds_exist() -> None:
    known = {*ANNS.names(), *INDEXES.names()}
    assert set(kinds(MILLION, 512, "fp32", Budget())) <= known


def test_the_flat_kind_goes_through_the_row_file() -> None:
    assert resident_bytes("flat", 1_000, 512) == 2_048_000
    assert resident_bytes("flat", 1_000, 512, "fp16") == 1_024_000


@pytest.mark.parametrize("kind", sorted(ANNS.names()))
def test_a_kind_takes_about_what_is_said(kind: str, tmp_path: Path) -> None:
    count, dim = 6_000, 96
    vectors = np.random.default_rng(0).standard_normal((count, dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [(np.arange(count), vectors)]
    RowFile.write(tmp_path / "rows", rows, dim=dim, precision="fp32")
    source = RowFile.open(tmp_path / "rows")
    ann = ANNS.resolve(kind).build(kind, source, threads=1, cancelled=lambda: False)
    ann.save(tmp_path / "ann")
    taken = (tmp_path / "ann").stat().st_size
    assert 0.7 * taken < resident_bytes(kind, count, dim) < 1.4 * taken
