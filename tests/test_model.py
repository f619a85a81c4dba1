"""The joint model: laws, missing sides, bad batches."""

import pytest

torch = pytest.importorskip("torch")

from triptych.encoders.cross_modal.fusion import CrossModalConfig  # noqa: E402
from triptych.encoders.hubness import Hubness, HubnessConfig  # noqa: E402
from triptych.encoders.scorers.token_matcher import TokenMatcherConfig  # noqa: E402
from triptych.encoders.towers.states import TokenStates  # noqa: E402
from triptych.errors import InvalidInput  # noqa: E402
from triptych.model import JointConfig, JointModel, inverse_temperature  # noqa: E402
from triptych.moe.layer import MoEConfig  # noqa: E402

WIDTH, CHANNELS, DIM = 32, 48, 40
CONFIG = JointConfig(
    dim=DIM,
    prefixes=(20,),
    width=WIDTH,
    channels=CHANNELS,
    fusion=CrossModalConfig(
        text_width=WIDTH, picture_width=WIDTH, width=16, hidden=24, num_latents=3
    ),
    moe=MoEConfig(width=WIDTH, hidden=8),
    scorer=TokenMatcherConfig(text_width=WIDTH, picture_width=CHANNELS, width=16),
)


@pytest.fixture(scope="module")
def model() -> JointModel:
    torch.manual_seed(0)
    model = JointModel(CONFIG)
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    model.hubness = Hubness(HubnessConfig(num_centres=4, strength=0.2), dim=DIM)
    for bank in (model.hubness.texts, model.hubness.pictures):
        bank.centres_KM.normal_(std=DIM**-0.5)
    return model.eval()


def texts(num: int, *, length: int = 9, seed: int = 1) -> TokenStates:
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randn(num, length, WIDTH, generator=draw)
    lengths = torch.randint(1, length + 1, (num, 1), generator=draw)
    return TokenStates(tokens, torch.arange(length)[None] < lengths)


def pictures(num: int, *, seed: int = 2) -> TokenStates:
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randn(num, 12, CHANNELS, generator=draw).abs()
    return TokenStates(tokens, torch.ones(num, 12, dtype=torch.bool))


def rows(states: TokenStates, some: slice) -> TokenStates:
    return TokenStates(states.tokens_BTD[some], states.mask_BT[some])


@pytest.mark.parametrize("batch", [1, 7, 64])
@pytest.mark.parametrize("side", ["text", "picture", "both"])
def test_an_item_embeds_alone_as_in_a_batch(model: JointModel, side: str, batch: int) -> None:
    text = texts(64) if side != "picture" else None
    picture = pictures(64) if side != "text" else None
    with torch.inference_mode():
        whole = model(text, picture).emb_BM
        parts = [
            model(
                text and rows(text, slice(at, at + batch)),
                picture and rows(picture, slice(at, at + batch)),
            ).emb_BM
            for at in range(0, 64, batch)
        ]
    assert float((torch.cat(parts) - whole).abs().max()) <= 1e-5
    torch.testing.assert_close(whole.norm(dim=1), torch.ones(64))


def test_padding_and_what_it_holds_have_no_influence(model: JointModel) -> None:
    text, picture = texts(5), pictures(5)
    longer = TokenStates(
        torch.cat([text.tokens_BTD, torch.full((5, 30, WIDTH), torch.nan)], dim=1),
        torch.cat([text.mask_BT, torch.zeros(5, 30, dtype=torch.bool)], dim=1),
    )
    with torch.inference_mode():
        for beside in (None, picture):
            one, other = model(text, beside).emb_BM, model(longer, beside).emb_BM
            assert float((one - other).abs().max()) <= 1e-5


def test_a_text_that_is_padding_leaves_its_picture_alone(model: JointModel) -> None:
    text, picture = texts(3), pictures(3)
    text.mask_BT[1] = False
    with torch.inference_mode():
        both, alone = model(text, picture).emb_BM, model(None, picture).emb_BM
    assert float((both[1] - alone[1]).abs().max()) <= 1e-5
    assert float((both[0] - alone[0]).abs().max()) > 1e-3


