"""What training leaves out of a picture, and what it leaves alone."""

import pytest
import torch

from triptych.encoders.towers.mobilenet import Layer, PictureHead, SameConv
from triptych.model import JointModel
from triptych.training.optimizer import freeze
from triptych.training.recipes import RECIPES


def test_channels_are_dropped_for_all_places_alike() -> None:
    torch.manual_seed(0)
    head = PictureHead(channels=32, dim=16, attend=True).train()
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


@pytest.mark.parametrize("kernel", [3, 5])
def test_a_convolution_of_each_channel_is_right_in_half_precision(kernel: int) -> None:
    torch.manual_seed(0)
    layer = Layer(op="conv", inputs=(-1,), groups=8)
    convolution = SameConv(layer, weight=torch.randn(8, 1, kernel, kernel), bias=torch.zeros(8))
    map_BCHW = torch.randn(2, 8, 7, 7)
    with torch.autocast("cpu", torch.bfloat16):
        half_BCHW = convolution(map_BCHW.bfloat16())
        half_BCHW.float().square().sum().backward()
    exact_BCHW = convolution(map_BCHW)
    assert convolution.weight.grad is not None and convolution.weight.grad.isfinite().all()
    assert torch.allclose(half_BCHW.float(), exact_BCHW, atol=0.1)
