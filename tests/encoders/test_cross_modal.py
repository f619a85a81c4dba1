"""Fusion of token states: who sees whom, and what must not change."""

import pytest

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from tests.encoders.states import PICTURE, TEXT, pictures, row, texts  # noqa: E402
from triptych.encoders.cross_modal.block import CrossAttention  # noqa: E402
from triptych.encoders.cross_modal.entrance import Entrance  # noqa: E402
from triptych.encoders.cross_modal.fusion import CrossModal, CrossModalConfig  # noqa: E402
from triptych.encoders.towers.states import TokenStates  # noqa: E402
from triptych.errors import InvalidInput  # noqa: E402

FORMS = {
    "early": {"fusion": "early"},
    "early-unmasked": {"fusion": "early", "mask_width": None},
    "mid": {"fusion": "mid"},
    "mid-two-layers": {"fusion": "mid", "num_layers": 2},
    "mid-unmasked": {"fusion": "mid", "mask_width": None},
    "bottleneck": {"fusion": "mid", "num_latents": 3},
    "bottleneck-unmasked": {"fusion": "mid", "num_latents": 3, "mask_width": None},
    "late": {"fusion": "late"},
}
ATTENTIVE = [name for name in FORMS if name != "late"]
MASKED = [name for name in ATTENTIVE if "unmasked" not in name]


def fusion(name: str, *, awake: bool = True, **more: object) -> CrossModal:
    """A small one; awake, its way out is no longer zero."""
    torch.manual_seed(0)
    config = CrossModalConfig(
        text_width=TEXT, picture_width=PICTURE, width=16, num_heads=2, hidden=24, **FORMS[name], **more
    )  # fmt: skip
    model = CrossModal(config)
    if awake and name != "late":
        for end in (model.leave_text, model.leave_picture):
            nn.init.normal_(end.leave.weight)
    return model


def difference(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().abs().max())


@pytest.mark.parametrize("name", FORMS)
def test_a_row_alone_is_as_in_a_batch_and_padding_has_no_influence(name: str) -> None:
    model = fusion(name)
    text, picture = texts([5, 1, 3, 0], padded=9), pictures([4, 7, 0, 2], padded=8)
    together = model(text, picture)
    for at in range(4):
        alone = model(row(text, at), row(picture, at))
        for whole, part in zip(together[:2], alone[:2], strict=True):
            length = part.tokens_BTD.shape[1]
            kept = whole.tokens_BTD[at : at + 1, :length]
            assert length == 0 or difference(kept, part.tokens_BTD) <= 1e-5
        if together.spatial_BTP is not None:
            tokens, patches = alone.spatial_BTP.shape[1:]
            kept = together.spatial_BTP[at : at + 1, :tokens, :patches]
            assert torch.allclose(kept, alone.spatial_BTP, atol=1e-5)


@pytest.mark.parametrize("name", ATTENTIVE)
def test_each_side_sees_the_other(name: str) -> None:
    model = fusion(name)
    text, picture = texts([3]), pictures([4])
    before = model(text, picture)
    after_picture = model(text, pictures([4], seed=9))
    after_text = model(texts([3], seed=9), picture)
    assert difference(before.text.tokens_BTD, after_picture.text.tokens_BTD) > 1e-3
    assert difference(before.picture.tokens_BTD, after_text.picture.tokens_BTD) > 1e-3


@pytest.mark.parametrize("name", FORMS)
def test_with_a_side_absent_the_other_passes_bit_for_bit(name: str) -> None:
    model = fusion(name)
    text, picture = texts([5, 2]), pictures([4, 4])
    only_text, only_picture = model(text, None), model(None, picture)
    assert only_text.text is text and only_text.picture is None and only_text.spatial_BTP is None
    assert only_picture.picture is picture and only_picture.text is None
    assert model(None, None) == (None, None, None)


