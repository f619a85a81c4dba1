"""Late interaction against a loop."""

import pytest

torch = pytest.importorskip("torch")


from tests.encoders.states import row, states  # noqa: E402
from triptych.encoders.scorers.maxsim import maxsim  # noqa: E402
from triptych.encoders.towers.states import TokenStates  # noqa: E402

WIDTH = 8


def brute(text: TokenStates, picture: TokenStates) -> list[list[float]]:
    scores = []
    for q in range(len(text.mask_BT)):
        words = row(text, q).tokens_BTD[0]
        scores.append([])
        for n in range(len(picture.mask_BT)):
            patches = row(picture, n).tokens_BTD[0]
            best = [
                max(float(torch.cosine_similarity(word, patch, dim=0)) for patch in patches)
                for word in words
                if len(patches)
            ]
            scores[-1].append(sum(best) / len(best) if best else 0.0)
    return scores


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_it_is_the_mean_of_every_words_best_patch(chunk: int) -> None:
    text = states([3, 1, 0, 5], WIDTH, seed=1)
    picture = states([4, 0, 2], WIDTH, seed=2)
    found = maxsim(text, picture, chunk=chunk)
    assert torch.allclose(found, torch.tensor(brute(text, picture)), atol=1e-5)


def test_matched_pairs_beat_all_others() -> None:
    # 3-23: pictures hold their text's tokens among others
    text = states([4, 4, 4], WIDTH, seed=1)
    other = states([6, 6, 6], WIDTH, seed=2)
    both = torch.cat([other.tokens_BTD, text.tokens_BTD], dim=1)
    scores = maxsim(text, TokenStates(both, torch.ones(3, 10, dtype=torch.bool)))
    assert torch.allclose(scores.diagonal(), torch.ones(3), atol=1e-5)
    assert (scores - torch.eye(3)).max() < 0.95


def test_nothing_of_the_size_of_all_products_is_kept_for_the_way_back() -> None:
    text, picture = states([16] * 8, WIDTH, seed=1), states([32] * 8, WIDTH, seed=2)
    text.tokens_BTD.requires_grad_()
    kept: list[int] = []
    with torch.autograd.graph.saved_tensors_hooks(
        lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor
    ):
        scores = maxsim(text, picture, chunk=2)
    assert max(kept) < 2 * 16 * 8 * 32  # one chunk of products
    scores.sum().backward()
    assert text.tokens_BTD.grad.isfinite().all()


def test_no_texts_no_pictures_no_tokens() -> None:
    some, none = states([2, 3], WIDTH, seed=1), states([0, 0], WIDTH, seed=2, padded=0)
    empty = TokenStates(torch.zeros(0, 4, WIDTH), torch.zeros(0, 4, dtype=torch.bool))
    assert maxsim(empty, some).shape == (0, 2)
    assert maxsim(some, empty).shape == (2, 0)
    assert torch.equal(maxsim(some, none), torch.zeros(2, 2))
    assert torch.equal(maxsim(none, some), torch.zeros(2, 2))
