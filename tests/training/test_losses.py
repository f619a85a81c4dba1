"""The losses against values worked out by hand."""

import math

import torch

from triptych.training.losses import attract, cross_modal, joint


def test_attract_is_minus_log_of_the_positive_against_the_negatives() -> None:
    logits_QN = torch.tensor([[2.0, 0.0, 1.0]])
    positive_QN = torch.tensor([[True, False, False]])
    expected = -math.log(math.exp(2) / (math.exp(2) + math.exp(0) + math.exp(1)))
    assert math.isclose(attract(logits_QN, positive_QN=positive_QN).item(), expected, rel_tol=1e-6)


def test_positives_do_not_compete_with_each_other() -> None:
    logits_QN = torch.tensor([[2.0, 5.0, 1.0]])
    positive_QN = torch.tensor([[True, True, False]])
    each = [math.log1p(math.exp(1.0 - logit)) for logit in (2.0, 5.0)]
    found = attract(logits_QN, positive_QN=positive_QN).item()
    assert math.isclose(found, sum(each) / 2, rel_tol=1e-6)


def test_an_anchor_without_a_positive_does_not_count() -> None:
    logits_QN = torch.tensor([[2.0, 0.0], [9.0, 9.0]])
    positive_QN = torch.tensor([[True, False], [False, False]])
    alone = attract(logits_QN[:1], positive_QN=positive_QN[:1])
    assert torch.equal(attract(logits_QN, positive_QN=positive_QN), alone)


def test_cross_modal_of_a_perfect_batch_is_what_the_temperature_leaves() -> None:
    unit_NM = torch.eye(2)
    group_N = torch.arange(2)
    loss = cross_modal(unit_NM, unit_NM, group_I=group_N, group_T=group_N, scale=torch.tensor(3.0))
    assert math.isclose(loss.item(), math.log1p(math.exp(-3.0)), rel_tol=1e-6)


def test_joint_does_not_let_a_vector_find_itself() -> None:
    all_NM = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    group_N = torch.tensor([0, 0, 1, 1])
    loss = joint(all_NM, group_N=group_N, scale=torch.tensor(2.0))
    # one positive at 2, two negatives at 0
    assert math.isclose(loss.item(), math.log1p(2 * math.exp(-2.0)), rel_tol=1e-6)


def test_the_same_label_in_a_batch_is_no_negative() -> None:
    unit_NM = torch.nn.functional.normalize(torch.randn(3, 4), dim=1)
    same = torch.zeros(3, dtype=torch.long)
    loss = cross_modal(unit_NM, unit_NM, group_I=same, group_T=same, scale=torch.tensor(9.0))
    assert loss.item() == 0.0
