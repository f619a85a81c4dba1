"""Each approximate kind: allowed means allowed, more effort finds more, a saved one is the same."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.index.clusters import DIM, NUM, clustered, recall, truth
from triptych.errors import CollectionDamaged
from triptych.index import ANNS
from triptych.index.base import Ann, Cancelled
from triptych.index.holdout import Holdout
from triptych.types import Matrix

MATRIX = clustered()
QUERIES = clustered(50, seed=1)
LOSSY = {"ivf_pq", "ivf_rabitq", "rabitq"}


class Held:
    """A source in memory."""

    def __init__(self, matrix: Matrix) -> None:
        self.matrix, self.dim = matrix, matrix.shape[1]

    def __len__(self) -> int:
        return len(self.matrix)

    def gather(self, positions_K: Any) -> Matrix:
        return self.matrix[positions_K]


def build(kind: str, matrix: Matrix = MATRIX) -> Ann:
    built: Ann = ANNS.resolve(kind).build(kind, Held(matrix), threads=1, cancelled=lambda: False)
    return built


@pytest.fixture(scope="module", params=ANNS.names())
def ann(request: pytest.FixtureRequest) -> Ann:
    return build(request.param)


def test_knows_its_size(ann: Ann) -> None:
    assert (len(ann), ann.dim) == (NUM, DIM)


def test_efforts_ascend_and_find_more(ann: Ann) -> None:
    efforts = ann.efforts()
    assert list(efforts) == sorted(set(efforts)) and efforts[0] >= 1
    refine = 20 if ann.kind in LOSSY else 1
    expected = [truth(MATRIX, query, 10) for query in QUERIES]
    reached = [
        recall([ann.search(q, 10 * refine, effort=effort) for q in QUERIES], expected)
        for effort in (efforts[0], efforts[-1])
    ]
    assert reached[0] <= reached[1] and reached[1] > 0.97, reached


def test_answers_are_distinct_and_at_most_k(ann: Ann) -> None:
    for k in (1, 7, NUM, NUM + 5):
        found = ann.search(QUERIES[0], k, effort=ann.efforts()[-1])
        assert len(found) == len(set(found.tolist())) <= min(k, NUM)
        assert ((found >= 0) & (found < NUM)).all()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_only_what_is_allowed(ann: Ann, share: float) -> None:
    allowed = np.flatnonzero(np.random.default_rng(2).random(NUM) < share)
    found = ann.search(QUERIES[0], 20, effort=ann.efforts()[-1], allowed=allowed)
    assert set(found.tolist()) <= set(allowed.tolist())
    assert len(found) == min(20, len(allowed))


def test_threads_do_not_disturb_each_other(ann: Ann) -> None:
    odd, even = np.arange(1, NUM, 2), np.arange(0, NUM, 2)
    efforts = ann.efforts()[:: max(1, len(ann.efforts()) - 1)]
    jobs = [(q, e, a) for q in QUERIES[:10] for e in efforts for a in (None, odd, even)] * 4

    def run(job: Any) -> list[int]:
        return ann.search(job[0], 20, effort=job[1], allowed=job[2]).tolist()

    alone = [run(job) for job in jobs]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, jobs)) == alone


def test_one_that_is_not_whole_lacks_what_is_held_back_until_it_is_completed(ann: Ann) -> None:
    held = Holdout(NUM).positions_H
    young: Ann = ANNS.resolve(ann.kind).build(
        ann.kind, Held(MATRIX), threads=1, cancelled=lambda: False, whole=False
    )
    most = ann.efforts()[-1]
    assert len(young) == NUM - len(held) and young.efforts() == ann.efforts()
    found = [young.search(MATRIX[position], 20, effort=most) for position in held[:20]]
    assert not np.isin(np.concatenate(found), held).any()
    young.complete(Held(MATRIX))
    assert len(young) == NUM
    found = [young.search(MATRIX[position], 20, effort=most) for position in held[:20]]
    assert np.mean([p in f for p, f in zip(held[:20], found, strict=True)]) > 0.9


@pytest.mark.parametrize("mapped", [False, True])
def test_saved_and_loaded_answers_alike(ann: Ann, tmp_path: Path, mapped: bool) -> None:
    path = Path(os.fsdecode(bytes(tmp_path) + b"/ann \xff"))
    ann.save(path)
    loaded = type(ann).load(ann.kind, path, mapped=mapped)
    path.unlink()  # a published index outlives the one that replaces it
    assert (len(loaded), loaded.dim, loaded.efforts()) == (NUM, DIM, ann.efforts())
    for query in QUERIES[:10]:
        effort = ann.efforts()[0]
        assert (
            loaded.search(query, 20, effort=effort) == ann.search(query, 20, effort=effort)
        ).all()


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("damage", ["missing", "empty", "text", "half"])
def test_refuses_to_load_damage(ann: Ann, tmp_path: Path, damage: str, mapped: bool) -> None:
    """FAISS sees this much; the snapshot's hash, taken before, sees every bit."""
    path = tmp_path / "ann"
    if damage != "missing":
        ann.save(path)
        whole = path.read_bytes()
        content = {"empty": b"", "text": b"<html>" * 99, "half": whole[: len(whole) // 2]}
        path.write_bytes(content[damage])
    with pytest.raises(CollectionDamaged, match="ann"):
        type(ann).load(ann.kind, path, mapped=mapped)


def test_refuses_another_kind(ann: Ann, tmp_path: Path) -> None:
    ann.save(tmp_path / "ann")
    other = "ivf_sq8" if ann.kind != "ivf_sq8" else "hnsw"
    with pytest.raises(CollectionDamaged, match="another kind"):
        type(ann).load(other, tmp_path / "ann")


@pytest.mark.parametrize("kind", ANNS.names())
def test_a_build_can_be_stopped(kind: str) -> None:
    with pytest.raises(Cancelled):
        ANNS.resolve(kind).build(kind, Held(MATRIX), threads=1, cancelled=lambda: True)


@pytest.mark.parametrize("dim", [2, 7, 65])
@pytest.mark.parametrize("kind", ANNS.names())
def test_any_width(kind: str, dim: int) -> None:
    matrix = clustered(300, dim=dim)
    ann = build(kind, matrix)
    assert len(ann.search(matrix[0], 300, effort=ann.efforts()[-1])) >= 150


@pytest.mark.parametrize("kind", ANNS.names())
def test_says_nothing_while_it_builds(kind: str, capfd: pytest.CaptureFixture[str]) -> None:
    build(kind, MATRIX[:300])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("kind", ANNS.names())
def test_equal_vectors_are_no_trouble(kind: str) -> None:
    ann = build(kind, np.tile(MATRIX[:1], (600, 1)))
    assert len(ann.search(MATRIX[0], 10, effort=ann.efforts()[-1])) == 10


@pytest.fixture(scope="module", params=["hnsw", "hnsw_sq8"])
def graph(request: pytest.FixtureRequest) -> tuple[Ann, Matrix, Any]:
    """Return one of vectors a tenth of which are the same, these vectors, and which those are."""
    same = np.sort(np.random.default_rng(5).choice(NUM, NUM // 10, replace=False))
    matrix = MATRIX.copy()
    matrix[same] = matrix[same[0]]
    return build(request.param, matrix), matrix, same


def test_copies_do_not_hide_the_rest(graph: Any) -> None:
    """A search that came upon one of hundreds of equal vectors found nothing but those."""
    ann, matrix, _ = graph
    others = [q for q in clustered(200, seed=6) if matrix[truth(matrix, q, 1)[0]] @ q < 1]
    found = [ann.search(q, 20, effort=48) for q in others]
    scores = [np.sort(matrix[f] @ q)[::-1][:10] for f, q in zip(found, others, strict=True)]
    best = [np.sort(matrix @ q)[::-1][:10] for q in others]
    hits = [np.mean(s >= b[-1] - 1e-6) for s, b in zip(scores, best, strict=True)]
    assert min(hits) >= 0.5 and np.mean(hits) > 0.97
    assert len(ann.search(others[0], NUM, effort=NUM)) == NUM


@pytest.mark.parametrize("mapped", [False, True])
def test_all_copies_are_found_and_none_that_is_not_allowed(
    graph: Any, tmp_path: Path, mapped: bool
) -> None:
    ann, matrix, same = graph
    ann.save(tmp_path / "ann")
    loaded = type(ann).load(ann.kind, tmp_path / "ann", mapped=mapped)
    assert len(loaded) == NUM
    for one in (ann, loaded):
        found = one.search(matrix[same[0]], len(same), effort=48)
        assert sorted(found.tolist()) == same.tolist()
        assert len(one.search(matrix[same[0]], 10, effort=48)) == 10
        few = np.concatenate([same[-3:], np.setdiff1d(np.arange(50), same)])
        found = one.search(matrix[same[0]], 5, effort=48, allowed=few)
        assert set(found[:3].tolist()) == set(same[-3:].tolist())
        assert len(set(found.tolist())) == 5 and set(found.tolist()) <= set(few.tolist())


def test_copies_that_are_held_back_come_when_it_is_completed() -> None:
    matrix = np.tile(MATRIX[:1], (300, 1))
    held = Holdout(300).positions_H
    young: Ann = ANNS.resolve("hnsw").build(
        "hnsw", Held(matrix), threads=1, cancelled=lambda: False, whole=False
    )
    found = young.search(matrix[0], 300, effort=48)
    assert sorted(found.tolist()) == np.setdiff1d(np.arange(300), held).tolist()
    young.complete(Held(matrix))
    assert sorted(young.search(matrix[0], 300, effort=48).tolist()) == list(range(300))


def test_damaged_copies_are_refused(graph: Any, tmp_path: Path) -> None:
    ann, _, _ = graph
    ann.save(tmp_path / "ann")
    whole = (tmp_path / "ann").read_bytes()
    for end in (b"TRICOPYS" + b"\xff" * 8, b"\xff" * 16 + b"TRICOPYS" + bytes([1] + [0] * 7)):
        (tmp_path / "ann").write_bytes(whole[: -len(end)] + end)
        with pytest.raises(CollectionDamaged, match="ann"):
            type(ann).load(ann.kind, tmp_path / "ann")
