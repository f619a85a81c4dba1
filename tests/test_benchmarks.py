"""The benchmarks' own arithmetic: a wrong truth would make every figure wrong."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import million
from benchmarks.peers.corpus import CHUNK, DIM, GROUPS, Corpus, Mixture, recall


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return Corpus(12_345, folder=tmp_path)


def test_vectors_are_units_and_the_same_again() -> None:
    first, again = Mixture(seed=3).chunk(1), Mixture(seed=3).chunk(1)
    assert (first == again).all()
    assert np.allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)
    assert not np.allclose(first, Mixture(seed=3).chunk(2))
    assert first.shape == (CHUNK, DIM)


def test_a_part_is_of_the_whole_and_wraps_around(corpus: Corpus) -> None:
    part = corpus.part(12_340, 12_350)
    assert (part[:5] == corpus.vectors_NM[12_340:]).all()
    assert (part[5:] == corpus.vectors_NM[:5]).all()


def test_truth_is_what_a_full_sort_finds(corpus: Corpus) -> None:
    scores = np.asarray(corpus.vectors_NM) @ corpus.queries_QM[:20].T
    assert recall(np.argsort(-scores, axis=0)[:10].T.tolist(), corpus.truth_QK[:20]) == 1


@pytest.mark.parametrize("field", GROUPS)
def test_truth_within_a_group(corpus: Corpus, field: str) -> None:
    for at in (0, 7, 123, 999):
        group = np.arange(at % GROUPS[field], corpus.count, GROUPS[field])
        scores = corpus.vectors_NM[group] @ corpus.queries_QM[at]
        assert set(group[np.argsort(-scores)[:10]]) == set(corpus.truth_within(field)[at])


def test_recall_is_the_share_found() -> None:
    assert recall([[1, 2], [9, 3]], np.array([[2, 1], [3, 4]])) == 0.75


@pytest.mark.slow
def test_the_million_in_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    million.main(20_500, queries=50, work=tmp_path)
    shown = capsys.readouterr().out
    assert "keeps 0.1 %: recall 1.0000" in shown
    assert "DIFFERENT" not in shown
