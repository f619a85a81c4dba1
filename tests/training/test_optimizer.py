"""The learning rates of a text tower of any depth."""

import pytest

torch = pytest.importorskip("torch")

from triptych.encoders.towers.transformer import Transformer, TransformerConfig  # noqa: E402
from triptych.model import JointConfig, JointModel  # noqa: E402
from triptych.training.optimizer import optimizer  # noqa: E402
from triptych.training.recipes import Recipe  # noqa: E402


@pytest.mark.parametrize("num_layers", [2, 6, 12])
def test_the_highest_block_moves_as_fast_as_said_and_each_below_it_slower(num_layers: int) -> None:
    shape = TransformerConfig(
        vocabulary=20, width=24, num_layers=num_layers, num_heads=2, hidden=8, max_tokens=4
    )
    model = JointModel(JointConfig(width=24, channels=8, dim=24), text=Transformer(shape))
    recipe = Recipe(name="deep", steps=4)
    peaks = {
        id(parameter): group["peak"]
        for group in optimizer(recipe, torch.nn.ModuleDict({"model": model})).param_groups
        for parameter in group["params"]
    }
    assert model.text is not None
    found = [
        peaks[id(model.text.get_parameter(f"blocks.{at}.attention.query.weight"))]
        for at in range(num_layers)
    ]
    expected = [recipe.lr_text * recipe.layer_decay**at for at in reversed(range(num_layers))]
    assert found == pytest.approx(expected)
    lowest = {peaks[id(p)] for n, p in model.text.named_parameters() if n.startswith("places")}
    assert list(lowest) == [pytest.approx(recipe.lr_text * recipe.layer_decay**num_layers)]
