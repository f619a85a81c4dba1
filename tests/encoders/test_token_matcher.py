"""The scorer of pairs: late interaction in a space of its own, with words that weigh."""

import pytest

torch = pytest.importorskip("torch")

from tests.encoders.states import row, states  # noqa: E402
from triptych.encoders.scorers.maxsim import maxsim  # noqa: E402
from triptych.encoders.scorers.token_matcher import TokenMatcher, TokenMatcherConfig  # noqa: E402
from triptych.errors import InvalidInput  # noqa: E402

TEXT, PICTURE = 12, 20
CONFIG = TokenMatcherConfig(text_width=TEXT, picture_width=PICTURE, width=8)


def matcher(*, weighed: bool = True) -> TokenMatcher:
    torch.manual_seed(0)
    found = TokenMatcher(CONFIG)
    if weighed:
        torch.nn.init.normal_(found.weigh.weight)
    return found.eval()


def test_a_score_is_what_a_loop_makes_of_it() -> None:
    model = matcher()
    text = model.text(states([3, 1, 5], TEXT, seed=1))
    picture = model.picture(states([4, 2], PICTURE, seed=2))
    with torch.inference_mode():
        found_TN = model(text, picture)
        for t in range(3):
            words = row(text, t).tokens_BTD[0]
            share = model.weigh(words)[:, 0].softmax(dim=0)
            for n in range(2):
                patches = row(picture, n).tokens_BTD[0]
                best = torch.stack([(word @ patches.T).max() for word in words])
                expected = model.log_scale.exp() * (share * best).sum()
                torch.testing.assert_close(found_TN[t, n], expected)


def test_untrained_all_words_count_as_much() -> None:
    model = matcher(weighed=False)
    text = model.text(states([3, 5], TEXT, seed=1))
    picture = model.picture(states([4, 2], PICTURE, seed=2))
    with torch.inference_mode():
        torch.testing.assert_close(model(text, picture), 20 * maxsim(text, picture))


def test_the_states_are_unit_rows_and_zero_on_padding() -> None:
    found = matcher().text(states([3, 1], TEXT, seed=1))
    lengths = found.tokens_BTD.norm(dim=-1)
    torch.testing.assert_close(lengths, found.mask_BT.float())


def test_padding_has_no_influence_whatever_it_holds() -> None:
    model = matcher()
    text, picture = states([3, 5], TEXT, seed=1), states([4, 2], PICTURE, seed=2)
    with torch.inference_mode():
        clean = model(model.text(text), model.picture(picture))
        for side in (text, picture):
            side.tokens_BTD.masked_fill_(~side.mask_BT.unsqueeze(-1), float("nan"))
        torch.testing.assert_close(model(model.text(text), model.picture(picture)), clean)


def test_a_pair_without_tokens_scores_nothing() -> None:
    model = matcher()
    with torch.inference_mode():
        found = model(
            model.text(states([3, 0], TEXT, seed=1)), model.picture(states([0, 2], PICTURE, seed=2))
        )
    assert found[0, 0] == found[1, 0] == found[1, 1] == 0 and found[0, 1] != 0


@pytest.mark.parametrize("side", ["text", "picture"])
def test_what_is_not_finite_is_named(side: str) -> None:
    width = TEXT if side == "text" else PICTURE
    some = states([3, 4], width, seed=1)
    some.tokens_BTD[1, 2, 0] = float("nan")
    with pytest.raises(InvalidInput, match="row 1"):
        getattr(matcher(), side)(some)
    with pytest.raises(InvalidInput, match=f"expected .batch, tokens, {width}"):
        getattr(matcher(), side)(states([3], width + 1, seed=1))
