import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

if find_spec("open_clip") is None:
    pytest.skip("needs open_clip", allow_module_level=True)

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from triptych.encoders.cross_modal.fusion import CrossModal, CrossModalConfig
from triptych.encoders.open_clip import hub as open_clip_hub
from triptych.encoders.open_clip.encoder import OpenClipModel, open_clip
from triptych.encoders.open_clip.recipe import recipe_of
from triptych.errors import InvalidInput, NotAvailable, NotFound
from triptych.types import Item

TINY = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16},
    "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 2},
}
WORDS = {"<pad>": 0, "<eos>": 1, "<unk>": 2, "red": 3, "car": 4}


@pytest.fixture(scope="module", autouse=True)
def tiny(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("configs")
    hub = TINY | {"text_cfg": {**TINY["text_cfg"], "hf_tokenizer_name": "no/where"}}
    for name, config in {"tiny": TINY, "tiny-hub": hub}.items():
        folder.joinpath(f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory, tiny: None) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mine.safetensors"
    model = open_clip.create_model("tiny")
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, str(path))
    return path


@pytest.fixture(scope="module")
def model(weights: Path) -> OpenClipModel:
    return OpenClipModel.from_name(f"tiny:{weights}")


def test_equals_open_clip_itself(model: OpenClipModel, weights: Path) -> None:
    theirs, _, prepare = open_clip.create_model_and_transforms("tiny", pretrained=str(weights))
    picture = Image.effect_noise((50, 40), 80).convert("RGB")
    with torch.inference_mode():
        expected = theirs.eval().encode_image(prepare(picture)[None], normalize=True).numpy()
        words = theirs.encode_text(open_clip.get_tokenizer("tiny")(["a red car"]), normalize=True)
    np.testing.assert_allclose(model.embed_pictures([picture]), expected, atol=1e-6)
    np.testing.assert_allclose(model.embed_texts(["a red car"]), words.numpy(), atol=1e-6)


@pytest.mark.parametrize(
    ("arch", "mode", "mean"),
    [
        ("ViT-B-32-SigLIP2-256", "squash", 0.5),
        ("ViT-B-16-SigLIP", "squash", 0.5),
        ("ViT-L-14-CLIPA", "squash", 0.485),
        ("MobileCLIP-S1", "shortest", 0.0),
        ("ViT-B-32", "shortest", 0.48145466),
    ],
)
def test_a_local_file_gets_its_own_preprocessing(
    tmp_path: Path, arch: str, mode: str, mean: float
) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"x")
    prepared = recipe_of(f"{arch}:{file}").preprocessing
    assert prepared["resize_mode"] == mode
    assert prepared["mean"][0] == pytest.approx(mean)


