import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from triptych.encoders.hashing import HashingEncoder
from triptych.errors import InvalidInput
from triptych.types import Item

COLOURS = {
    "red": (220, 20, 30),
    "green": (30, 180, 40),
    "blue": (20, 40, 220),
    "yellow": (240, 230, 30),
    "black": (5, 5, 5),
    "white": (250, 250, 250),
    "gray": (128, 128, 128),
    "brown": (120, 70, 20),
    "orange": (250, 140, 10),
    "pink": (250, 160, 190),
    "purple": (140, 30, 200),
    "cyan": (20, 220, 230),
}


def test_the_name_of_a_colour_finds_its_picture() -> None:
    model = HashingEncoder()
    texts = model.embed([Item(id=name, text=f"a {name} picture") for name in COLOURS])
    pictures = model.embed(
        [Item(id=name, image=Image.new("RGB", (50, 40), rgb)) for name, rgb in COLOURS.items()]
    )
    cosines = texts @ pictures.T
    assert cosines.argmax(axis=1).tolist() == list(range(len(COLOURS)))
    assert np.diag(cosines).min() > 0.5


def test_related_words_are_near() -> None:
    car, cars, boat = HashingEncoder().embed_texts(["red car", "red cars", "blue boat"])
    assert car @ cars > 0.5 > 0.3 > abs(car @ boat)


def test_the_layout_of_a_picture_counts() -> None:
    left = Image.new("RGB", (40, 40), "white")
    left.paste((255, 0, 0), (0, 0, 20, 40))
    right = left.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    nearly = left.resize((90, 80)).crop((1, 1, 89, 79))
    emb_NM = HashingEncoder().embed_pictures([left, right, nearly])
    assert emb_NM[0] @ emb_NM[2] > 0.99 > emb_NM[0] @ emb_NM[1]


def test_it_is_the_same_on_every_machine() -> None:
    emb_M = HashingEncoder(dim=8).embed_texts(["a red car"])[0]
    expected = [0.079714, 0.474635, 0.142725, 0.595334, -0.084704, -0.532656, -0.252197, 0.19767]
    np.testing.assert_allclose(emb_M, expected, atol=1e-6)


@pytest.mark.parametrize("argument", ["0", "-1", "x", "1e3", "65537", "²"])
def test_a_width_is_a_number(argument: str) -> None:
    with pytest.raises(InvalidInput):
        HashingEncoder.from_name(argument)


def test_it_needs_no_torch() -> None:
    code = "import sys, triptych.encoders.hashing; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
