"""The walk along links, against the same done with matrices."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.errors import InvalidInput
from triptych.retrieval.rag.pagerank import personalised_pagerank

NAMES = st.sampled_from("abcdefgh")
EDGES = st.lists(st.tuples(NAMES, NAMES), max_size=20)
STARTS = st.dictionaries(NAMES, st.floats(0.01, 10), min_size=1)


@given(EDGES, STARTS, st.floats(0, 0.7))
def test_it_is_the_fixed_point_of_the_walk(
    edges: list[tuple[str, str]], start: dict[str, float], walk: float
) -> None:
    found = personalised_pagerank(edges, start, walk=walk)
    names = sorted(found)
    assert set(names) == set(start) | {
        name for edge in edges for name in edge if edge[0] != edge[1]
    }
    linked = np.zeros((len(names), len(names)))
    for a, b in edges:
        if a != b:
            linked[names.index(a), names.index(b)] = linked[names.index(b), names.index(a)] = 1
    begin = np.array([start.get(name, 0) for name in names]) / sum(start.values())
    degrees = linked.sum(axis=1)
    # a node without links sends its walker back to where it began
    steps = np.where(degrees[:, None] > 0, linked / np.maximum(degrees, 1)[:, None], begin[None])
    truth = np.linalg.solve(np.eye(len(names)) - walk * steps.T, (1 - walk) * begin)
    np.testing.assert_allclose([found[name] for name in names], truth, atol=1e-6)
    assert sum(found.values()) == pytest.approx(1)


def test_what_two_lead_to_comes_before_what_one_leads_to() -> None:
    edges = [("a", "x"), ("b", "x"), ("b", "y")]
    found = personalised_pagerank(edges, {"a": 1, "b": 1}, walk=0.5)
    assert found["x"] > found["y"] > 0


@pytest.mark.parametrize("walk", [-0.1, 1, math.nan])
def test_a_walk_that_never_begins_anew_is_refused(walk: float) -> None:
    with pytest.raises(InvalidInput, match="share of steps"):
        personalised_pagerank([], {"a": 1}, walk=walk)


@pytest.mark.parametrize("start", [{}, {"a": 0.0}, {"a": math.inf}])
def test_a_walk_begins_somewhere(start: dict[str, float]) -> None:
    with pytest.raises(InvalidInput, match="one node or more"):
        personalised_pagerank([], start, walk=0.5)
