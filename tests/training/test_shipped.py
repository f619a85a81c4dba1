"""The model in the package, read back into torch: it embeds as it does shipped, and can be trained."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from PIL import Image  # noqa: E402

from triptych.encoders.base import unit_rows  # noqa: E402
from triptych.encoders.onnx import DEFAULT_FOLDER, OnnxModel  # noqa: E402
from triptych.encoders.text_reader import read_tokenizer  # noqa: E402
from triptych.encoders.towers.states import TokenStates  # noqa: E402
from triptych.errors import InvalidInput  # noqa: E402
from triptych.model import JointModel  # noqa: E402
from triptych.training import shipped  # noqa: E402
from triptych.training.batches import read_texts, text_ids  # noqa: E402
from triptych.training.export import shared  # noqa: E402
from triptych.training.export.fusion import both_model, pair_model  # noqa: E402
from triptych.training.export.picture import picture_model  # noqa: E402
from triptych.training.export.rounding import Rounding, measured_ranges  # noqa: E402
from triptych.training.export.text import text_model  # noqa: E402
from triptych.training.features import squash, to_pixels  # noqa: E402
from triptych.training.made_up import write_data  # noqa: E402
from triptych.training.pipeline import run  # noqa: E402
from triptych.training.recipes import JOINT, more  # noqa: E402

TEXTS = ["two dogs run over a beach", "ein roter Schuh", "a man climbs an icy rock in the morning"]


@pytest.fixture(scope="module")
def model() -> JointModel:
    return filled(DEFAULT_FOLDER)


def filled(folder: Path) -> JointModel:
    parts = shipped.text_tower(shipped.words(folder)), shipped.picture_tower(folder)
    model = JointModel(JOINT, text=parts[0], picture=parts[1])
    shipped.fill(model, folder)
    return model.eval()


def pictures() -> list[Image.Image]:
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    return [Image.fromarray(one).resize((300, 200), Image.Resampling.BICUBIC) for one in coarse]


def pixels() -> "torch.Tensor":
    return to_pixels(np.stack([np.asarray(squash(one)) for one in pictures()]))


def states(model: JointModel) -> tuple[TokenStates, TokenStates]:
    ids = text_ids(read_tokenizer(DEFAULT_FOLDER), TEXTS)
    return read_texts(model, ids), model.look(pixels())


def without_hubs(vectors_NM: np.ndarray) -> np.ndarray:
    """What is beside the two numbers that tell of hubs."""
    return unit_rows(vectors_NM[:, 2:])


def test_it_embeds_in_torch_as_it_does_shipped(model: JointModel) -> None:
    as_shipped = OnnxModel.load(DEFAULT_FOLDER)
    with torch.inference_mode():
        text, picture = states(model)
        given = {"text": (text, None), "image": (None, picture), "both": (text, picture)}
        found = {side: model(*both).emb_BM.numpy()[:, :-2] for side, both in given.items()}
    expected = {
        "text": as_shipped.embed_texts(TEXTS),
        "image": as_shipped.embed_pictures(pictures()),
        "both": as_shipped.embed_both(TEXTS, pictures()),
    }
    for side, least in {"text": 0.9999, "image": 0.98, "both": 0.98}.items():
        cosines = (unit_rows(found[side]) * without_hubs(expected[side])).sum(axis=1)
        assert cosines.min() > least, side


def test_it_scores_pairs_as_it_does_shipped(model: JointModel) -> None:
    as_shipped = OnnxModel.load(DEFAULT_FOLDER)
    words, patches = as_shipped.text_states(TEXTS[:1])[0], as_shipped.picture_states(pictures())
    assert model.scorer is not None
    with torch.inference_mode():
        scores_1N = model.scorer(loaded([words]), loaded(patches)).numpy()
    np.testing.assert_allclose(scores_1N[0], as_shipped.score_pairs(words, patches), atol=1e-3)


def loaded(rows: list[np.ndarray]) -> TokenStates:
    tokens = torch.from_numpy(np.stack(rows))
    return TokenStates(tokens, torch.ones(tokens.shape[:2], dtype=torch.bool))


def test_what_is_written_again_is_read_the_same(model: JointModel, tmp_path: Path) -> None:
    # with biases as they are: corrected ones would be read as such
    rounding = Rounding(ranges=measured_ranges(model.picture, [pixels()]))
    graphs = {
        "text": text_model(model, quantised=True),
        "image": picture_model(model, rounding=rounding),
        "both": both_model(model, quantised=True),
        "pair": pair_model(model),
    }
    shared.save(graphs, tmp_path)
    again = filled(tmp_path).state_dict()
    for name, value in model.state_dict().items():
        if name == "log_scale":  # no graph needs it
            continue
        # a convolution's bias is counted in steps of its weight's and its input's, a few thousandths
        atol = 0.02 if name.endswith("bias") and ".convs." in name else 2e-4
        torch.testing.assert_close(again[name], value, atol=atol, rtol=2e-3, msg=name)


@pytest.mark.slow
def test_it_is_taught_further_with_nothing_but_pairs(tmp_path: Path) -> None:
    pairs = tmp_path / "pairs.parquet"
    write_data(tmp_path / "made-up")
    shutil.move(tmp_path / "made-up/flickr8k.parquet", pairs)
    stages = [replace(stage.at_most(2), batch=8, views={}, threads=1) for stage in more()]
    report = run(tuple(stages), data=pairs, out=tmp_path / "out", name="mine")
    assert report["parity_float32"]["text"] >= 0.999
    assert report["sets"] == {"pairs": 16}
    assert {"pairs.t2i@1", "rerank@1"} <= report["dev_eight_bits"].keys()
    card = (tmp_path / "out/artefact/MODEL_CARD.md").read_text("utf-8")
    assert card.startswith("# mine\n") and "| pairs: 16 | pairs | not known here |" in card
    assert shipped.name_of(DEFAULT_FOLDER) in card and "Flickr8k, photos" not in card
    before, after = (OnnxModel.load(at) for at in (DEFAULT_FOLDER, tmp_path / "out" / "artefact"))
    moved = (without_hubs(before.embed_texts(TEXTS)) * without_hubs(after.embed_texts(TEXTS))).sum(
        1
    )
    assert moved.min() > 0.9  # a little, and from there
    assert before.fingerprint != after.fingerprint
    assert after.pair_weight == max(report["rerank"], key=lambda weight: report["rerank"][weight])


def test_one_that_is_built_otherwise_is_refused() -> None:
    text = shipped.text_tower(shipped.words(DEFAULT_FOLDER))
    picture = shipped.picture_tower(DEFAULT_FOLDER)
    other = JointModel(replace(JOINT, dim=256), text=text, picture=picture)
    with pytest.raises(InvalidInput, match="built otherwise"):
        shipped.fill(other, DEFAULT_FOLDER)
