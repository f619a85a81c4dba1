"""The reranker's model: one score per pair."""

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from tests.encoders.states import PICTURE, TEXT, pictures, row, texts  # noqa: E402
from triptych.encoders.scorers.maxsim import maxsim  # noqa: E402
from triptych.encoders.scorers.pair_scorer import PairScorer, PairScorerConfig  # noqa: E402
from triptych.encoders.towers.states import TokenStates  # noqa: E402
from triptych.errors import InvalidInput  # noqa: E402


def scorer(*, awake: bool = True, **more: object) -> PairScorer:
    torch.manual_seed(0)
    config = PairScorerConfig(
        text_width=TEXT, picture_width=PICTURE, width=16, num_heads=2, hidden=24, mask_width=4, **more
    )  # fmt: skip
    model = PairScorer(config)
    if awake:
        nn.init.normal_(model.judge.weight)
        nn.init.normal_(model.weigh.weight)
    return model


def test_a_pair_alone_scores_as_in_a_batch_whatever_the_padding() -> None:
    model = scorer()
    text, picture = texts([5, 1, 3], padded=9), pictures([4, 7, 2], padded=8)
    scores_B, spatial_BTP = model(text, picture)
    alone = torch.cat([model(row(text, at), row(picture, at)).scores_B for at in range(3)])
    assert torch.allclose(scores_B, alone, atol=1e-5)
    assert spatial_BTP.shape == (3, 9, 8)


def test_one_text_beside_many_pictures_is_that_text_repeated() -> None:
    model, picture = scorer(), pictures([4, 7, 2])
    text = row(texts([5]), 0)
    three = TokenStates(text.tokens_BTD.expand(3, -1, -1), text.mask_BT.expand(3, -1))
    one_by_one = model(text, picture)
    assert torch.allclose(one_by_one.scores_B, model(three, picture).scores_B, atol=1e-6)
    assert one_by_one.scores_B.shape == (3,) and one_by_one.spatial_BTP.shape == (3, 5, 7)


def test_untrained_it_is_late_interaction() -> None:
    model, text, picture = scorer(awake=False), texts([5, 2]), pictures([4, 3])
    inner = [
        TokenStates(enter(states), states.mask_BT)
        for enter, states in ((model.enter_text, text), (model.enter_picture, picture))
    ]
    assert torch.allclose(model(text, picture).scores_B, 10 * maxsim(*inner).diagonal(), atol=1e-5)


def test_an_empty_side_scores_0_and_breaks_no_gradient() -> None:
    model = scorer()
    scores_B = model(texts([0, 3, 2]), pictures([4, 0, 2])).scores_B
    assert scores_B[:2].tolist() == [0.0, 0.0] and scores_B[2] != 0
    scores_B.sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_gradients_reach_every_parameter() -> None:
    model = scorer()
    model(texts([5, 2]), pictures([4, 3])).scores_B.square().sum().backward()
    for name, parameter in model.named_parameters():
        if not name.endswith("key.bias") and name != "weigh.bias":  # softmax does not see them
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_it_stays_below_a_million_parameters() -> None:
    model = PairScorer(PairScorerConfig())
    assert sum(parameter.numel() for parameter in model.parameters()) <= 1_000_000


def test_without_a_mask_there_is_none() -> None:
    model = PairScorer(PairScorerConfig(text_width=TEXT, picture_width=PICTURE, mask_width=None))
    assert model(texts([2]), pictures([3])).spatial_BTP is None


def test_wrong_input_is_refused() -> None:
    model, text, picture = scorer(), texts([2, 3]), pictures([4, 4, 4])
    with pytest.raises(InvalidInput, match="2 texts and 3 pictures"):
        model(text, picture)
    with pytest.raises(InvalidInput, match="shape"):
        model(picture, text)
    picture.tokens_BTD[2, 0, 0] = torch.inf
    with pytest.raises(InvalidInput, match="row 2"):
        model(texts([2, 3, 1]), picture)


def some_pairs(count: int) -> list[TokenStates]:
    """The first half of the pairs shares a token, the second does not."""
    tokens_BTD, patches_BPD = torch.randn(2 * count, 3, 8), torch.randn(2 * count, 5, 8)
    patches_BPD[:count, 2] = tokens_BTD[:count, 1]
    return [
        TokenStates(x, torch.ones(x.shape[:2], dtype=torch.bool)) for x in (tokens_BTD, patches_BPD)
    ]


def test_it_learns_that_a_shared_token_makes_a_pair() -> None:
    torch.manual_seed(1)
    config = PairScorerConfig(text_width=8, picture_width=8, width=16, num_heads=2, hidden=16)
    model = PairScorer(config)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def apart(count: int) -> torch.Tensor:
        scores_B = model(*some_pairs(count)).scores_B
        return scores_B[:count] - scores_B[count:, None]

    before = (apart(200) > 0).float().mean()
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.softplus(-apart(32)).mean().backward()
        optimizer.step()
    assert before < 0.6 and (apart(200) > 0).float().mean() > 0.8
