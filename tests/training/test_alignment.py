"""The alignments' losses and measures, by hand."""

import math
from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from triptych.encoders.cross_modal.spatial_mask import SpatialMask, as_mask  # noqa: E402
from triptych.encoders.structure.graphs import Grid  # noqa: E402
from triptych.encoders.towers.states import TokenStates  # noqa: E402
from triptych.training import alignment  # noqa: E402
from triptych.training.losses import cross_modal  # noqa: E402
from triptych.training.scenes import Box, shapes, twins  # noqa: E402

GRID = Grid(2, 4)
EYE = torch.eye(3, dtype=torch.bool)


def unit(rows: int, width: int) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, width), dim=1)


def test_the_semantic_loss_is_the_contrast_of_the_towers() -> None:
    texts, pictures, group, scale = (
        unit(4, 5),
        unit(3, 5),
        torch.tensor([0, 1, 1, 2]),
        torch.tensor(7.0),
    )
    positive_QN = group[:, None] == torch.arange(3)
    found = alignment.semantic_loss(texts, pictures, positive_QN=positive_QN, scale=scale)
    same = cross_modal(pictures, texts, group_I=torch.arange(3), group_T=group, scale=scale)
    assert found.item() == pytest.approx(same.item(), rel=1e-5)


def test_recall_counts_the_texts_whose_best_is_right() -> None:
    scores = torch.tensor([[0.9, 0.1, 0.0], [0.8, 0.1, 0.0], [0.0, 0.1, 0.3]])
    assert alignment.recall(scores, positive_QN=EYE) == pytest.approx(2 / 3)


def states(tokens_BTD: torch.Tensor) -> TokenStates:
    return TokenStates(tokens_BTD, torch.ones(tokens_BTD.shape[:2], dtype=torch.bool))


def test_the_token_loss_falls_where_tokens_meet_their_patches() -> None:
    torch.manual_seed(0)
    words, scale = torch.randn(3, 2, 16), torch.tensor(20.0)
    text, own = states(words), states(torch.cat([words, words[:, :1]], dim=1))
    other = states(torch.randn(3, 3, 16))
    losses = [
        alignment.token_loss(text, picture, positive_QN=EYE, scale=scale)
        for picture in (own, other)
    ]
    assert losses[0] < 0.01 < losses[1]


def test_the_mask_loss_is_cross_entropy_with_inside_and_outside_alike() -> None:
    spatial = torch.full((1, 2, 8), 0.25)
    inside = torch.zeros(1, 2, 8)
    inside[0, 0, 3] = 1.0
    spoken = torch.tensor([[True, False]])
    loss = alignment.mask_loss(spatial, inside_BTP=inside, spoken_BT=spoken)
    assert loss.item() == pytest.approx(-(math.log(0.25) + math.log(0.75)) / 2, rel=1e-5)
    perfect = alignment.mask_loss(inside, inside_BTP=inside, spoken_BT=spoken)
    assert perfect.item() == pytest.approx(0.0, abs=1e-5)


def test_without_a_box_the_mask_loss_is_0_and_still_has_a_gradient() -> None:
    spatial = torch.rand(1, 2, 8, requires_grad=True)
    nothing = torch.zeros(1, 2, dtype=torch.bool)
    loss = alignment.mask_loss(spatial, inside_BTP=torch.zeros(1, 2, 8), spoken_BT=nothing)
    loss.backward()
    assert loss.item() == 0.0 and (spatial.grad == 0).all()


def test_the_mask_learns_from_boxes_where_words_point() -> None:
    torch.manual_seed(0)
    mask = SpatialMask(8, mask_width=8)
    optimizer = torch.optim.Adam(mask.parameters(), lr=0.1)
    boxes, inside = [Box(0, 0, 0.25, 0.5), Box(0.75, 0.5, 1, 1)], torch.zeros(2, 1, 8)
    inside[0, 0, 0] = inside[1, 0, 7] = 1
    spoken = torch.ones(2, 1, dtype=torch.bool)

    def spatial() -> torch.Tensor:
        thing = torch.randn(2, 8)
        patches = 0.1 * torch.randn(2, 8, 8)
        patches[0, 0], patches[1, 7] = thing[0], thing[1]
        logits = mask(thing[:, None], patches)
        return as_mask(logits, mask_BT=spoken, mask_BP=torch.ones(2, 8, dtype=torch.bool))

    for _ in range(50):
        optimizer.zero_grad()
        alignment.mask_loss(spatial(), inside_BTP=inside, spoken_BT=spoken).backward()
        optimizer.step()
    hits = torch.stack([alignment.pointing_hits(spatial()[:, 0], boxes, GRID) for _ in range(20)])
    assert hits.mean() > 0.9  # by chance 1/8


def test_pointing_hits_where_the_hottest_patch_has_its_middle_in_the_box() -> None:
    heat = torch.zeros(3, 8)
    heat[0, 5], heat[1, 5] = 1.0, 1.0  # lower row, second column: its middle is at 0.375, 0.75
    boxes = [Box(0.3, 0.6, 0.5, 0.9), Box(0.4, 0.6, 0.5, 0.9), Box(0.0, 0.0, 0.5, 0.5)]
    # the third is equally hot everywhere: two of the eight middles lie in its box
    assert alignment.pointing_hits(heat, boxes, GRID).tolist() == [1.0, 0.0, 0.25]


def test_what_a_box_covers() -> None:
    share = alignment.covered(Box(0.125, 0.0, 0.5, 0.75), GRID)
    assert torch.allclose(share, torch.tensor([0.5, 1, 0, 0, 0.25, 0.5, 0, 0]))


def test_targets_lie_on_the_pieces_of_each_mention() -> None:
    (scene, _) = twins(shapes(), count=1, seed=0)
    words = scene.caption.split()
    ends = [sum(len(word) + 1 for word in words[:at]) for at in range(len(words) + 1)]
    offsets = [(0, 0), *((start, end - 1) for start, end in pairwise(ends))]
    inside, spoken = alignment.pixel_targets([scene], [offsets], length=12, grid=Grid(7, 7))
    named = [words[at - 1] for at in spoken[0].nonzero().flatten().tolist()]
    first, second = (scene.caption[m.start : m.stop].split() for m in scene.mentions)
    assert named == [*first, *second]
    assert torch.equal(inside[0, 2], alignment.covered(scene.mentions[0].box, Grid(7, 7)))
    assert inside.shape == (1, 12, 49) and inside[0, ~spoken[0]].sum() == 0


def test_a_relation_is_right_where_the_true_sentence_wins_and_a_tie_is_half() -> None:
    right, swapped = torch.tensor([1.0, 0.0, 2.0, 2.0]), torch.tensor([0.0, 1.0, 2.0, 1.0])
    assert alignment.relation_accuracy(right, swapped) == 0.625
    loss = alignment.structure_loss(right, swapped, scale=torch.tensor(2.0))
    expected = sum(math.log1p(math.exp(2 * gap)) for gap in (-1, 1, 0, -1)) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-5)
