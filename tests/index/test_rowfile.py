"""The row file alone: what goes in comes out, and no flipped bit does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from tests.conformance.index_suite import oracle, unit, vectors
from triptych.errors import CollectionDamaged, InvalidInput
from triptych.index.base import checked_vectors, halved, widened
from triptych.index.rowfile import RowFile
from triptych.types import Precision

DIM = 24
NUM = 3000  # several blocks


def pieces(rows: Any, matrix: Any, step: int = 700) -> Iterator[Any]:
    for start in range(0, len(rows), step):
        yield rows[start : start + step], matrix[start : start + step]


def written(path: Path, *, num: int = NUM, dim: int = DIM, precision: Precision = "fp32") -> Any:
    rows = np.arange(num) * 3 + 5
    matrix = checked_vectors(vectors(num, dim=dim), dim)
    assert RowFile.write(path, pieces(rows, matrix), dim=dim, precision=precision) == num
    return rows, matrix


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_what_goes_in_comes_out(tmp_path: Path, precision: Precision) -> None:
    rows, matrix = written(tmp_path / "rows", precision=precision)
    expected = matrix if precision == "fp32" else widened(halved(matrix))
    file = RowFile.open(tmp_path / "rows")
    assert (len(file), file.dim, file.precision) == (NUM, DIM, precision)
    assert file.rows_N.tolist() == rows.tolist()
    assert (file.gather(np.arange(NUM)) == expected).all()
    assert file.gather(np.array([7, 2, 2])).tolist() == expected[[7, 2, 2]].tolist()
    assert (np.concatenate([matrix for _, matrix in file.chunks()]) == expected).all()
    size = RowFile.bytes_for(len(file), file.dim, file.precision)
    assert size == (tmp_path / "rows").stat().st_size
    file.verify()


def test_halves_stay_as_they_are_through_another_file(tmp_path: Path) -> None:
    """A store that keeps halves and a row file of halves agree to the bit."""
    for dim, num in ((2, 400), (3, 20_000), (8, 20_000), (24, 20_000), (512, 400)):
        uneven = vectors(num, dim=dim) * np.exp(2 * vectors(num, dim=dim, seed=1))
        given = checked_vectors(np.concatenate([vectors(num, dim=dim), uneven]), dim)
        once = widened(halved(given))
        assert (widened(halved(once)) == once).all(), dim
        np.testing.assert_allclose(np.einsum("nm,nm->n", once, given), 1, atol=1e-5)


def test_knows_where_rows_are(tmp_path: Path) -> None:
    rows, _ = written(tmp_path / "rows")
    file = RowFile.open(tmp_path / "rows")
    wanted = np.array([0, 5, 6, 8, int(rows[-1]), 10**9])
    assert file.positions_of(wanted).tolist() == [0, 1, NUM - 1]
    rows = np.arange(100, 400)
    RowFile.write(
        tmp_path / "gapless", [(rows, checked_vectors(vectors(300), 8))], dim=8, precision="fp32"
    )
    gapless = RowFile.open(tmp_path / "gapless")
    assert gapless.positions_of(np.array([99, 100, 399, 400])).tolist() == [0, 299]


@given(
    seed=st.integers(0, 50),
    k=st.integers(1, 120),
    num=st.integers(1, 100),
    precision=st.sampled_from(["fp32", "fp16"]),
    pool=st.integers(1, 30),
)
@settings(max_examples=60, deadline=None)
def test_the_scan_agrees_with_brute_force(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    k: int,
    num: int,
    precision: Precision,
    pool: int,
) -> None:
    rng = np.random.default_rng(seed)
    matrix = checked_vectors(vectors(pool, seed=seed), 8)[rng.integers(0, pool, num)]  # ties abound
    rows = np.sort(rng.choice(1000, num, replace=False))
    path = tmp_path_factory.mktemp("r") / "rows"
    RowFile.write(path, pieces(rows, matrix, 17), dim=8, precision=precision)
    file = RowFile.open(path)
    stored = dict(zip(rows.tolist(), file.gather(np.arange(num)), strict=True))
    query = unit(vectors(1, seed=seed + 1))[0].astype(np.float32)
    without = rng.random(num) < 0.3
    for found, allowed in (
        (file.best_of_all(query, k), None),
        (file.best_of_all(query, k, without=without), rows[~without].tolist()),
        (file.best(query, k, np.flatnonzero(~without)), rows[~without].tolist()),
    ):
        expected = oracle(stored, query, k, allowed)
        assert found[0].tolist() == [row for row, _ in expected]
        np.testing.assert_allclose(found[1], [score for _, score in expected], atol=2e-6)


def test_an_empty_file_is_one(tmp_path: Path) -> None:
    RowFile.write(tmp_path / "rows", [], dim=3, precision="fp16")
    file = RowFile.open(tmp_path / "rows")
    assert len(file) == 0 and file.positions_of(np.array([1])).tolist() == []
    assert file.best_of_all(np.ones(3, np.float32), 5)[0].tolist() == []
    file.verify()


def test_a_row_wider_than_a_block(tmp_path: Path) -> None:
    _, matrix = written(tmp_path / "rows", num=3, dim=40_000)
    assert (RowFile.open(tmp_path / "rows").gather(np.arange(3)) == matrix).all()


def test_refuses_rows_that_do_not_ascend(tmp_path: Path) -> None:
    for at, rows in enumerate(([2, 1], [1, 1], [-1, 1])):
        chunk = (np.array(rows), checked_vectors(vectors(2), 8))
        with pytest.raises(InvalidInput, match="ascend"):
            RowFile.write(tmp_path / f"{at}", [chunk], dim=8, precision="fp32")
    with pytest.raises(InvalidInput, match="expected"):
        RowFile.write(tmp_path / "w", [(np.array([1]), vectors(2))], dim=8, precision="fp32")


def test_never_writes_over_a_file_that_may_be_mapped(tmp_path: Path) -> None:
    written(tmp_path / "rows")
    with pytest.raises(FileExistsError):
        written(tmp_path / "rows")


def test_every_flipped_bit_is_noticed_when_it_is_used(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    written(path)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    ends = [0, 4095, 4096, len(whole) - 1]
    for at in [*ends, *rng.integers(0, len(whole), 300).tolist()]:
        torn = bytearray(whole)
        torn[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(torn)
        with pytest.raises(CollectionDamaged, match="rows"):
            RowFile.open(path).gather(np.arange(NUM))
        with pytest.raises(CollectionDamaged, match="rows"):
            RowFile.open(path).best_of_all(np.ones(DIM, np.float32), 1)
        with pytest.raises(CollectionDamaged, match="rows"):
            RowFile.open(path).verify()


def test_damage_elsewhere_does_not_matter_yet(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    _, matrix = written(path)
    torn = bytearray(path.read_bytes())
    torn[4096] ^= 1
    path.write_bytes(torn)
    file = RowFile.open(path)
    assert (file.gather(np.array([NUM - 1])) == matrix[-1:]).all()
    with pytest.raises(CollectionDamaged, match="rows 5 to "):
        file.gather(np.array([0]))


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 10_000, -1, +1])
def test_refuses_a_file_of_another_size(tmp_path: Path, size: int) -> None:
    path = tmp_path / "rows"
    written(path)
    whole = path.read_bytes()
    path.write_bytes(whole + b"x" if size == 1 else whole[:size])
    with pytest.raises(CollectionDamaged, match="rows cannot be used"):
        RowFile.open(path)


def test_refuses_what_is_missing_or_newer(tmp_path: Path) -> None:
    with pytest.raises(CollectionDamaged, match="No such file"):
        RowFile.open(tmp_path / "none")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CollectionDamaged, match="cannot be used"):
        RowFile.open(tmp_path / "folder")
