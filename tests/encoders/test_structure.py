"""Graphs of words and patches, their matching, and what they must tell apart."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("torch_geometric")

from torch import Tensor  # noqa: E402

from tests.encoders.states import PICTURE, TEXT, pictures, row, texts  # noqa: E402
from triptych.encoders.structure.alignment import Structure, StructureConfig  # noqa: E402
from triptych.encoders.structure.graphs import Grid, patch_links, places, text_links  # noqa: E402
from triptych.encoders.structure.transport import transport  # noqa: E402
from triptych.encoders.structure.word_graph import Link, word_links  # noqa: E402
from triptych.encoders.towers.states import TokenStates  # noqa: E402
from triptych.errors import InvalidInput  # noqa: E402

CAPTION = ["a", "cup", "left", "of", "a", "tall", "jug"]


def structure(**more: object) -> Structure:
    torch.manual_seed(0)
    config = StructureConfig(
        text_width=TEXT, picture_width=PICTURE, rows=2, columns=3, width=16, num_heads=2, **more
    )  # fmt: skip
    return Structure(config)


def links_of(lengths: list[int]) -> list[list[Link]]:
    return [word_links(CAPTION[:length]) for length in lengths]


FORMS = [{}, {"num_layers": 0}, {"relations": False}, {"num_layers": 0, "relations": False}]


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_a_pair_alone_scores_as_among_others_whatever_the_padding(form: dict[str, object]) -> None:
    model, lengths = structure(**form), [7, 1, 4]
    text, picture = texts(lengths, padded=9), pictures([6, 6, 6])
    together = model.scores(model.texts(text, links_of(lengths)), model.pictures(picture))
    assert together.shape == (3, 3)
    for q in range(3):
        alone = model.texts(row(text, q), links_of(lengths[q : q + 1]))
        for n in range(3):
            score = model.scores(alone, model.pictures(row(picture, n)))
            assert torch.allclose(score[0, 0], together[q, n], atol=1e-5)


def test_an_empty_side_scores_0_and_breaks_no_gradient() -> None:
    model, lengths = structure(), [0, 7]
    text, picture = texts(lengths), pictures([0, 6], padded=6)
    scores = model.scores(model.texts(text, links_of(lengths)), model.pictures(picture))
    assert (scores[0] == 0).all() and (scores[:, 0] == 0).all() and scores[1, 1] != 0
    scores.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_gradients_reach_every_parameter() -> None:
    model = structure()
    texts_out = model.texts(texts([7, 5]), links_of([7, 5]))
    model.scores(texts_out, model.pictures(pictures([6, 6]))).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_relations_are_the_offsets_expected_by_the_plan() -> None:
    model = structure()
    graph = model.texts(texts([7, 5]), links_of([7, 5]))
    plan, _ = model.plan(graph, model.pictures(pictures([6, 6])))
    found = model._relations(graph.edges_2E, graph.wanted_EF, plan)
    waves = torch.tensor([(1, 0), (0, 1), (1, 1), (1, -1), (2, 0), (0, 2)]) * torch.pi
    spots = places(Grid(2, 3))
    expected = torch.zeros(2, 2)
    counts = torch.zeros(2)
    for (source, target), wanted in zip(graph.edges_2E.T.tolist(), graph.wanted_EF, strict=True):
        owner = source // 7
        counts[owner] += 1
        for n in range(2):
            one, other = plan[owner, n, source % 7], plan[owner, n, target % 7]
            joint_PP = torch.outer(one / one.sum(), other / other.sum())
            angles_PPF = (spots[None, :] - spots[:, None]) @ waves.T
            means = [
                (joint_PP[..., None] * f(angles_PPF)).sum((0, 1)) for f in (torch.cos, torch.sin)
            ]
            expected[owner, n] += torch.cat(means) @ wanted
    assert torch.allclose(found, expected / counts[:, None], atol=1e-5)


def test_links_tell_left_from_right() -> None:
    graph = patch_links(pictures([6]), Grid(2, 3), reach=2, nearest=0)
    features = {
        tuple(edge): feature.tolist()
        for edge, feature in zip(graph.edges_2E.T.tolist(), graph.features_EF, strict=True)
    }
    # to the middle of the upper row, from its left and its right
    assert features[0, 1] == pytest.approx([-1 / 3, 0, 1 / 3, 1, 0])
    assert features[2, 1] == pytest.approx([1 / 3, 0, 1 / 3, 1, 0])
    assert features[0, 2][0] == pytest.approx(-2 / 3)  # two steps
    assert (0, 5) not in features  # no queen goes there
    assert (3, 0) in features and (4, 0) in features


def test_nearest_are_the_nearest_by_brute_force_and_never_oneself() -> None:
    picture = pictures([6, 4], padded=6)
    graph = patch_links(picture, Grid(2, 3), reach=0, nearest=2)
    found = {tuple(edge) for edge in graph.edges_2E.T.tolist()}
    expected = set()
    for b, length in enumerate([6, 4]):
        states = picture.tokens_BTD[b, :length]
        for target in range(length):
            near = [
                (-float(torch.cosine_similarity(states[s], states[target], dim=0)), s)
                for s in range(length)
                if s != target
            ]
            expected |= {(6 * b + s, 6 * b + target) for _, s in sorted(near)[:2]}
    assert found == expected


def test_links_that_touch_padding_are_left_out() -> None:
    graph = text_links([word_links(CAPTION)] * 2, mask_BT=texts([7, 3]).mask_BT)
    assert graph.edges_2E.max() <= 9  # the second text ends at 7 + 3
    assert len(graph.features_EF) == graph.edges_2E.shape[1] == graph.spans_2E.shape[1]
    with pytest.raises(InvalidInput, match="links of 1 texts, expected those of 2"):
        text_links([[]], mask_BT=texts([7, 3]).mask_BT)


def test_patches_must_fill_the_grid() -> None:
    with pytest.raises(InvalidInput, match="5 patches, expected 2 x 3"):
        structure().pictures(pictures([5]))
    with pytest.raises(InvalidInput, match="row 0"):
        picture = pictures([6])
        picture.tokens_BTD[0, 0, 0] = torch.nan
        structure().pictures(picture)


def plan_of(scores: Tensor, lengths: tuple[int, int], *, aside: float, steps: int = 200) -> Tensor:
    mask_T, mask_P = (torch.arange(n) < k for n, k in zip(scores.shape, lengths, strict=True))
    return transport(scores, mask_T=mask_T, mask_P=mask_P, aside=torch.tensor(aside), steps=steps)


def test_transport_never_gives_more_than_there_is() -> None:
    plan = plan_of(5 * torch.randn(6, 5), (4, 3), aside=0.0)
    assert (plan >= 0).all() and (plan.sum(0) <= 1 + 1e-4).all() and (plan.sum(1) <= 1 + 1e-4).all()
    assert (plan[4:] == 0).all() and (plan[:, 3:] == 0).all()


def test_transport_finds_the_one_to_one_match() -> None:
    scores = torch.full((3, 3), -10.0)
    order = [2, 0, 1]
    for word, patch in enumerate(order):
        scores[word, patch] = 10.0
    scores[0, 0] = 9.0  # patch 0 is wanted by two: who wants it more, gets it
    plan = plan_of(scores, (3, 3), aside=-20.0)
    assert plan.argmax(dim=1).tolist() == order and (plan.amax(dim=1) > 0.7).all()


def test_what_has_no_match_goes_aside() -> None:
    scores = torch.tensor([[10.0, -10.0], [-10.0, -10.0]])
    plan = plan_of(scores, (2, 2), aside=0.0)
    assert plan[0, 0] > 0.95 and plan[1].sum() < 0.01


def test_transport_does_not_see_padding() -> None:
    scores = torch.randn(3, 4)
    wide = torch.full((5, 6), 30.0)
    wide[:3, :4] = scores
    narrow = plan_of(scores, (3, 4), aside=0.1, steps=5)
    assert torch.allclose(plan_of(wide, (3, 4), aside=0.1, steps=5)[:3, :4], narrow, atol=1e-6)


def scenes(count: int, *, seed: int) -> tuple[TokenStates, TokenStates]:
    """Two things side by side, and two captions that differ in the order of their words alone.

    A word's state is known from its position, as behind a text tower; a patch knows its content.
    """
    draw = torch.Generator().manual_seed(seed)
    things = torch.randn(count, 2, TEXT, generator=draw)
    patches = 0.3 * torch.randn(count, 2, 6, PICTURE, generator=draw)
    for which, (left, right) in enumerate([(0, 1), (1, 0)]):
        patches[:, which, 3, :TEXT] += things[:, left]
        patches[:, which, 5, :TEXT] += things[:, right]
    words = torch.zeros(count, 2, 3, TEXT)
    for which, (first, second) in enumerate([(0, 1), (1, 0)]):
        words[:, which, 0], words[:, which, 2] = things[:, first], things[:, second]
    pair = (words.flatten(0, 1), patches.flatten(0, 1))
    text, picture = (TokenStates(x, torch.ones(x.shape[:2], dtype=torch.bool)) for x in pair)
    return text, picture


def margins(model: Structure, count: int, *, seed: int) -> Tensor:
    """By how much each picture's own caption beats the other one."""
    text, picture = scenes(count, seed=seed)
    links = [word_links(["cup", "of", "jug"])] * (2 * count)
    scores = model.scores(model.texts(text, links), model.pictures(picture))
    own = scores.view(count, 2, count, 2).diagonal(dim1=0, dim2=2)  # caption, picture, count
    return torch.stack([own[0, 0] - own[1, 0], own[1, 1] - own[0, 1]])


def test_matching_nodes_alone_cannot_tell_left_from_right() -> None:
    model = structure(num_layers=0, relations=False)
    assert margins(model, 20, seed=0).abs().max() < 1e-6


def test_structure_learns_left_of() -> None:
    model = structure(reach=2, nearest=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(40):
        optimizer.zero_grad()
        torch.nn.functional.softplus(-10 * margins(model, 8, seed=step)).mean().backward()
        optimizer.step()
    with torch.no_grad():
        assert (margins(model, 50, seed=1000) > 0).float().mean() > 0.9
