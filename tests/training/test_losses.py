"""The losses against values worked out by hand."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from triptych.encoders.scorers.token_matcher import TokenMatcherConfig
from triptych.encoders.towers.states import TokenStates
from triptych.model import JointConfig, JointModel
from triptych.training.losses import attract, cross_modal, joint, sigmoid
from triptych.training.terms import Batch, pair_terms

SCORER = TokenMatcherConfig(text_width=16, picture_width=16, width=16)


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


def test_half_precision_around_a_loss_rounds_no_logit() -> None:
    draw = torch.Generator().manual_seed(5)
    unit_NM, other_NM = functional.normalize(torch.randn(2, 40, 64, generator=draw), dim=-1)
    group_N, scale = torch.arange(40), torch.tensor(60.0)
    groups = {"group_I": group_N, "group_T": group_N}

    def found() -> Tensor:
        return torch.stack(
            [
                cross_modal(unit_NM, other_NM, **groups, scale=scale),
                joint(torch.cat([unit_NM, other_NM]), group_N=group_N.repeat(2), scale=scale),
                sigmoid(unit_NM, other_NM, **groups, scale=scale, bias=torch.tensor(-9.0)),
            ]
        )

    outside = found()
    with torch.autocast("cpu", torch.bfloat16):
        inside = found()
    torch.testing.assert_close(inside, outside, rtol=1e-6, atol=1e-6)


def test_the_scores_of_pairs_are_worked_out_in_float32() -> None:
    config = JointConfig(width=16, dim=16, prefixes=(), channels=16, scorer=SCORER)
    model, mask_B1 = JointModel(config).eval(), torch.ones(8, 1, dtype=torch.bool)
    states = [TokenStates(torch.randn(8, 1, 16), mask_B1) for _ in range(2)]
    batch = Batch(*states, *(torch.arange(8) for _ in range(3)))
    outside = pair_terms(model, batch).terms.contrastive
    with torch.autocast("cpu", torch.bfloat16):
        inside = pair_terms(model, batch).terms.contrastive
    torch.testing.assert_close(inside, outside, rtol=1e-6, atol=1e-6)
