"""Made-up scenes say the truth about themselves."""

import io

import numpy as np
import pytest
from PIL import Image

from triptych.errors import InvalidInput
from triptych.pairs import Row
from triptych.training.scenes import COLOURS, RELATIONS, SIZE, shapes, stamps, twins


def test_the_same_seed_gives_the_same_scenes_and_another_others() -> None:
    first, again, other = (twins(shapes(), count=2, seed=seed) for seed in (3, 3, 4))
    assert [scene.caption for scene in first] == [scene.caption for scene in again]
    assert all(
        a.picture.tobytes() == b.picture.tobytes() for a, b in zip(first, again, strict=True)
    )
    assert [scene.caption for scene in first] != [scene.caption for scene in other]


def test_twins_say_of_each_other_what_is_false_of_themselves() -> None:
    scenes = twins(shapes(), count=20, seed=1)
    assert len(scenes) == 40
    for one, other in zip(scenes[::2], scenes[1::2], strict=True):
        assert (one.swapped, other.swapped) == (other.caption, one.caption)
        assert one.caption != one.swapped
        assert sorted(one.caption.replace("an ", "a ")) == sorted(one.swapped.replace("an ", "a "))


def test_a_mention_names_what_lies_in_its_box_and_the_relation_holds() -> None:
    for scene in twins(shapes(), count=20, seed=2, clutter=2):
        pixels = np.asarray(scene.picture)
        middles = []
        for mention in scene.mentions:
            colour = scene.caption[mention.start : mention.stop].split()[0]
            left, top, right, bottom = (round(SIZE * edge) for edge in mention.box)
            inside = pixels[top:bottom, left:right]
            assert (
                np.abs(inside - np.array(COLOURS[colour], float)).max(axis=-1) < 3
            ).mean() > 0.12
            middles.append(((left + right) / 2, (top + bottom) / 2))
        (relation,) = (name for name in RELATIONS if f" {name} " in scene.caption)
        right, down = RELATIONS[relation]
        assert (middles[0][0] - middles[1][0]) * right + (middles[0][1] - middles[1][1]) * down > 0


def test_stamps_keep_what_is_transparent_and_have_plain_names() -> None:
    file = io.BytesIO()
    Image.new("RGBA", (8, 8), (9, 9, 9, 0)).save(file, "WEBP", lossless=True)
    names = ["Apple", "keycap: 0", "a b c d", "two words"]
    rows = [
        Row(id=n, split="dev", image=file.getvalue(), texts=(n,), label=n, attributes={})
        for n in names
    ]
    things = stamps(rows)
    assert [thing.name for thing in things] == ["apple", "two words"]
    assert things[0].cutout.getpixel((4, 4))[3] == 0
    captions = {scene.caption.split(" ")[0] for scene in twins(things, count=3, seed=0, clutter=0)}
    assert captions <= {"an", "a"} and "an" in captions


def test_too_few_things_are_refused() -> None:
    with pytest.raises(InvalidInput, match="Got 2 things and a clutter of 1"):
        twins(shapes()[:2], count=1, seed=0)
    with pytest.raises(InvalidInput, match="clutter of 4"):
        twins(shapes(), count=1, seed=0, clutter=4)
