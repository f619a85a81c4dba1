from collections.abc import Sequence

import numpy as np
import pytest
from PIL import Image

from triptych.encoders.dual import DualStates
from triptych.errors import InvalidInput, PictureError
from triptych.types import Item, Matrix


class Lengths(DualStates):
    """Texts by their length, pictures by their width; remembers what it was given at once."""

    name, fingerprint, dim, languages, picture_size = "lengths", "0", 2, ("und",), 8
    token_width = 2

    def __init__(self) -> None:
        self.batches: list[int] = []

    def embed_texts(self, texts: Sequence[str]) -> Matrix:
        angles = np.array([len(text) for text in texts]) / 100
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Matrix:
        self.batches.append(len(pictures))
        return self.embed_texts(["x" * picture.width for picture in pictures])

    def text_states(self, texts: Sequence[str]) -> list[Matrix]:
        return [self.embed_texts([text]) for text in texts]

    def picture_states(self, pictures: Sequence[Image.Image]) -> list[Matrix]:
        return [row_M[None] for row_M in self.embed_pictures(pictures)]


def wide(width: int) -> np.ndarray:
    return np.zeros((1, width), dtype=np.uint8)


@pytest.mark.parametrize("states", [False, True])
def test_many_pictures_keep_their_order_in_small_batches(states: bool) -> None:
    model = Lengths()
    items = [Item(id=str(at), image=wide(at)) for at in range(1, 101)]
    emb_NM = np.concatenate(model.token_states(items)) if states else model.embed(items)
    np.testing.assert_allclose(np.arccos(emb_NM[:, 0]) * 100, np.arange(1, 101), atol=0.1)
    assert model.batches == [32, 32, 32, 4]


def test_texts_pictures_and_both_are_scattered_to_their_rows() -> None:
    items = [
        Item(id="b", text="x" * 10, image=wide(30)),
        Item(id="i", image=wide(7)),
        Item(id="t", text="x" * 3, vector=[1.0]),
    ]
    emb_NM = Lengths().embed(items)
    np.testing.assert_allclose(np.arccos(emb_NM[:, 0]) * 100, [20, 7, 3], atol=0.1)


def test_sides_that_cancel_out_have_no_vector() -> None:
    class Opposed(Lengths):
        def embed_pictures(self, pictures: Sequence[Image.Image]) -> Matrix:
            return -self.embed_texts(["x" * picture.width for picture in pictures])

    with pytest.raises(InvalidInput, match="zero"):
        Opposed().embed([Item(id="b", text="xx", image=wide(2))])


@pytest.mark.parametrize("name", ["embed", "token_states"])
def test_a_vector_is_refused_before_anything_is_decoded(name: str) -> None:
    model = Lengths()
    embed = getattr(model, name)
    with pytest.raises(InvalidInput, match="'v' holds only a vector"):
        embed([Item(id="p", image=wide(1)), Item(id="v", vector=[1.0])])
    assert model.batches == []


@pytest.mark.parametrize("at", [0, 40, 79])
def test_one_bad_picture_is_an_error_wherever_it_is(at: int) -> None:
    items = [Item(id=str(n), image=b"" if n == at else wide(n + 1)) for n in range(80)]
    with pytest.raises(PictureError):
        Lengths().embed(items)
