"""A model tells what its experts were asked."""

from __future__ import annotations

import numpy as np
from PIL import Image

from triptych.encoders.expert_load import ExpertLoad
from triptych.encoders.onnx import OnnxModel
from triptych.types import Item


def test_loads_add_up_and_what_is_read_is_a_copy() -> None:
    load = ExpertLoad(3)
    load.add(np.asarray([1, 0, 2], dtype=np.float32), num_tokens=2)
    asked_E, tokens = load.read()
    assert asked_E.tolist() == [1, 0, 2] and tokens == 2
    asked_E[:] = 9
    load.add(np.asarray([0, 1, 0], dtype=np.float32), num_tokens=1)
    assert load.read()[0].tolist() == [1, 1, 2] and load.read()[1] == 3


def test_the_default_model_counts_words_and_patches() -> None:
    model = OnnxModel.load(threads=1)
    assert model.expert_tokens is not None and not model.expert_tokens.any()
    text = Item(id="t", text="a dog on a beach")
    picture = Item(id="p", image=Image.new("RGB", (40, 40), (90, 120, 30)))
    model.embed([text, picture])
    words = model.num_tokens(["a dog on a beach"], 0)
    assert model.expert_steps == words + model.num_patches
    model.embed([Item(id="b", text=text.text, image=picture.image)])
    assert model.expert_steps == 2 * (words + model.num_patches)
    # at least one expert for a token, and at most eight
    assert 1 <= model.expert_tokens.sum() / model.expert_steps <= 8
