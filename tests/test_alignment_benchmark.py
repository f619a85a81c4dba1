"""The arithmetic of the alignment benchmark: who is right, and who is whose twin."""

from random import Random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_geometric")

from benchmarks.alignment import fusion, relations  # noqa: E402


def test_a_picture_is_held_against_its_own_caption_and_its_twins() -> None:
    scores_QN = torch.arange(16.0).view(4, 4)  # caption, picture
    right, swapped = relations._right_and_swapped(scores_QN)
    assert right.tolist() == [0, 5, 10, 15]
    assert swapped.tolist() == [4, 1, 14, 11]
    assert relations._both([3, 0]) == [6, 7, 0, 1]


def test_an_answer_is_of_the_kind_in_the_colour_and_not_in_the_querys_own() -> None:
    draw = Random(0)
    kinds, colours = ([draw.randrange(4) for _ in range(60)] for _ in range(2))
    shop = fusion.Shop(
        rows=[None] * 60,
        places_NPC=torch.zeros(60, 1),
        texts=None,
        kinds_N=torch.tensor(kinds),
        colours_N=torch.tensor(colours),
    )
    asked = shop.queries(50, Random(1))
    assert asked == shop.queries(50, Random(1))
    for source, colour, target in asked:
        assert kinds[target] == kinds[source] and colours[target] == colour != colours[source]
    sources, wanted, _ = map(list, zip(*asked, strict=True))
    right_QN = shop.right(sources, wanted, list(range(60)))
    assert all(right_QN[at, target] for at, (_, _, target) in enumerate(asked))
    assert not any(right_QN[at, source] for at, (source, _, _) in enumerate(asked))
