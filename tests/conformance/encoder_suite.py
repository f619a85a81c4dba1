"""One suite for every model: what `EmbeddingModel` and `LateInteraction` promise."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from PIL import Image

from triptych.encoders.base import EmbeddingModel
from triptych.errors import InvalidInput, PictureError
from triptych.types import Item

ALONE = 1e-5  # law 2, in fp32


def picture(seed: int, *, size: tuple[int, int] = (60, 40)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def items(num: int) -> list[Item]:
    """Return texts, pictures and both, in turn."""
    texts = ["a red car", "two dogs on a beach " * 9, "", "日本の山 🙂", "x"]
    made = []
    for at in range(num):
        text = texts[at % len(texts)] if at % 3 != 1 else None
        image = picture(at, size=(30 + 7 * at, 50)) if at % 3 else None
        made.append(Item(id=str(at), text=text, image=image))
    return made


class EncoderSuite:
    """A subclass gives the fixture `model`."""

    @pytest.fixture
    def model(self) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def is_quantised(self) -> bool:
        return False

    def test_it_is_a_model(self, model: Any) -> None:
        assert isinstance(model, EmbeddingModel)
        assert model.name and model.dim > 0 and isinstance(model.languages, tuple)
        assert len(model.fingerprint) == 64 and int(model.fingerprint, 16) >= 0

    def test_rows_are_unit_and_float32(self, model: Any) -> None:
        emb_NM = model.embed(items(9))
        assert (emb_NM.shape, emb_NM.dtype) == ((9, model.dim), np.float32)
        np.testing.assert_allclose(np.linalg.norm(emb_NM, axis=1), 1.0, atol=1e-5)

    def test_nothing_gives_no_rows(self, model: Any) -> None:
        emb_NM = model.embed([])
        assert (emb_NM.shape, emb_NM.dtype) == ((0, model.dim), np.float32)

    def test_alone_equals_in_a_batch(self, model: Any, is_quantised: bool) -> None:
        batch = items(12)
        together_NM = model.embed(batch)
        alone_NM = np.concatenate([model.embed([item]) for item in batch])
        assert (alone_NM * together_NM).sum(axis=1).min() >= 0.9999
        if not is_quantised:
            np.testing.assert_allclose(alone_NM, together_NM, atol=ALONE)

    def test_order_is_kept(self, model: Any) -> None:
        batch = items(7)
        forth, back = model.embed(batch), model.embed(batch[::-1])
        np.testing.assert_allclose(forth, back[::-1], atol=ALONE)

    def test_both_sides_lie_between_the_two(self, model: Any, fuses: bool) -> None:
        text, image = "a red car", picture(1)
        both, alone_text, alone_image = model.embed(
            [
                Item(id="b", text=text, image=image),
                Item(id="t", text=text),
                Item(id="i", image=image),
            ]
        )
        middle = alone_text + alone_image
        middle /= np.linalg.norm(middle)
        if fuses:  # the two see each other, so it is near the middle, not the middle itself
            assert both @ middle > 0.9
            assert min(both @ alone_text, both @ alone_image) > alone_text @ alone_image
        else:
            np.testing.assert_allclose(both, middle, atol=ALONE)

    def test_different_things_differ(self, model: Any) -> None:
        batch = [Item(id=str(at), image=picture(at)) for at in range(3)]
        batch += [Item(id=text, text=text) for text in ("a red car", "two dogs", "the sea")]
        emb_NM = model.embed(batch)
        cosines = emb_NM @ emb_NM.T - np.eye(len(batch))
        assert cosines.max() < 0.9999

    def test_an_empty_text_has_a_vector(self, model: Any) -> None:
        assert model.embed([Item(id="e", text=""), Item(id="s", text=" \n")]).shape[0] == 2

    def test_a_bare_vector_is_refused(self, model: Any) -> None:
        with pytest.raises(InvalidInput, match="only a vector"):
            model.embed([Item(id="v", vector=[1.0, 2.0])])

    def test_a_picture_that_cannot_be_read_is_refused(self, model: Any) -> None:
        with pytest.raises(PictureError):
            model.embed([*items(3), Item(id="bad", image=b"not a picture")])

    @pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (700, 20)])
    def test_any_shape_of_picture_has_a_vector(self, model: Any, size: tuple[int, int]) -> None:
        image = Image.new("RGB", size, (200, 30, 40))
        assert np.isfinite(model.embed([Item(id="p", image=image)])).all()

    def test_any_text_has_a_vector(self, model: Any) -> None:
        @settings(
            max_examples=25, deadline=None, suppress_health_check=[HealthCheck.differing_executors]
        )
        @given(st.lists(st.text(st.characters(codec=None), max_size=60), min_size=1, max_size=3))
        def check(texts: list[str]) -> None:
            batch = [Item(id=str(at), text=text) for at, text in enumerate(texts)]
            emb_NM = model.embed(batch)
            np.testing.assert_allclose(np.linalg.norm(emb_NM, axis=1), 1.0, atol=1e-5)

        check()


class TokenSuite:
    """For a model that gives token states as well; a subclass gives the fixture `model`."""

    def test_texts_give_a_state_per_token(self, model: Any) -> None:
        short_TW, long_TW = model.text_states(["red", "a much longer text than that"])
        assert short_TW.shape[1] == long_TW.shape[1] == model.token_width
        assert 0 < len(short_TW) < len(long_TW)
        assert np.isfinite(long_TW).all()

    def test_pictures_give_a_state_per_patch(self, model: Any) -> None:
        one_PW, other_PW = model.picture_states([picture(1), picture(2)])
        assert one_PW.shape == other_PW.shape
        assert not np.allclose(one_PW, other_PW)

    def test_states_alone_equal_states_in_a_batch(self, model: Any) -> None:
        texts = ["red", "a much longer text than that"]
        together, alone = model.text_states(texts), model.text_states(texts[:1])
        np.testing.assert_allclose(together[0], alone[0], atol=1e-4)
