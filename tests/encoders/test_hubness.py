"""Hubs lose what they are nearer to all questions than others, in the vector itself."""

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor  # noqa: E402
from torch.nn import functional  # noqa: E402

from triptych.encoders.hubness import Hubness, HubnessConfig  # noqa: E402
from triptych.errors import InvalidInput  # noqa: E402

DIM = 24
CONFIG = HubnessConfig(num_centres=5)


def unit(num: int, *, seed: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randn(num, DIM, generator=draw)
    rows[:, -2:] = 0  # so that the two that make room held nothing
    return functional.normalize(rows, dim=-1)


def fitted(config: HubnessConfig = CONFIG) -> Hubness:
    hubness = Hubness(config, dim=DIM)
    for seed, bank in enumerate((hubness.texts, hubness.pictures)):
        bank.centres_KM.copy_(unit(config.num_centres, seed=seed))
        bank.typical.copy_(bank(unit(100, seed=5 + seed)).mean())
    return hubness


def test_hubness_is_the_soft_maximum_over_the_questions() -> None:
    bank = fitted().texts
    items_NM, shares_K = unit(9, seed=3), bank.log_shares_K.exp()
    near_NK = (CONFIG.sharpness * items_NM @ bank.centres_KM.T).exp()
    expected_N = (near_NK * shares_K).sum(dim=1).log() / CONFIG.sharpness - bank.typical
    torch.testing.assert_close(bank(items_NM), expected_N)


def test_a_cosine_loses_the_hubness_of_both() -> None:
    hubness = fitted(HubnessConfig(num_centres=5, strength=0.2, floor=1.0))
    texts, pictures = unit(7, seed=3), unit(8, seed=4)
    told_texts, told_pictures = hubness.text(texts), hubness.picture(pictures)
    torch.testing.assert_close(told_texts.norm(dim=1), torch.ones(7))
    constant, strength = hubness.config.constant, hubness.config.strength
    lost_T, lost_N = strength * hubness.pictures(texts), strength * hubness.texts(pictures)
    room_T, room_N = (
        (1 - constant**2 - (constant - lost / constant).square()).sqrt()
        for lost in (lost_T, lost_N)
    )
    expected_TN = (
        2 * constant**2
        - lost_T[:, None]
        - lost_N[None, :]
        + room_T[:, None] * room_N[None, :] * (texts @ pictures.T)
    )
    torch.testing.assert_close(told_texts @ told_pictures.T, expected_TN)


def test_a_hub_no_longer_comes_first_for_everything() -> None:
    # eight questions in two directions each; a hub in the middle of them, an answer at each
    draw = torch.Generator().manual_seed(1)
    middle = functional.normalize(torch.ones(1, DIM - 2), dim=-1)
    own = functional.normalize(torch.randn(8, DIM - 2, generator=draw), dim=-1)
    questions, answers = middle + own, own + 0.4 * torch.randn(8, DIM - 2, generator=draw) / 5
    room = torch.zeros(9, 2)
    items = functional.normalize(torch.cat([torch.cat([middle, answers]), room], dim=1), dim=-1)
    asked = functional.normalize(torch.cat([questions, room[1:]], dim=1), dim=-1)
    hubness = Hubness(HubnessConfig(num_centres=8), dim=DIM)
    hubness.texts.centres_KM.copy_(asked)
    hubness.texts.typical.copy_(hubness.texts(items).mean())
    before, after = asked @ items.T, hubness.text(asked) @ hubness.picture(items).T
    hub_first = [(scores.argmax(dim=1) == 0).sum().item() for scores in (before, after)]
    assert hub_first[0] >= 4 > hub_first[1]


def test_what_is_unlike_all_questions_gains_no_more_than_the_floor() -> None:
    hubness = Hubness(CONFIG, dim=DIM)
    hubness.texts.centres_KM.copy_(unit(CONFIG.num_centres, seed=0))
    hubness.texts.typical.fill_(0.9)  # all of these are far below it
    told_N = hubness.picture(unit(20, seed=3))[:, 0]
    gained = CONFIG.strength * CONFIG.floor / CONFIG.constant
    torch.testing.assert_close(told_N, torch.full((20,), CONFIG.constant + gained))


def test_an_extreme_hub_stays_a_unit_vector() -> None:
    hubness = fitted(HubnessConfig(num_centres=5, strength=20.0))
    rows = hubness.picture(unit(50, seed=6))
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(50))


@pytest.mark.parametrize(
    "wrong",
    [{"constant": 0.0}, {"constant": 0.8}, {"sharpness": 0.0}, {"num_centres": 0}, {"floor": -1.0}],
    ids=str,
)
def test_what_would_leave_no_unit_vector_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InvalidInput):
        HubnessConfig(**wrong)  # type: ignore[arg-type]
