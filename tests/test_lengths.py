"""The planner of batches, against every possible plan and against the greedy one."""

import time
from collections.abc import Iterator, Sequence

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from triptych.lengths import padded, plan

LENGTHS = st.lists(st.integers(1, 60), max_size=40)


def cost(lengths: Sequence[int], batches: Sequence[Sequence[int]], overhead: int) -> int:
    return sum(len(batch) * max(lengths[at] for at in batch) + overhead for batch in batches)


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    """Every way to share items among batches, sorted or not."""
    if not items:
        yield []
        return
    first, *rest = items
    for parts in partitions(rest):
        yield [[first], *parts]
        for at in range(len(parts)):
            yield [*parts[:at], [first, *parts[at]], *parts[at + 1 :]]


def is_legal(lengths: Sequence[int], batches: Sequence[Sequence[int]], budget: int) -> bool:
    return all(
        len(batch) == 1 or len(batch) * max(lengths[at] for at in batch) <= budget
        for batch in batches
    )


def greedy(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Sorted, a batch filled as long as it fits."""
    batches: list[list[int]] = []
    for at in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches and (len(batches[-1]) + 1) * lengths[at] <= budget:
            batches[-1].append(at)
        else:
            batches.append([at])
    return batches


@given(LENGTHS, st.integers(1, 200), st.integers(0, 30))
@example([500, 1, 1, 1], 100, 0)
@example([], 10, 0)
def test_nothing_is_lost_doubled_or_over_the_budget(
    lengths: list[int], budget: int, overhead: int
) -> None:
    batches = plan(lengths, budget=budget, overhead=overhead)
    assert sorted(at for batch in batches for at in batch) == list(range(len(lengths)))
    assert is_legal(lengths, batches, budget)
    longest = [max(lengths[at] for at in batch) for batch in batches]
    assert longest == sorted(longest)


@given(LENGTHS, st.integers(1, 200), st.integers(0, 30))
def test_it_is_never_worse_than_greedy(lengths: list[int], budget: int, overhead: int) -> None:
    batches = plan(lengths, budget=budget, overhead=overhead)
    other = greedy(lengths, budget)
    assert cost(lengths, batches, overhead) <= cost(lengths, other, overhead)


@given(st.lists(st.integers(1, 12), max_size=6), st.integers(1, 40), st.integers(0, 8))
def test_no_plan_at_all_is_better(lengths: list[int], budget: int, overhead: int) -> None:
    best = min(
        cost(lengths, batches, overhead)
        for batches in partitions(list(range(len(lengths))))
        if is_legal(lengths, batches, budget)
    )
    assert cost(lengths, plan(lengths, budget=budget, overhead=overhead), overhead) == best


def test_equal_lengths_stay_in_order_and_fill_the_first_call() -> None:
    assert plan([7] * 5, budget=21, overhead=1) == [[0, 1, 2], [3, 4]]


def test_a_call_that_costs_much_is_shared_more_widely() -> None:
    assert plan([2, 3], budget=100) == [[0], [1]]
    assert plan([2, 3], budget=100, overhead=2) == [[0, 1]]


def test_padding_is_a_share_of_what_is_paid() -> None:
    assert padded([2, 4], [[0, 1]]) == 0.25
    assert padded([2, 4], [[0], [1]]) == 0
    assert padded([], []) == 0


def test_a_length_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="expected 1"):
        plan([3, 0], budget=10)


def test_a_thousand_are_planned_in_a_moment() -> None:
    lengths = np.random.default_rng(0).zipf(1.5, 1000).clip(1, 256).tolist()
    start = time.process_time()
    plan(lengths, budget=4096, overhead=8)
    assert time.process_time() - start < 0.5
