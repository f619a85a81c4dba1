"""The smoke recipe: a whole run on made-up data, and one that was interrupted."""

from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file

from triptych.training import recipes
from triptych.training.build import prepare
from triptych.training.evaluate import mixed, ranks, recall
from triptych.training.loop import Schedule, Trainer
from triptych.training.made_up import write_data
from triptych.training.pipeline import run

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made_up")
    write_data(folder)
    return folder


@pytest.mark.slow
def test_a_run_ends_with_an_artefact_that_agrees_with_torch(data: Path, tmp_path: Path) -> None:
    report = run(recipes.smoke(), data=data, out=tmp_path)
    for side in ("text", "image"):
        assert report["parity_float32"][side] >= 0.999
        assert report["alone_float32"][f"{side}_difference"] <= 1e-5
        assert report["alone_eight_bits"][side] >= 0.9999
    names = {file.name for file in (tmp_path / "artefact").iterdir()}
    assert names == {"text.onnx", "image.onnx", "tokenizer.json", "model.json", "MODEL_CARD.md"}
    assert (tmp_path / "loss.png").stat().st_size > 1000


@pytest.mark.slow
def test_an_interrupted_run_is_the_same_bit_for_bit(data: Path, tmp_path: Path) -> None:
    recipe = replace(recipes.smoke(), steps=4)
    _train(recipe, data=data, folder=tmp_path / "whole", stops=(4,))
    _train(recipe, data=data, folder=tmp_path / "parts", stops=(2,))
    _train(recipe, data=data, folder=tmp_path / "parts", stops=(4,))
    whole = load_file(tmp_path / "whole" / "checkpoint.safetensors")
    parts = load_file(tmp_path / "parts" / "checkpoint.safetensors")
    assert whole.keys() == parts.keys()
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def _train(recipe: recipes.Recipe, *, data: Path, folder: Path, stops: tuple[int, ...]) -> None:
    folder.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    ground = prepare(recipe, data=data, work=folder)
    sources = {name: ground.sources[name] for name in recipe.mixture}
    trainer = Trainer(
        recipe, towers=ground.towers, tokenizer=ground.tokenizer, sources=sources, folder=folder
    )
    for stop in stops:
        trainer.run(until=stop)


def test_an_epoch_sees_every_row_once() -> None:
    recipe = replace(recipes.smoke(), steps=9, batch=4, mixture={"flickr8k": 1.0})
    schedule = Schedule(recipe, sizes={"flickr8k": 12})
    drawn = [schedule.draw(step)[1] for step in range(9)]
    for epoch in range(3):
        rows = [row for part in drawn[3 * epoch : 3 * epoch + 3] for row in part]
        assert sorted(rows) == list(range(12))


def test_recall_counts_the_first_right_answer() -> None:
    np = pytest.importorskip("numpy")
    scores_QN = np.asarray([[0.9, 0.5, 0.1], [0.2, 0.8, 0.9]], dtype=np.float32)
    right_QN = np.asarray([[False, True, True], [False, False, True]])
    found = ranks(scores_QN, right_QN=right_QN)
    assert found.tolist() == [1, 0]
    assert recall(found, at=1) == 50.0


def test_mixed_sees_a_gap_between_the_modalities() -> None:
    np = pytest.importorskip("numpy")
    photos_NM = np.tile([1.0, 0.0], (20, 1)).astype(np.float32)
    texts_TM = np.tile([0.0, 1.0], (40, 1)).astype(np.float32)
    figures = mixed(photos_NM, texts_TM=texts_TM, owners_T=np.arange(40) // 2)
    assert figures == {"mixed_both": 0.0, "mixed_photos": 0.0}
