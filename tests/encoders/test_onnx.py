"""The default model that ships: law 2, long texts, empty batches, lazy towers, damaged files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from triptych.encoders.base import EmbeddingModel
from triptych.encoders.onnx import DEFAULT_FOLDER, OnnxModel, fingerprint
from triptych.encoders.pictures.look import Look
from triptych.encoders.runtime import onnxruntime
from triptych.errors import NotAvailable, NotFound
from triptych.types import Item, Matrix

WORDS = [
    "dog",
    "cat",
    "red",
    "blue",
    "house",
    "beach",
    "two",
    "running",
    "child",
    "snow",
    "狗",
    "कुत्ता",
    "Straße",
    "bóng",
    "😀",
    ",",
    ".",
    "car",
]


@pytest.fixture(scope="module")
def model() -> OnnxModel:
    return OnnxModel.load()


def made_up_texts(count: int) -> list[str]:
    random = np.random.default_rng(5)
    return [" ".join(random.choice(WORDS, random.integers(1, 24))) for _ in range(count)]


def made_up_pictures(count: int) -> list[Image.Image]:
    random = np.random.default_rng(6)
    small = [random.integers(0, 256, (5, 7, 3), dtype=np.uint8) for _ in range(count)]
    return [Image.fromarray(pixels).resize((120, 90)) for pixels in small]


def worst(first_NM: Matrix, second_NM: Matrix) -> float:
    return float((first_NM * second_NM).sum(axis=1).min())


def test_it_is_an_embedding_model(model: OnnxModel) -> None:
    assert isinstance(model, EmbeddingModel)
    assert "de" in model.languages


def test_a_text_alone_is_as_in_a_batch(model: OnnxModel) -> None:
    texts = made_up_texts(150)
    alone = np.concatenate([model.embed_texts([text]) for text in texts])
    assert worst(model.embed_texts(texts), alone) >= 0.9999


@pytest.mark.slow
def test_the_worst_of_ten_thousand_texts_alone_is_as_in_a_batch(model: OnnxModel) -> None:
    texts = made_up_texts(10_000)
    alone = np.concatenate([model.embed_texts([text]) for text in texts])
    assert worst(model.embed_texts(texts), alone) >= 0.9999


def test_a_text_is_the_same_in_any_company_and_padding_says_nothing(model: OnnxModel) -> None:
    texts = [" ".join(["dog"] * count) for count in range(1, 30)]
    rows = model.embed_texts(texts)
    for at, text in enumerate(texts):
        # not the same bits: an expert multiplies the tokens of all that chose it in one product
        assert np.abs(model.embed_texts([text])[0] - rows[at]).max() < 1e-6
        ids = np.asarray([model._reader.tokenizer.encode(text).ids], dtype=np.int64)
        assert np.abs(model._run("text", ids=ids)[0] - rows[at]).max() < 1e-6


def test_a_picture_alone_is_as_in_a_batch(model: OnnxModel) -> None:
    pictures = made_up_pictures(24)
    alone = np.concatenate([model.embed_pictures([picture]) for picture in pictures])
    assert worst(model.embed_pictures(pictures), alone) >= 0.9999


def test_rows_are_unit_and_in_order(model: OnnxModel) -> None:
    texts = ["a long text about a dog that runs on a beach", "cat", "a dog that runs"]
    rows = model.embed_texts(texts)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1.0, atol=1e-6)
    np.testing.assert_allclose(rows[1], model.embed_texts(["cat"])[0], atol=1e-6)


def test_empty_batches(model: OnnxModel) -> None:
    assert model.embed_texts([]).shape == (0, model.dim)
    assert model.embed_both([], []).shape == (0, model.dim)
    assert model.embed_pictures([]).shape == (0, model.dim)
    assert model.embed([]).shape == (0, model.dim)


@pytest.mark.parametrize("text", ["", "   ", "\x00", "狗", "a" * 3000])
def test_odd_texts_have_a_vector(model: OnnxModel, text: str) -> None:
    assert np.isfinite(model.embed_texts([text])).all()


def test_a_long_text_is_the_mean_of_its_segments(model: OnnxModel) -> None:
    words = ["dog"] * 254 + ["beach"] * 254
    parts = model.embed_texts([" ".join(words[:254]), " ".join(words[254:])])
    mean = parts.sum(axis=0)
    whole = model.embed_texts([" ".join(words)])[0]
    np.testing.assert_allclose(whole, mean / np.linalg.norm(mean), atol=1e-5)


def test_what_comes_after_the_last_segment_is_left_out(model: OnnxModel) -> None:
    full = " ".join(["dog"] * (254 * 32))
    rows = model.embed_texts([full, full + " beach" * 100])
    np.testing.assert_allclose(rows[0], rows[1], atol=1e-6)


def test_a_text_with_a_picture_lies_between_the_two(model: OnnxModel) -> None:
    picture = Image.new("RGB", (64, 64), "red")
    text, image = model.embed_texts(["red"])[0], model.embed_pictures([picture])[0]
    both = model.embed([Item(id="1", text="red", image=picture)])[0]
    middle = (text + image) / np.linalg.norm(text + image)
    # they see each other, so it is not just the middle; but it is nearer to both than they are
    assert both @ middle > 0.9
    assert min(both @ text, both @ image) > text @ image


def test_an_item_of_both_alone_is_as_in_a_batch(model: OnnxModel) -> None:
    texts = [text[:60] for text in made_up_texts(20)] + ["dog " * 300]
    pictures = made_up_pictures(21)
    items = [
        Item(id=str(at), text=text, image=picture)
        for at, (text, picture) in enumerate(zip(texts, pictures, strict=True))
    ]
    alone = np.concatenate([model.embed([item]) for item in items])
    assert np.abs(model.embed(items) - alone).max() < 1e-5


def test_states_and_pairs_alone_are_as_in_a_batch(model: OnnxModel) -> None:
    pictures, texts = made_up_pictures(5), made_up_texts(5)
    states = model.token_states([Item(id=str(at), image=one) for at, one in enumerate(pictures)])
    assert [one.shape for one in states] == [(model.num_patches, model.token_width)] * 5
    words = model.text_states(texts)
    for text, whole in zip(texts, words, strict=True):
        assert len(whole) == len(model._reader.tokenizer.encode(text).ids)
        np.testing.assert_allclose(model.text_states([text])[0], whole, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    scores = model.score_pairs(words[0], states)
    single = np.concatenate([model.score_pairs(words[0], [one]) for one in states])
    np.testing.assert_allclose(scores, single, atol=2e-4)


def test_a_prefix_is_a_vector_of_its_own(model: OnnxModel) -> None:
    rows = model.embed_texts(["two dogs play in the snow", "a dog in snow", "a parked car"])
    for length in (256, 128, 64):
        short = rows[:, :length] / np.linalg.norm(rows[:, :length], axis=1, keepdims=True)
        assert short[0] @ short[1] > short[0] @ short[2]


def test_words_find_colours_and_things_find_their_like(model: OnnxModel) -> None:
    rows = model.embed_texts(["two dogs play in the snow", "a dog in snow", "a parked car"])
    assert rows[0] @ rows[1] > rows[0] @ rows[2]


def test_words_alone_do_not_load_the_picture_tower() -> None:
    fresh = OnnxModel.load()
    fresh.embed_texts(["a dog"])
    assert set(fresh._sessions) == {"text"}


def test_all_places_together_are_the_picture(model: OnnxModel) -> None:
    _, squares = next(model._squares(made_up_pictures(3), Look()))
    outputs = model._outputs("image", ["read", "patches", "vectors"], pictures=squares)
    together_NM = model._run("places", read=outputs[0], patches=outputs[1])
    np.testing.assert_allclose(together_NM, outputs[2], atol=1e-6)


def test_what_a_place_loses_is_the_picture_less_what_is_left(model: OnnxModel) -> None:
    pictures = made_up_pictures(3)
    found = model.hidden_places(pictures)
    (alone,) = model.hidden_places(pictures[1:2])
    np.testing.assert_allclose(found[1], alone, atol=1e-6)
    assert alone.shape == (7, 7, model.dim)
    (whole_M,) = model.embed_pictures(pictures[1:2])
    left_PM = whole_M - alone.reshape(49, -1)
    np.testing.assert_allclose(np.linalg.norm(left_PM, axis=1), 1, atol=1e-4)
    assert np.abs(alone).max() > 1e-3
    assert model.hidden_places([]) == []


def test_a_model_of_an_earlier_form_tells_no_places(tmp_path: Path) -> None:
    shutil.copytree(DEFAULT_FOLDER, tmp_path / "model")
    description = json.loads((tmp_path / "model" / "model.json").read_text())
    known = fingerprint(description)
    del description["aside"], description["places"]
    (tmp_path / "model" / "model.json").write_text(json.dumps(description))
    (tmp_path / "model" / "places.onnx").unlink()
    earlier = OnnxModel.load(tmp_path / "model")
    assert earlier.fingerprint == known
    assert not earlier.has_places
    with pytest.raises(NotAvailable, match="places"):
        earlier.hidden_places(made_up_pictures(1))


def test_eight_bits_do_not_overflow(model: OnnxModel) -> None:
    _, squares = next(model._squares(made_up_pictures(8), Look()))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    written = onnxruntime.InferenceSession(str(DEFAULT_FOLDER / "image.onnx"), options)
    (exact_BM,) = written.run(["vectors"], {"pictures": squares})
    found_BM = model._run("image", pictures=squares)
    assert (found_BM * exact_BM).sum(axis=1).min() > 0.99


def test_the_files_are_what_the_fingerprint_says(model: OnnxModel) -> None:
    model.verify()
    assert len(model.fingerprint) == 64


def test_the_fingerprint_changes_with_a_file_and_with_the_preprocessing() -> None:
    description = json.loads((DEFAULT_FOLDER / "model.json").read_text())
    known = fingerprint(description)
    resized = description | {"image": description["image"] | {"size": 225}}
    files = {name: dict(value) for name, value in description["files"].items()}
    files["text.onnx"]["sha256"] = "0" * 64
    renamed = description | {"name": "another"}
    assert fingerprint(resized) != known
    assert fingerprint(description | {"files": files}) != known
    assert fingerprint(renamed) == known


def test_all_files_are_at_most_40_megabytes() -> None:
    assert sum(file.stat().st_size for file in DEFAULT_FOLDER.iterdir()) <= 40e6


def test_a_missing_model_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"model\.json"):
        OnnxModel.load(tmp_path)


@pytest.mark.parametrize("text", ['{"name": "cut', "[]", "{}", '{"files": {"a": 1}}'])
def test_a_cut_description_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(NotAvailable, match=r"model\.json cannot be read"):
        OnnxModel.load(tmp_path)


def test_a_cut_file_is_refused_at_once_and_a_changed_one_by_verify(tmp_path: Path) -> None:
    shutil.copytree(DEFAULT_FOLDER, tmp_path / "model")
    file = tmp_path / "model" / "shared.bin"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(NotAvailable, match=r"shared\.bin"):
        OnnxModel.load(tmp_path / "model").verify()
    file.write_bytes(data[:100])
    with pytest.raises(NotAvailable, match="100 bytes"):
        OnnxModel.load(tmp_path / "model")


@pytest.mark.parametrize("name", ["text.onnx", "tokenizer.json.gz"])
def test_a_file_that_was_overwritten_is_named(tmp_path: Path, name: str) -> None:
    shutil.copytree(DEFAULT_FOLDER, tmp_path / "model")
    file = tmp_path / "model" / name
    file.write_bytes(b"\xff" * file.stat().st_size)
    with pytest.raises(NotAvailable, match=rf"{name} of the model is damaged"):
        OnnxModel.load(tmp_path / "model").embed_texts(["a dog"])


def test_half_a_character_is_read_as_an_unreadable_one(model: OnnxModel) -> None:
    halves = ["a dog \udcff", "\ud83d\ude00", "\ud800"]
    whole = ["a dog \ufffd", "\U0001f600", "\ufffd"]
    np.testing.assert_array_equal(model.embed_texts(halves), model.embed_texts(whole))
    half, whole_one = (model.text_states([f"a {end}"])[0] for end in ("\ud800", "\ufffd"))
    np.testing.assert_array_equal(half, whole_one)


def test_the_runtime_sends_nothing_and_notes_no_device(tmp_path: Path) -> None:
    # where these are set it is silent by itself
    silent = {"CI", "GITHUB_ACTIONS", "TF_BUILD", "ORT_DISABLE_TELEMETRY", "XDG_CACHE_HOME"}
    environ = {name: value for name, value in os.environ.items() if name not in silent}
    code = "from triptych.encoders.onnx import OnnxModel; OnnxModel.load().embed_texts(['a dog'])"
    environ |= {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run([sys.executable, "-c", code], check=True, env=environ, cwd=tmp_path)
    assert not list(tmp_path.rglob("*"))