@pytest.mark.parametrize("name", FORMS)
def test_a_row_whose_other_side_is_padding_passes_bit_for_bit(name: str) -> None:
    text, picture = texts([0, 3]), pictures([4, 0])
    out = fusion(name)(text, picture)
    assert torch.equal(out.picture.tokens_BTD[0], picture.tokens_BTD[0])
    assert torch.equal(out.text.tokens_BTD[1], text.tokens_BTD[1])
    for states in out[:2]:
        assert states.tokens_BTD.isfinite().all()


@pytest.mark.parametrize("name", FORMS)
def test_a_new_fusion_is_the_identity(name: str) -> None:
    text, picture = texts([5, 2]), pictures([4, 3])
    out = fusion(name, awake=False)(text, picture)
    assert torch.equal(out.text.tokens_BTD, text.tokens_BTD)
    assert torch.equal(out.picture.tokens_BTD, picture.tokens_BTD)


@pytest.mark.parametrize("name", FORMS)
def test_what_padding_holds_does_not_matter(name: str) -> None:
    model = fusion(name)
    text, picture = texts([5, 2]), pictures([4, 3])
    spoilt = TokenStates(text.tokens_BTD.clone(), text.mask_BT)
    spoilt.tokens_BTD[1, 2:] = torch.nan
    clean, dirty = model(text, picture), model(spoilt, picture)
    assert torch.equal(clean.picture.tokens_BTD, dirty.picture.tokens_BTD)
    assert torch.equal(clean.text.tokens_BTD[1, :2], dirty.text.tokens_BTD[1, :2])


@pytest.mark.parametrize("name", ATTENTIVE)
def test_gradients_reach_every_parameter_and_are_finite(name: str) -> None:
    model = fusion(name)
    text, picture = texts([5, 0, 2]), pictures([4, 3, 0])
    out = model(text, picture)
    (out.text.tokens_BTD.square().mean() + out.picture.tokens_BTD.square().mean()).backward()
    for parameter_name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), parameter_name
        # a key's bias moves all scores of a row alike, and softmax does not see that
        if not parameter_name.endswith("key.bias"):
            assert parameter.grad.abs().max() > 0, parameter_name


@pytest.mark.parametrize("name", MASKED)
def test_the_mask_lies_between_0_and_1_and_is_0_on_padding(name: str) -> None:
    spatial_BTP = fusion(name)(texts([3, 1]), pictures([2, 4])).spatial_BTP
    assert spatial_BTP.shape == (2, 3, 4)
    assert (spatial_BTP[0, :3, :2] > 0).all() and (spatial_BTP <= 1).all()
    assert (spatial_BTP[0, :, 2:] == 0).all() and (spatial_BTP[1, 1:] == 0).all()


@pytest.mark.parametrize("name", MASKED)
def test_a_closed_place_is_not_looked_at(name: str) -> None:
    model = fusion(name)
    picture, other = pictures([4]), pictures([4])
    other.tokens_BTD[0, 2] += 1.0

    class Closed(nn.Module):
        def forward(self, text_BTW: Tensor, picture_BPW: Tensor) -> Tensor:
            logits_BTP = torch.full((1, text_BTW.shape[1], picture_BPW.shape[1]), 20.0)
            logits_BTP[:, :, 2] = -60.0
            return logits_BTP

    model.spatial = Closed()
    text = texts([3])
    out, changed = model(text, picture).text, model(text, other).text
    assert difference(out.tokens_BTD, changed.tokens_BTD) < 1e-5


