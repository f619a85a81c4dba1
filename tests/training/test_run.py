"""The smoke recipe: a whole run on made-up data, and one that was interrupted."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from triptych.errors import InvalidInput
from triptych.pairs import Row
from triptych.training import recipes
from triptych.training.batches import Schedule, Source
from triptych.training.build import TrainingContext, prepare
from triptych.training.checkpoint import load
from triptych.training.evaluate import captioned, mixed, ranks, recall
from triptych.training.loop import Trainer
from triptych.training.made_up import write_data
from triptych.training.objective import Terms
from triptych.training.pipeline import run
from triptych.training.sparsity import SparsityConfig
from triptych.training.terms import BatchTerms

torch = pytest.importorskip("torch")

# an event after each of four steps: two that cut, one that moves
SPARSITY = SparsityConfig(dense_until=0.25, every=0.25, cut=0.5, move_until=1.0, by_shape=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made_up")
    write_data(folder)
    rows = pq.read_table(folder / "flickr8k.parquet").to_pylist()
    first = next(row for row in rows if row["split"] == "dev")
    first["texts"][0] = "a blue square " * 40  # more than training reads of a text
    pq.write_table(pa.Table.from_pylist(rows), folder / "flickr8k.parquet")
    return folder


@pytest.mark.slow
def test_a_run_ends_with_an_artefact_that_agrees_with_torch(data: Path, tmp_path: Path) -> None:
    stages = recipes.smoke()
    report = run(stages, data=data, out=tmp_path, name="smoke")
    for side in ("text", "image", "both"):
        assert report["parity_float32"][side] >= 0.999
    assert report["parity_float32"]["pair"] <= 0.01
    for side in ("text", "image"):
        assert report["alone_float32"][f"{side}_difference"] <= 1e-5
        assert report["alone_eight_bits"][side] >= 0.9999
    names = {file.name for file in (tmp_path / "artefact").iterdir()}
    graphs = {"text.onnx", "image.onnx", "both.onnx", "pair.onnx", "places.onnx", "shared.bin"}
    assert names == graphs | {"tokenizer.json.gz", "model.json", "MODEL_CARD.md"}
    for stage in stages:
        assert (tmp_path / f"{stage.name}.png").stat().st_size > 1000
        assert list((tmp_path / stage.name / "tensorboard").iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base", "joint", "pairs", "sparse"])
def test_an_interrupted_run_is_the_same_bit_for_bit(data: Path, tmp_path: Path, name: str) -> None:
    stages = {stage.name: stage for stage in recipes.smoke()}
    stage = stages.get(name) or replace(stages["joint"], name=name, sparsity=SPARSITY, kept=0.4)
    _train(stage, data=data, folder=tmp_path / "whole", stops=(4,))
    _train(stage, data=data, folder=tmp_path / "parts", stops=(2,))
    _train(stage, data=data, folder=tmp_path / "parts", stops=(4,))
    whole, parts = load(tmp_path / "whole"), load(tmp_path / "parts")
    assert whole is not None and parts is not None
    assert whole.step == parts.step == 4 and whole.numbers == parts.numbers
    assert whole.tensors.keys() == parts.tensors.keys()
    assert all(torch.equal(whole.tensors[key], parts.tensors[key]) for key in whole.tensors)


@pytest.mark.slow
def test_a_sparse_stage_ends_with_zeros_where_its_masks_are(data: Path, tmp_path: Path) -> None:
    stage = next(stage for stage in recipes.smoke() if stage.name == "joint")
    recipe = replace(stage, name="sparse", sparsity=SPARSITY, kept=0.4)
    trainer = _train(recipe, data=data, folder=tmp_path, stops=(4,))
    assert trainer.sparsity is not None
    assert trainer.sparsity.density() == pytest.approx(0.3, abs=1e-4)
    masks, result = trainer.sparsity.masks, trainer.result()
    assert {name.split(".")[0] for name in masks} == {
        *("head", "fusion", "moe", "leave_text", "leave_picture")
    }
    for name, mask in masks.items():
        assert not result[name][~mask].any()
        assert not trainer.model.get_parameter(name)[~mask].any()
    least, whole = (
        masks[name] for name in ("moe.experts.widen_EDH", "fusion.spatial.of_text.weight")
    )
    assert float(least.float().mean()) < 0.3 < float(whole.float().mean())


def _train(recipe: recipes.Recipe, *, data: Path, folder: Path, stops: tuple[int, ...]) -> Trainer:
    torch.set_num_threads(1)
    ground = prepare(recipe, data=data, work=folder)
    for stop in stops:
        trainer = _trainer(recipe, ground, folder=folder)
        trainer.train(measure=lambda: {"right": 1.0}, until=stop)
    return trainer


def _trainer(
    recipe: recipes.Recipe,
    ground: TrainingContext,
    *,
    folder: Path,
    sources: Mapping[str, Source] | None = None,
) -> Trainer:
    return Trainer(
        recipe,
        model=ground.model(recipe.model, seed=recipe.seed),
        tokenizer=ground.tokenizer,
        sources=sources or ground.sources,
        folder=folder,
    )


@pytest.mark.slow
def test_it_stops_when_nothing_gets_better_and_ends_with_the_best(
    data: Path, tmp_path: Path
) -> None:
    recipe = replace(recipes.smoke()[1], steps=12, eval_every=1, patience=2)
    ground = prepare(recipe, data=data, work=tmp_path)
    figures = iter([1.0, 3.0, 2.0, float("nan")])
    measured: list[dict[str, torch.Tensor]] = []

    first = _trainer(recipe, ground, folder=tmp_path)

    def measure() -> dict[str, float]:
        measured.append({name: value.clone() for name, value in first.averaged().items()})
        return {"right": next(figures)}

    first.train(measure=measure)
    assert first.step == 4 and first.best == 3.0
    for ended in (first, _trainer(recipe, ground, folder=tmp_path)):  # from the checkpoint
        result = ended.result()
        assert result.keys() == measured[1].keys()
        assert all(torch.equal(result[name], measured[1][name]) for name in result)
        assert any(not torch.equal(result[name], measured[3][name]) for name in result)


@pytest.mark.slow
def test_a_run_does_not_go_on_with_other_classes(data: Path, tmp_path: Path) -> None:
    recipe = replace(recipes.smoke()[0], steps=1, eval_every=1, classified=("flickr8k",))
    ground = prepare(recipe, data=data, work=tmp_path)
    source = ground.sources["flickr8k"]

    def trainer(num_classes: int) -> Trainer:
        rows = [replace(row, label=f"{at % num_classes}") for at, row in enumerate(source.rows)]
        sources = {**ground.sources, "flickr8k": replace(source, rows=rows)}
        return _trainer(recipe, ground, folder=tmp_path, sources=sources)

    trainer(3).save()
    assert trainer(3).step == 0
    with pytest.raises(InvalidInput, match=r"other data .*prototypes\.flickr8k"):
        trainer(2)


@pytest.mark.slow
def test_the_result_keeps_a_share_of_what_it_began_with(data: Path, tmp_path: Path) -> None:
    recipe = replace(recipes.smoke()[0], kept=0.4)
    trainer = _train(recipe, data=data, folder=tmp_path, stops=(4,))
    name = "head.mean.weight"
    moved, began = trainer.average[name], trainer.began[name]
    assert not torch.equal(moved, began)
    torch.testing.assert_close(trainer.averaged()[name], 0.6 * moved + 0.4 * began)


def test_a_gradient_that_is_not_finite_moves_nothing(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipes.smoke()[0]
    trainer = _trainer(recipe, prepare(recipe, data=data, work=tmp_path), folder=tmp_path)
    weight = trainer.model.head.mean.weight
    before = weight.detach().clone()

    def flat(*_: object, **__: object) -> BatchTerms:  # a loss of 0, its slope is 0 x infinity
        return BatchTerms(Terms(contrastive=(0 * weight).sum().sqrt()), None, 0.0)

    monkeypatch.setattr("triptych.training.loop.terms_of", flat)
    with pytest.raises(InvalidInput, match=r"Step 1, on \w+, has a gradient"):
        trainer.train(measure=dict)
    assert torch.equal(weight, before) and load(tmp_path) is None


def test_an_epoch_sees_every_row_once() -> None:
    schedule = Schedule(mixture={"a": 1.0}, sizes={"a": 12}, steps=9, batch=4, seed="7")
    drawn = [schedule.draw(step)[1] for step in range(9)]
    for epoch in range(3):
        rows = [row for part in drawn[3 * epoch : 3 * epoch + 3] for row in part]
        assert sorted(rows) == list(range(12))


def test_every_set_has_its_share_of_the_steps_all_along() -> None:
    mixture, sizes = {"a": 0.5, "b": 0.3, "c": 0.2, "gone": 0.5}, {"a": 9, "b": 9, "c": 9}
    schedule = Schedule(mixture=mixture, sizes=sizes, steps=100, batch=4, seed="7")
    drawn = [schedule.draw(step)[0] for step in range(100)]
    for end in range(1, 101):
        for name in sizes:
            assert abs(drawn[:end].count(name) - mixture[name] * end) <= 1


def test_no_stage_sees_the_batches_of_another(data: Path, tmp_path: Path) -> None:
    heads, towers = recipes.smoke()[:2]
    ground = prepare(heads, data=data, work=tmp_path)
    orders = []
    for stage in (heads, towers):
        trainer = _trainer(stage, ground, folder=tmp_path / stage.name)
        orders.append([trainer.schedule.draw(step) for step in range(stage.steps)])
    names, rows = ([[one[part] for one in order] for order in orders] for part in (0, 1))
    assert names[0] == names[1] and rows[0] != rows[1]


def test_recall_counts_the_first_right_answer() -> None:
    np = pytest.importorskip("numpy")
    scores_QN = np.asarray([[0.9, 0.5, 0.1], [0.2, 0.8, 0.9]], dtype=np.float32)
    right_QN = np.asarray([[False, True, True], [False, False, True]])
    found = ranks(scores_QN, right_QN=right_QN)
    assert found.tolist() == [1, 0]
    assert recall(found, at=1) == 50.0


def test_of_equal_scores_the_earlier_row_comes_first() -> None:
    np = pytest.importorskip("numpy")
    scores_QN = np.full((3, 4), 0.5, dtype=np.float32)
    right_QN = np.eye(4, dtype=bool)[[0, 2, 3]]
    assert ranks(scores_QN, right_QN=right_QN).tolist() == [0, 2, 3]


def test_mixed_sees_a_gap_between_the_modalities() -> None:
    np = pytest.importorskip("numpy")
    photos_NM = np.tile([1.0, 0.0], (20, 1)).astype(np.float32)
    texts_TM = np.tile([0.0, 1.0], (40, 1)).astype(np.float32)
    figures = mixed(photos_NM, texts_TM=texts_TM, owners_T=np.arange(40) // 2)
    assert figures == {"mixed_both": 0.0, "mixed_photos": 0.0}


@pytest.mark.parametrize("counts", [[5, 1], [5] * 10 + [1] * 3, [2] * 5, [1] * 4])
def test_captions_are_measured_however_many_each_photo_has(counts: list[int]) -> None:
    np = pytest.importorskip("numpy")
    rows = [
        Row(id=str(at), split="dev", image=b"", texts=(f"{at}",) * count, label="", attributes={})
        for at, count in enumerate(counts)
    ]
    emb_NM = np.eye(len(rows), dtype=np.float32)
    found = captioned(emb_NM, rows=rows, embed=lambda texts: emb_NM[[*map(int, texts)]])
    assert found["t2i@1"] == found["i2t@1"] == 100.0
    assert ("mixed_both" in found) == (counts.count(5) > 5)
