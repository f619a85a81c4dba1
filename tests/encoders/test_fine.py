"""The default model with two looks at every picture."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from triptych.encoders.base import EmbeddingModel, unit_rows
from triptych.encoders.fine import FineModel
from triptych.encoders.onnx import OnnxModel
from triptych.encoders.pictures.look import Look
from triptych.encoders.segments import mean_of_segments
from triptych.errors import ModelMismatch
from triptych.settings import Settings
from triptych.types import Item


@pytest.fixture(scope="module")
def fine() -> OnnxModel:
    return FineModel.from_name("")


@pytest.fixture(scope="module")
def plain() -> OnnxModel:
    return OnnxModel.load()


def pictures(count: int = 3) -> list[Image.Image]:
    random = np.random.default_rng(8)
    small = [random.integers(0, 256, (5, 7, 3), dtype=np.uint8) for _ in range(count)]
    return [Image.fromarray(pixels).resize((400, 300)) for pixels in small]


def middles(some: list[Image.Image]) -> list[Image.Image]:
    """The middle of 400 x 300, mirrored."""
    return [ImageOps.mirror(one.crop((40, 30, 360, 270))) for one in some]


def test_a_picture_is_the_mean_of_the_whole_and_its_mirrored_middle(
    fine: OnnxModel, plain: OnnxModel
) -> None:
    some = pictures(40)  # more than one batch
    expected = unit_rows(plain.embed_pictures(some) + plain.embed_pictures(middles(some)))
    got = fine.embed_pictures(some)
    assert isinstance(fine, EmbeddingModel)
    # resizing a box reads a pixel beyond its edge, so the crop is nearly the same
    assert (got * expected).sum(axis=1).min() > 0.999
    assert (plain.embed_pictures(some) * expected).sum(axis=1).max() < 0.999
    np.testing.assert_allclose(fine.embed_pictures(some[35:36]), got[35:36], atol=1e-6)


def test_a_picture_with_a_text_is_seen_twice_too(fine: OnnxModel, plain: OnnxModel) -> None:
    some, texts = pictures(), ["a dog", "two children on a beach", ""]
    both = [plain.embed_both(texts, looked) for looked in (some, middles(some))]
    got = fine.embed_both(texts, some)
    assert (got * unit_rows(both[0] + both[1])).sum(axis=1).min() > 0.999


def test_a_long_text_with_a_picture_may_go_in_segments(fine: OnnxModel, plain: OnnxModel) -> None:
    """As all of it together; of two looks at the picture it cannot, and does not."""
    item = Item(id="1", text="a dog on a beach " * 150, image=pictures(1)[0])
    for model, expected in ((plain, 3), (fine, 1)):
        parts = model.segmented(str(item.text), pictured=True)
        rows = model.embed([replace(item, text=part) for part in parts])
        assert len(parts) == expected
        whole = model.embed([item])
        np.testing.assert_allclose(mean_of_segments(rows, [0] * len(parts), 1), whole, atol=1e-6)


def test_texts_and_states_are_those_of_the_plain_model(fine: OnnxModel, plain: OnnxModel) -> None:
    items = [Item(id="1", text="a red house")]
    assert np.array_equal(fine.embed(items), plain.embed(items))
    for ours, theirs in zip(
        fine.picture_states(pictures()), plain.picture_states(pictures()), strict=True
    ):
        assert np.array_equal(ours, theirs)
    assert fine.num_tokens([], 2) == 2 * plain.num_tokens([], 2)


def test_no_picture_is_no_vector(fine: OnnxModel) -> None:
    assert fine.embed_pictures([]).shape == (0, fine.dim)


def test_a_look_at_the_whole_is_a_plain_squashing() -> None:
    (picture,) = pictures(1)
    squashed = picture.resize((224, 224), Image.Resampling.BILINEAR)
    assert np.array_equal(Look().square(picture, 224), np.asarray(squashed))
    assert Look(middle=0.5, mirrored=True).square(Image.new("RGB", (1, 1)), 8).shape == (8, 8, 3)


def test_a_collection_keeps_the_model_that_looks_twice(tmp_path: Path, fine: OnnxModel) -> None:
    settings = Settings(data=tmp_path / "data")
    path = tmp_path / "data" / "default" / "photos"
    with settings.open_collection(path, model="fine") as collection:
        collection.add([{"id": "1", "image": pictures()[0]}])
    kept = tmp_path / "data" / "models" / fine.fingerprint
    OnnxModel.load(kept).verify()
    assert OnnxModel.load(kept).fingerprint == fine.fingerprint
    with settings.open_collection(path) as collection:
        assert collection.info()["model"] == "triptych-joint-v8-fine"
        assert collection.search(image=pictures()[0])[0].score > 0.999
    with pytest.raises(ModelMismatch, match="fine"):
        settings.open_collection(path, model="default")


def test_a_collection_taken_elsewhere_finds_the_package_s_own_model(tmp_path: Path) -> None:
    with Settings(data=tmp_path / "here").open_collection(
        tmp_path / "photos", model="fine"
    ) as collection:
        collection.add([{"id": "1", "image": pictures()[0]}])
    with Settings(data=tmp_path / "there").open_collection(tmp_path / "photos") as collection:
        assert collection.search(image=pictures()[0])[0].id == "1"