def test_what_a_masked_picture_holds_has_no_influence(model: JointModel) -> None:
    text, picture = texts(3), pictures(3)
    picture.tokens_BTD[1], picture.mask_BT[1] = torch.nan, False
    both, alone = model(text, picture).emb_BM, model(text, None).emb_BM
    assert float((both[1] - alone[1]).detach().abs().max()) <= 1e-5
    grads = torch.autograd.grad(both.square().sum(), list(model.head.parameters())[1:])
    assert all(grad.isfinite().all() for grad in grads)


def test_a_batch_of_nothing_is_refused(model: JointModel) -> None:
    with pytest.raises(InvalidInput, match="neither texts nor pictures"):
        model(None, None)
    text = texts(4)
    text.mask_BT[2] = False
    with pytest.raises(InvalidInput, match="Row 2 of the batch has neither"):
        model(text, None)


def test_a_broken_picture_is_named(model: JointModel) -> None:
    picture = pictures(4)
    picture.tokens_BTD[3, 5, 7] = torch.nan
    with pytest.raises(InvalidInput, match=r"picture hold NaN or infinity in row 3"):
        model(None, picture)
    with pytest.raises(InvalidInput, match="as many"):
        model(texts(3), pictures(4))


def test_without_parts_it_is_a_dual_tower() -> None:
    torch.manual_seed(0)
    dual = JointModel(JointConfig(dim=DIM, width=WIDTH, channels=CHANNELS)).eval()
    with torch.inference_mode():
        text, picture = texts(3), pictures(3)
        both = dual(text, picture).emb_BM
        summed = dual(text, None).emb_BM + dual(None, picture).emb_BM
    torch.testing.assert_close(both, torch.nn.functional.normalize(summed, dim=-1))


def test_new_parts_start_by_changing_nothing() -> None:
    """So a stage goes on from the one before it without a step back."""
    torch.manual_seed(0)
    moe = MoEConfig(width=WIDTH, hidden=8, zero_output=True)
    joint = JointModel(JointConfig(**{**_plain(CONFIG), "moe": moe})).eval()
    dual = JointModel(JointConfig(dim=DIM, width=WIDTH, channels=CHANNELS)).eval()
    dual.load_state_dict({k: v for k, v in joint.state_dict().items() if k in dual.state_dict()})
    with torch.inference_mode():
        torch.testing.assert_close(
            joint(texts(3), pictures(3)).emb_BM, dual(texts(3), pictures(3)).emb_BM
        )


def _plain(config: JointConfig) -> dict[str, object]:
    return {name: getattr(config, name) for name in config.__slots__}


def test_pairs_are_scored_alone_as_together(model: JointModel) -> None:
    with torch.inference_mode():
        text, picture = texts(3), pictures(6)
        together = model.score(text, picture)
        alone = torch.cat(
            [model.score(text, rows(picture, slice(at, at + 1))) for at in range(6)], dim=1
        )
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-5)


def test_every_part_gets_a_gradient() -> None:
    torch.manual_seed(0)
    model = JointModel(CONFIG).train()
    out = model(texts(6), pictures(6))
    assert out.text is not None and out.picture is not None and out.moe is not None
    loss = out.emb_BM[:, 0].sum() + model.score(texts(6), pictures(6)).sum()
    (loss + out.moe.balance_loss + out.moe.budget_loss).backward()
    # outputs that start at zero hide what is behind them until they move
    for name in ("leave_text", "leave_picture", "head.mean", "moe.router", "scorer.enter_text"):
        some = [p.grad for n, p in model.named_parameters() if n.startswith(name)]
        assert any(grad is not None and grad.any() for grad in some), name


def test_a_scale_above_its_bound_comes_back_and_goes_no_further(model: JointModel) -> None:
    def gradient_of(scale: float, *, sign: int) -> float:
        log_scale = torch.tensor(scale).log().requires_grad_()
        found = inverse_temperature(log_scale)
        assert found.detach().item() == pytest.approx(min(scale, 60.0))
        (sign * found).backward()
        assert log_scale.grad is not None
        return float(log_scale.grad)

    assert gradient_of(80.0, sign=1) > 0 and gradient_of(80.0, sign=-1) == 0
    assert gradient_of(20.0, sign=1) == pytest.approx(20) == -gradient_of(20.0, sign=-1)
    with torch.no_grad():
        assert float(model.scale()) == pytest.approx(20)