def test_where_weights_disagree_the_file_must_say(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"x")
    with pytest.raises(InvalidInput, match="2 ways"):
        recipe_of(f"ViT-L-14:{file}")
    told = {"model_cfg": {"quick_gelu": True}, "preprocess_cfg": {"mean": [0.1, 0.2, 0.3]}}
    file.with_name("open_clip_config.json").write_text(json.dumps(told))
    recipe = recipe_of(f"ViT-L-14:{file}")
    assert recipe.preprocessing["mean"] == [0.1, 0.2, 0.3] and recipe.quick_gelu


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("ViT-B-33:random", NotFound, "Near it: .*ViT-B-32"),
        ("ViT-B-32", InvalidInput, "Tags of ViT-B-32: openai"),
        ("ViT-B-32:nosuch", NotFound, "neither a tag"),
        ("tiny-hub:{weights}", NotAvailable, "tokenizer.json"),
        ("roberta-ViT-B-32:{weights}", NotAvailable, "not supported|not beside it"),
    ],
)
def test_a_name_that_cannot_be_had(
    weights: Path, name: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        OpenClipModel.from_name(name.format(weights=weights))


@pytest.fixture
def hub_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(open_clip_hub.hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(open_clip_hub.hub.constants, "HF_HUB_OFFLINE", True)
    known = open_clip_hub.hub.try_to_load_from_cache
    monkeypatch.setattr(
        open_clip_hub.hub, "try_to_load_from_cache", lambda *args: known(*args, cache_dir=tmp_path)
    )
    return tmp_path


@pytest.mark.parametrize("name", ["ViT-B-32:openai", "ViT-B-32:laion2b_s34b_b79k"])
def test_a_tag_without_the_network_is_refused_at_once(hub_cache: Path, name: str) -> None:
    with pytest.raises(NotAvailable, match="offline"):
        recipe_of(name)


def test_a_tag_in_the_cache_needs_no_network(hub_cache: Path) -> None:
    folder = hub_cache / "models--timm--vit_base_patch32_clip_224.openai"
    folder.joinpath("refs").mkdir(parents=True)
    folder.joinpath("refs", "main").write_text("abc")
    folder.joinpath("snapshots", "abc").mkdir(parents=True)
    weights = folder / "snapshots" / "abc" / "open_clip_model.safetensors"
    weights.write_bytes(b"x")
    recipe = recipe_of("ViT-B-32:openai")
    assert recipe.weights == weights
    # OpenAI trained with QuickGELU; open_clip itself only warns
    assert recipe.quick_gelu and recipe.local_file is None


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"PK\3\4half", b"\x80\x04."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_a_file_of_another_kind(tmp_path: Path, content: bytes, suffix: str) -> None:
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(content)
    with pytest.raises(InvalidInput, match="does not hold weights"):
        OpenClipModel.from_name(f"tiny:{file}")


def test_weights_that_hold_code_are_refused(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path(tmp_path, "ran").write_text, ("it ran",)

    file = tmp_path / "weights.pt"
    torch.save({"state_dict": Evil()}, file)
    with pytest.raises(InvalidInput):
        OpenClipModel.from_name(f"tiny:{file}")
    assert not tmp_path.joinpath("ran").exists()


def test_a_long_text_keeps_its_end(model: OpenClipModel) -> None:
    states = model.text_states(["red " * 100, "red"])
    assert [len(tokens_TW) for tokens_TW in states] == [16, 3]
    assert model.embed_texts(["red " * 100]).shape == (1, 32)


def test_a_picture_has_a_state_for_each_patch(model: OpenClipModel) -> None:
    states = model.picture_states([Image.new("RGB", (90, 30))] * 3)
    assert [patches_PW.shape for patches_PW in states] == [(4, 32)] * 3


def test_its_towers_can_be_joined_by_cross_modal_attention(model: OpenClipModel) -> None:
    text = model.encode_texts(["red " * 100, "red"])
    picture = model.encode_pictures([Image.new("RGB", (90, 30))] * 2)
    assert text.mask_BT.sum(dim=1).tolist() == [16, 3]
    assert picture.tokens_BTD.shape == (2, 4, 64)
    widths = {"text_width": text.tokens_BTD.shape[-1], "picture_width": 64}
    joined = CrossModal(CrossModalConfig(**widths))(text, picture)
    assert joined.text is not None and joined.text.tokens_BTD.shape == text.tokens_BTD.shape
    assert joined.picture is not None and joined.picture.mask_BT.all()


def test_token_states_lie_in_one_space(model: OpenClipModel) -> None:
    image = Image.effect_noise((50, 40), 80).convert("RGB")
    items = [Item(id="t", text="red " * 30), Item(id="p", image=image, text="red")]
    together = model.token_states(items)
    assert model.token_width == 32
    assert [one_TW.shape for one_TW in together] == [(16, 32), (3 + 4, 32)]
    for item, one_TW in zip(items, together, strict=True):
        np.testing.assert_allclose(np.linalg.norm(one_TW, axis=1), 1.0, atol=1e-5)
        np.testing.assert_allclose(model.token_states([item])[0], one_TW, atol=1e-5)


def test_the_state_of_the_end_is_the_vector_of_the_text(model: OpenClipModel) -> None:
    # what is projected is what the tower itself projects
    (states_TW,) = model.token_states([Item(id="t", text="a red car")])
    np.testing.assert_allclose(states_TW[-1], model.embed_texts(["a red car"])[0], atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 20000), (20000, 1)])
def test_a_strip_does_not_fill_the_memory(model: OpenClipModel, size: tuple[int, int]) -> None:
    assert model.embed_pictures([Image.new("RGB", size, (9, 99, 200))]).shape == (1, 32)


def test_the_fingerprint_follows_weights_and_preprocessing(weights: Path, tmp_path: Path) -> None:
    again = OpenClipModel.from_name(f"tiny:{weights}").fingerprint
    moved = tmp_path / "renamed.safetensors"
    moved.write_bytes(weights.read_bytes())
    assert OpenClipModel.from_name(f"tiny:{moved}").fingerprint == again
    told = {"model_cfg": {}, "preprocess_cfg": {"resize_mode": "squash"}}
    moved.with_name("open_clip_config.json").write_text(json.dumps(told))
    assert OpenClipModel.from_name(f"tiny:{moved}").fingerprint != again
    assert OpenClipModel.from_name("tiny:random").fingerprint != again


def test_a_hub_tokenizer_is_read_from_beside_the_weights(weights: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", 1)]
    )
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    tmp_path.joinpath("tokenizer_config.json").write_text('{"pad_token": "<pad>"}')
    tmp_path.joinpath("w.safetensors").write_bytes(weights.read_bytes())
    model = OpenClipModel.from_name(f"tiny-hub:{tmp_path / 'w.safetensors'}")
    tokens = model._tokenizer(["red car", "red " * 40])
    assert tokens.ids_BT[0].tolist() == [3, 4, 1] + [0] * 13
    assert tokens.ids_BT[1].tolist() == [3] * 15 + [1]
    assert tokens.mask_BT.sum(axis=1).tolist() == [3, 16]


def test_weights_that_are_loaded_are_not_said_to_be_random(
    weights: Path, caplog: pytest.LogCaptureFixture
) -> None:
    OpenClipModel.from_name(f"tiny:{weights}")
    assert "random" not in caplog.text


def test_importing_it_prints_nothing_and_sets_up_no_logging() -> None:
    code = (
        "import logging; from triptych.encoders.open_clip.encoder import OpenClipModel as M;"
        "M.from_name('ViT-S-32-alt:random'); assert not logging.getLogger().handlers"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
