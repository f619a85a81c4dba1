"""How many tokens a model says that it reads."""

from triptych.encoders.onnx import OnnxModel


def test_the_default_model_counts_all_segments_and_patches() -> None:
    model = OnnxModel.load()
    one = model.num_tokens(["a dog"], 0)
    assert 3 <= one <= 6  # with its two ends
    assert model.num_tokens([], 0) == 0
    assert model.num_tokens(["a dog", "a dog"], 2) == 2 * one + 2 * model.num_patches
    assert model.num_tokens(["dog " * 500], 0) > 500