def test_attention_rows_sum_to_1_over_what_is_not_padding() -> None:
    attention = CrossAttention(16, num_heads=2)
    ask, answer = torch.randn(3, 4, 16), torch.randn(3, 5, 16)
    mask_BK = torch.tensor([[1, 1, 1, 0, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=torch.bool)
    share_BHQK = attention.shares(ask, answer, mask_BK=mask_BK, bias_BQK=torch.randn(3, 4, 5))
    sums_B = share_BHQK.sum(dim=-1).mean(dim=(1, 2))
    assert torch.allclose(sums_B, torch.tensor([1.0, 1.0, 0.0]))
    assert (share_BHQK.masked_select(~mask_BK[:, None, None]) == 0).all()


def test_attention_is_torchs_own() -> None:
    attention = CrossAttention(16, num_heads=4)
    ask, answer = torch.randn(2, 3, 16), torch.randn(2, 5, 16)
    mask_BK, bias_BQK = torch.tensor([[True] * 5, [True] * 2 + [False] * 3]), torch.randn(2, 3, 5)
    query, key, value = (
        part(x).unflatten(-1, (4, 4)).transpose(1, 2)
        for part, x in ((attention.query, ask), (attention.key, answer), (attention.value, answer))
    )
    bias = bias_BQK.masked_fill(~mask_BK[:, None], -torch.inf)[:, None]
    mixed = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    expected = attention.out(mixed.transpose(1, 2).flatten(2))
    found = attention(ask, answer, mask_BK=mask_BK, bias_BQK=bias_BQK)
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_bottleneck_costs_no_attention_between_words_and_patches() -> None:
    model = fusion("bottleneck-unmasked")
    seen: list[int] = []
    for module in model.modules():
        if isinstance(module, CrossAttention):
            module.register_forward_hook(
                lambda _m, args, _out: seen.append(args[0].shape[1] * args[1].shape[1])
            )
    model(texts([40]), pictures([50]))
    assert seen == [3 * 90, 40 * 3, 50 * 3]


def test_places_tell_equal_patches_apart() -> None:
    picture = pictures([4])
    same = TokenStates(picture.tokens_BTD[:, :1].expand(-1, 4, -1).clone(), picture.mask_BT)
    without, told = Entrance(PICTURE, inner=8), Entrance(PICTURE, inner=8, num_places=4)
    assert difference(without(same)[:, 0], without(same)[:, 1]) == 0
    assert difference(told(same)[:, 0], told(same)[:, 1]) > 1e-4
    with pytest.raises(InvalidInput, match="Got 5 patches, expected the 4"):
        told(pictures([5]))


def test_shapes_that_do_not_fit_are_refused() -> None:
    model, text, picture = fusion("mid"), texts([2, 3]), pictures([4, 4])
    with pytest.raises(InvalidInput, match=r"picture have the shape \(2, 3, 12\).*tokens, 20\)"):
        model(text, text)
    with pytest.raises(InvalidInput, match="2 texts and 1 pictures"):
        model(text, row(picture, 0))
    with pytest.raises(InvalidInput, match=r"mask of \(2, 2\)"):
        model(TokenStates(text.tokens_BTD, text.mask_BT[:, :2]), picture)
    with pytest.raises(InvalidInput, match=r"torch.float32, expected torch.bool"):
        model(TokenStates(text.tokens_BTD, text.mask_BT.float()), picture)


def test_nan_in_a_picture_names_its_row() -> None:
    picture = pictures([4, 4, 4])
    picture.tokens_BTD[1, 3, 0] = torch.nan
    with pytest.raises(InvalidInput, match="picture hold NaN or infinity in row 1 of the batch"):
        fusion("mid")(texts([2, 2, 2]), picture)
    with pytest.raises(InvalidInput, match="row 1"):
        fusion("late")(None, picture)


@pytest.mark.parametrize(
    "wrong",
    [{"fusion": "later"}, {"width": 10, "num_heads": 4}, {"fusion": "early", "num_latents": 2}],
)
def test_a_config_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        CrossModalConfig(text_width=8, picture_width=8, **wrong)


@pytest.mark.parametrize("name", ATTENTIVE)
def test_it_runs_under_bfloat16(name: str) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        out = fusion(name)(texts([5, 0]), pictures([4, 3]))
    assert out.text.tokens_BTD.dtype == torch.float32 and out.text.tokens_BTD.isfinite().all()
