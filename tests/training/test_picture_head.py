"""What training leaves out of a picture, and what it leaves alone."""

import pytest
import torch

from triptych.encoders.towers.mobilenet import PictureHead
from triptych.model import JointModel
from triptych.training.optimizer import freeze
from triptych.training.recipes import RECIPES


def test_channels_are_dropped_for_all_places_alike() -> None:
    torch.manual_seed(0)
    head = PictureHead(channels=32, dim=16).train()
    patches_BPM = head.patches(torch.ones(8, 49, 32))
    assert torch.equal(patches_BPM, patches_BPM[:, :1].expand_as(patches_BPM))
    assert len(patches_BPM[:, 0].unique(dim=0)) == 8


@pytest.mark.parametrize(("stage", "moves"), [("base", False), ("joint", True)])
def test_a_projection_that_ends_in_another_as_wide_does_not_move(stage: str, moves: bool) -> None:
    recipe = next(one for one in RECIPES["default"]() if one.name == stage)
    model = JointModel(recipe.model)
    freeze(recipe, model)
    assert model.leave_picture.weight.requires_grad is moves
    assert model.leave_text.weight.requires_grad
