"""The four terms, their sum, and the schedules of their weights."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from triptych.errors import InvalidInput
from triptych.training.objective import (
    NO_LABEL,
    Prototypes,
    Terms,
    Weights,
    class_table,
    classification,
    combine,
    label_ids,
    regularisation,
    sparsity,
    uniformity,
)
from triptych.training.schedule import (
    DynamicAverage,
    Kind,
    Staged,
    Uncertainty,
    WeightSchedule,
    make,
)

KINDS: tuple[Kind, ...] = ("fixed", "staged", "dwa", "uncertainty")
STEPS = st.lists(
    st.tuples(*(st.one_of(st.none(), st.floats(0, 1e6)) for _ in range(4))), max_size=130
)


def unit(count: int, width: int = 8) -> Tensor:
    return functional.normalize(torch.randn(count, width), dim=-1)


def leaf(value: float) -> Tensor:
    return torch.tensor(value, requires_grad=True)


def test_the_sum_is_exact_and_each_term_pulls_with_its_weight() -> None:
    terms = Terms(leaf(1.7), leaf(2.3), leaf(0.1), leaf(0.9))
    found = combine(terms, Weights())
    expected = 0.4 * terms[0] + 0.3 * terms[1] + 0.2 * terms[2] + 0.1 * terms[3]
    assert found.total.item() == expected.item()
    assert found.weights == (0.4, 0.3, 0.2, 0.1)
    found.total.backward()
    assert [term.grad.item() for term in terms] == pytest.approx([0.4, 0.3, 0.2, 0.1])
    assert found.record()["loss"] == found.total.item()
    assert found.record()["sparsity_weight"] == 0.2


def test_an_absent_term_leaves_its_weight_to_the_others() -> None:
    found = combine(Terms(leaf(1.0), None, leaf(2.0), None), Weights())
    assert found.weights == pytest.approx((0.4 / 0.6, 0.0, 0.2 / 0.6, 0.0))
    assert found.total.item() == pytest.approx((0.4 + 0.4) / 0.6)
    assert "classification" not in found.record()


def test_weights_that_are_no_shares_and_losses_that_are_no_numbers_are_refused() -> None:
    for weights in (Weights(0.5, 0.5, 0.5, 0.5), Weights(1.0, 0.0, 0.0, 0.0)):
        with pytest.raises(InvalidInput, match="sum 1"):
            combine(Terms(leaf(1.0)), weights)
    with pytest.raises(InvalidInput, match="classification loss of nan"):
        combine(Terms(leaf(1.0), leaf(math.nan)), Weights())


def test_labels_of_a_set_are_numbered_and_none_is_none() -> None:
    table = class_table(["pear", "", "apple", "pear"])
    assert table == {"apple": 0, "pear": 1}
    assert label_ids(["pear", "", "plum"], table).tolist() == [1, NO_LABEL, NO_LABEL]
    assert class_table(["", ""]) == class_table(["only", ""]) == {}


def test_classification_counts_what_has_a_label() -> None:
    emb_NM, prototypes_CM = unit(4), Prototypes(3, dim=8)()
    label_N = torch.tensor([2, NO_LABEL, 0, NO_LABEL])
    found = classification(emb_NM, label_N, prototypes_CM=prototypes_CM, scale=torch.tensor(5.0))
    assert found is not None
    rows = [
        -torch.log_softmax(5 * prototypes_CM @ emb_NM[n], 0)[c].item() for n, c in ((0, 2), (2, 0))
    ]
    assert found.item() == pytest.approx(sum(rows) / 2, rel=1e-5)
    none = torch.full((4,), NO_LABEL)
    assert (
        classification(emb_NM, none, prototypes_CM=prototypes_CM, scale=torch.tensor(5.0)) is None
    )


def test_labels_that_do_not_belong_to_the_prototypes_are_refused() -> None:
    scale = torch.tensor(5.0)
    with pytest.raises(InvalidInput, match="label 3 with 3"):
        classification(unit(1), torch.tensor([3]), prototypes_CM=unit(3), scale=scale)
    with pytest.raises(InvalidInput, match="prototypes"):
        classification(unit(1), torch.tensor([0, 1]), prototypes_CM=unit(3), scale=scale)
    with pytest.raises(InvalidInput, match="at least 2"):
        Prototypes(1, dim=8)


def test_uniformity_is_nought_at_right_angles_and_four_in_one_point() -> None:
    assert uniformity(torch.eye(5)).item() == pytest.approx(0.0, abs=1e-6)
    assert uniformity(torch.eye(5)[:1].expand(7, 5)).item() == pytest.approx(4.0)
    emb_NM = unit(6)
    pairs = [
        math.exp(4 * float(a @ b))
        for i, a in enumerate(emb_NM)
        for j, b in enumerate(emb_NM)
        if i != j
    ]
    assert uniformity(emb_NM).item() == pytest.approx(math.log(sum(pairs) / len(pairs)), rel=1e-5)
    single = unit(1).requires_grad_()
    uniformity(single).backward()
    assert single.grad is not None and not single.grad.any()


def test_terms_are_the_sums_of_what_is_given() -> None:
    assert sparsity(None) is None and regularisation() is None
    masks = [torch.tensor([[0.5, -0.5], [1.0, 0.0]]), torch.tensor([0.25])]
    found = sparsity(torch.tensor(2.0), masks=masks)
    assert found is not None and found.item() == pytest.approx(2.0 + 0.5 + 0.25)
    both = regularisation(
        balance_loss=torch.tensor(1.0), router_z_loss=torch.tensor(0.5), emb_NM=torch.eye(3)
    )
    assert both is not None and both.item() == pytest.approx(1.5, abs=1e-6)


def drive(schedule: WeightSchedule, steps: Sequence[Sequence[float | None]]) -> list[Weights]:
    found = []
    for at, values in enumerate(steps):
        found.append(schedule.weights(at / len(steps)))
        schedule.observe(values)
    return [*found, schedule.weights(1.0)]


@pytest.mark.parametrize("kind", KINDS)
@given(steps=STEPS)
def test_weights_are_positive_and_sum_to_one_whatever_the_terms(
    kind: Kind, steps: list[tuple[float | None, ...]]
) -> None:
    for weights in drive(make(kind), steps):
        assert all(weight > 0 for weight in weights)
        assert sum(weights) == pytest.approx(1.0, abs=1e-9)
        combine(Terms(leaf(1.0), leaf(1.0), leaf(1.0), leaf(1.0)), weights)


@pytest.mark.parametrize("kind", KINDS)
def test_a_schedule_goes_on_bit_for_bit_after_a_checkpoint_of_text(kind: Kind) -> None:
    draw = torch.Generator().manual_seed(0)
    steps = torch.rand(170, 4, generator=draw).tolist()
    whole, first, second = make(kind), make(kind), make(kind)
    drive(whole, steps)
    drive(first, steps[:77])
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    drive(second, steps[77:])
    assert second.weights(0.5) == whole.weights(0.5)
    assert second.state_dict() == whole.state_dict()


def test_fixed_and_every_start_is_what_was_asked_for() -> None:
    for kind in ("fixed", "dwa", "uncertainty"):
        assert make(kind).weights(0.0) == pytest.approx((0.4, 0.3, 0.2, 0.1))


def test_stages_are_joined_without_a_jump() -> None:
    schedule = Staged({0.2: Weights(0.7, 0.1, 0.1, 0.1), 0.6: Weights(0.1, 0.7, 0.1, 0.1)})
    assert schedule.weights(0.0) == schedule.weights(0.2) == pytest.approx((0.7, 0.1, 0.1, 0.1))
    assert schedule.weights(0.4) == pytest.approx((0.4, 0.4, 0.1, 0.1))
    assert schedule.weights(0.6) == schedule.weights(1.0)
    default = make("staged")
    steps = [default.weights(at / 1000) for at in range(1001)]
    jumps = [
        max(abs(a - b) for a, b in zip(x, y, strict=True)) for x, y in itertools.pairwise(steps)
    ]
    assert max(jumps) < 0.002


def test_dwa_weighs_what_falls_slowly() -> None:
    schedule = DynamicAverage(Weights(0.25, 0.25, 0.25, 0.25), window=1)
    for values in ((4.0, 4.0, 4.0, 4.0), (4.0, 2.0, 1.0, 8.0)):
        schedule.observe(values)
    raw = [math.exp(ratio / 2) for ratio in (1.0, 0.5, 0.25, 2.0)]
    assert schedule.weights(0.5) == pytest.approx([value / sum(raw) for value in raw])


def test_uncertainty_settles_where_the_paper_has_its_optimum() -> None:
    schedule = Uncertainty(Weights(0.25, 0.25, 0.25, 0.25), rate=0.05)
    losses = (0.5, 1.0, 2.0, 4.0)
    for _ in range(2000):
        schedule.observe(losses)
    # exp(-s) L + s is least at s = log L, so that the weights go by 1 / L
    raw = [1 / loss for loss in losses]
    assert schedule.weights(0.5) == pytest.approx([value / sum(raw) for value in raw], rel=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_terms_and_states_that_cannot_be_are_refused(kind: Kind) -> None:
    schedule = make(kind)
    for values in ([1.0], [1.0, math.nan, 1.0, 1.0]):
        with pytest.raises(InvalidInput, match="each finite or None"):
            schedule.observe(values)
    with pytest.raises(InvalidInput, match="another weight schedule"):
        schedule.load_state_dict({"other": [1.0]})


def test_an_unknown_schedule_names_the_known() -> None:
    with pytest.raises(InvalidInput, match="fixed, staged, dwa or uncertainty"):
        make("luck")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="positive"):
        make("fixed", base=Weights(1.0, 0.0, 0.0, 0.0))
