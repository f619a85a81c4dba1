"""The graphs against torch, with weights that are all at work (nothing starts at zero here)."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from triptych.encoders.cross_modal.fusion import CrossModalConfig  # noqa: E402
from triptych.encoders.hubness import Hubness, HubnessConfig  # noqa: E402
from triptych.encoders.runtime import open_session  # noqa: E402
from triptych.encoders.scorers.token_matcher import TokenMatcherConfig  # noqa: E402
from triptych.encoders.towers.mobilenet import IMAGE_SIZE, MobileNet  # noqa: E402
from triptych.encoders.towers.states import TokenStates  # noqa: E402
from triptych.encoders.towers.transformer import Transformer, TransformerConfig  # noqa: E402
from triptych.model import JointConfig, JointModel  # noqa: E402
from triptych.moe.layer import MoEConfig  # noqa: E402
from triptych.training.export import shared  # noqa: E402
from triptych.training.export.fusion import both_model, pair_model  # noqa: E402
from triptych.training.export.picture import picture_model, places_model  # noqa: E402
from triptych.training.export.rounding import Rounding, measured  # noqa: E402
from triptych.training.export.text import text_model  # noqa: E402
from triptych.training.made_up import write_data  # noqa: E402

WIDTH = 64


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> JointModel:
    folder = tmp_path_factory.mktemp("made_up")
    write_data(folder)
    torch.manual_seed(3)
    text = Transformer(
        TransformerConfig(vocabulary=50, width=WIDTH, num_layers=2, num_heads=4, hidden=96)
    )
    config = JointConfig(
        dim=80,
        width=WIDTH,
        fusion=CrossModalConfig(
            text_width=WIDTH, picture_width=WIDTH, width=32, num_heads=4, hidden=48, num_latents=4
        ),
        moe=MoEConfig(width=WIDTH, hidden=16, num_experts=16),
        scorer=TokenMatcherConfig(text_width=WIDTH, width=32),
    )
    trunk = MobileNet.read(folder / "mobilenet_edgetpu.safetensors")
    joint = JointModel(config, text=text, picture=trunk)
    with torch.no_grad():
        for parameter in joint.parameters():
            if not parameter.any():
                parameter.normal_(std=0.05)
    joint.hubness = hubs(80)
    return joint.eval()


def hubs(dim: int) -> Hubness:
    hubness = Hubness(HubnessConfig(num_centres=6), dim=dim)
    for bank in (hubness.texts, hubness.pictures):
        bank.centres_KM.copy_(torch.nn.functional.normalize(torch.randn(6, dim), dim=-1))
        bank.log_shares_K.copy_(torch.randn(6).log_softmax(dim=0))
        bank.typical.fill_(0.1)
    return hubness


@pytest.fixture(scope="module")
def folder(model: JointModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("graphs")
    graphs = {
        "text": text_model(model, quantised=False),
        "image": picture_model(model, rounding=None),
        "places": places_model(model, quantised=False),
        "both": both_model(model, quantised=False),
        "pair": pair_model(model),
    }
    shared.save(graphs, out)
    return out


def run(folder: Path, graph: str, output: str, **inputs: np.ndarray) -> np.ndarray:
    return open_session(folder / f"{graph}.onnx", threads=1).run([output], inputs)[0]


IDS = np.asarray([[1, 7, 9, 11, 2], [1, 30, 31, 4, 2], [1, 8, 8, 8, 2]])


def pictures() -> np.ndarray:
    draw = np.random.default_rng(0)
    return draw.integers(0, 256, (3, IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)


def states(model: JointModel) -> tuple[TokenStates, TokenStates]:
    ids = torch.from_numpy(IDS)
    pixels = torch.from_numpy(pictures()).float() / 127.5 - 1
    return model.read(ids, ids != 0), model.look(pixels.permute(0, 3, 1, 2))


@pytest.mark.parametrize("side", ["text", "image", "both"])
def test_a_vector_is_torchs(model: JointModel, folder: Path, side: str) -> None:
    with torch.inference_mode():
        text, picture = states(model)
        expected = {
            "text": lambda: model(text, None),
            "image": lambda: model(None, picture),
            "both": lambda: model(text, picture),
        }[side]().emb_BM.numpy()
    read_text = run(folder, "text", "read", ids=IDS)
    read_picture = run(folder, "image", "read", pictures=pictures())
    found = {
        "text": lambda: run(folder, "text", "vectors", ids=IDS),
        "image": lambda: run(folder, "image", "vectors", pictures=pictures()),
        "both": lambda: run(folder, "both", "vectors", text=read_text, picture=read_picture),
    }[side]()
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_byte_means_the_same_to_a_convolution_in_eight_bits(
    model: JointModel, folder: Path, tmp_path: Path
) -> None:
    def read(graphs: Path, byte: int) -> np.ndarray:
        alike = np.full((1, IMAGE_SIZE, IMAGE_SIZE, 3), byte, dtype=np.uint8)
        return run(graphs, "image", "read", pictures=alike)

    # without ranges of layers only the first has weights in eight bits, and 128 counts as 0 there
    shared.save({"image": picture_model(model, rounding=Rounding(ranges={}))}, tmp_path)
    a_step = np.abs(read(folder, 128) - read(folder, 127)).mean()
    assert np.abs(read(tmp_path, 128) - read(folder, 128)).mean() < 0.2 * a_step


def test_rounding_shifts_no_channel_in_the_mean(
    model: JointModel, folder: Path, tmp_path: Path
) -> None:
    pixels = torch.from_numpy(pictures()).float().permute(0, 3, 1, 2) / 127.5 - 1
    corrected = measured(model.picture, [pixels])
    exact_C = run(folder, "image", "read", pictures=pictures()).mean(axis=(0, 1))
    shifts = {}
    for name, rounding in (("as they are", replace(corrected, biases={})), ("moved", corrected)):
        (tmp_path / name).mkdir()
        shared.save({"image": picture_model(model, rounding=rounding)}, tmp_path / name)
        mean_C = run(tmp_path / name, "image", "read", pictures=pictures()).mean(axis=(0, 1))
        shifts[name] = np.abs(mean_C - exact_C).mean()
    assert shifts["moved"] < 0.5 * shifts["as they are"]


def test_some_places_give_what_torch_makes_of_them_alone(model: JointModel, folder: Path) -> None:
    kept = slice(5, 40)
    with torch.inference_mode():
        _, picture = states(model)
        some = TokenStates(*(part[:, kept] for part in picture))
        expected = model(None, some).emb_BM.numpy()
    found = run(
        folder,
        "places",
        "vectors",
        read=run(folder, "image", "read", pictures=pictures())[:, kept],
        patches=run(folder, "image", "patches", pictures=pictures())[:, kept],
    )
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_the_sides_see_each_other(model: JointModel) -> None:
    with torch.inference_mode():
        text, picture = states(model)
        both = model(text, picture).emb_BM
        apart = model(text, None).emb_BM + model(None, picture).emb_BM
    assert float((both - torch.nn.functional.normalize(apart, dim=-1)).abs().max()) > 1e-3


def test_a_score_is_torchs(model: JointModel, folder: Path) -> None:
    with torch.inference_mode():
        text, picture = states(model)
        expected = model.score(text, picture).numpy()
    words = run(folder, "text", "states", ids=IDS)
    patches = run(folder, "image", "states", pictures=pictures())
    for at, expected_N in enumerate(expected):
        found = run(folder, "pair", "scores", text=words[at : at + 1], picture=patches)
        np.testing.assert_allclose(found, expected_N, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("side", ["text", "image", "both"])
def test_the_load_is_what_torch_routes(model: JointModel, folder: Path, side: str) -> None:
    with torch.inference_mode():
        text, picture = states(model)
        sides = {"text": (text, None), "image": (None, picture), "both": (text, picture)}[side]
        out = model(*sides)
    assert out.moe is not None
    inputs = {
        "text": {"ids": IDS},
        "image": {"pictures": pictures()},
        "both": {"text": text.tokens_BTD.numpy(), "picture": picture.tokens_BTD.numpy()},
    }[side]
    load_E = run(folder, side, "load", **inputs)
    assert load_E.sum() > 0 and (load_E == load_E.round()).all()
    np.testing.assert_allclose(load_E, out.moe.load_E.numpy())


def test_padding_changes_no_vector(model: JointModel, folder: Path) -> None:
    longer = np.concatenate([IDS, np.zeros((3, 4), dtype=np.int64)], axis=1)
    np.testing.assert_allclose(
        run(folder, "text", "vectors", ids=longer),
        run(folder, "text", "vectors", ids=IDS),
        atol=1e-5,
    )


def test_what_two_graphs_hold_is_written_once(folder: Path) -> None:
    # the experts, of both graphs that use them on pictures, and the text's
    experts = 16 * 16 * WIDTH * 4
    whole = sum(file.stat().st_size for file in folder.iterdir())
    assert (folder / shared.FILE).stat().st_size >= 2 * experts
    assert (folder / "both.onnx").stat().st_size < whole / 4
