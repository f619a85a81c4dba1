"""Other languages by what the model knows of English: what a step does."""

from dataclasses import replace
from pathlib import Path

import pyarrow as arrow
import pyarrow.parquet as parquet
import pytest

from triptych.errors import InvalidInput
from triptych.training import recipes
from triptych.training.build import TrainingContext, prepare
from triptych.training.checkpoint import load
from triptych.training.embed import embed_texts
from triptych.training.languages import LanguagesConfig
from triptych.training.loop import Trainer
from triptych.training.made_up import write_data

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made_up")
    write_data(folder)
    record = {"split": "train", "image": None, "label": "nl", "attributes": "{}"}
    words = {"vierkant": "square", "rood": "red", "blauw": "blue", "nummer": "number"}
    rows = [record | {"id": word, "texts": [word, meaning]} for word, meaning in words.items()]
    parquet.write_table(arrow.Table.from_pylist(rows), folder / "dictionaries.parquet")
    return folder


def stage() -> recipes.Recipe:
    config = LanguagesConfig(names=8, words=8, captions=4, english=2, held=8, articles=0.0)
    small = recipes.smoke()[-1]
    return replace(
        small, name="languages", scorer_only=False, languages=config, steps=6, lr_text=3e-4,
        lr_words=3e-3, train_text=True,
    )  # fmt: skip


def trainer_of(context: TrainingContext, folder: Path) -> Trainer:
    return Trainer(
        stage(),
        model=context.model(stage().model, seed=7),
        tokenizer=context.tokenizer,
        sources=context.sources,
        folder=folder,
        lexicon=context.lexicon,
    )


@pytest.mark.slow
def test_the_text_tower_alone_learns_and_english_stays(data: Path, tmp_path: Path) -> None:
    recipe = replace(stage(), steps=40, eval_every=40, ema=0.5)
    context = prepare(recipe, data=data, work=tmp_path)
    model = context.model(recipe.model, seed=1)
    before = {name: value.clone() for name, value in model.state_dict().items()}

    def vectors(*texts: str) -> torch.Tensor:
        return embed_texts(model.eval(), context.tokenizer, texts)

    asked, meant = ("vierkant", "rood"), ("square", "red")
    was, english = (vectors(*asked) * vectors(*meant)).sum(1), vectors("a blue square", "red")
    trainer = Trainer(
        recipe,
        model=model,
        tokenizer=context.tokenizer,
        sources=context.sources,
        folder=tmp_path,
        lexicon=context.lexicon,
    )
    trainer.train(measure=dict)
    model.load_state_dict(trainer.result())
    moved = {name for name, value in model.state_dict().items() if not value.equal(before[name])}
    assert moved and all(name.startswith("text.") for name in moved)
    apart = (vectors(*asked) * vectors(*meant)).sum(1)
    assert (was < 0.8).all() and (apart > 0.95).all()
    assert ((vectors("a blue square", "red") * english).sum(1) > 0.95).all()


@pytest.mark.slow
def test_an_interrupted_run_is_the_same_bit_for_bit(data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    for folder, stops in (("whole", (6,)), ("parts", (2, 6))):
        for stop in stops:
            trainer = trainer_of(prepare(stage(), data=data, work=tmp_path), tmp_path / folder)
            trainer.train(measure=lambda: {"right": 1.0}, until=stop)
    whole, parts = load(tmp_path / "whole"), load(tmp_path / "parts")
    assert whole is not None and parts is not None and whole.step == parts.step == 6
    assert all(torch.equal(whole.tensors[key], parts.tensors[key]) for key in whole.tensors)


@pytest.mark.slow
def test_without_dictionaries_the_emoji_are_learnt_from(tmp_path: Path) -> None:
    write_data(tmp_path)
    trainer = trainer_of(prepare(stage(), data=tmp_path, work=tmp_path), tmp_path / "stage")
    trainer.train(measure=dict, until=1)
    assert trainer.step == 1


def test_sets_without_other_languages_are_told(tmp_path: Path) -> None:
    write_data(tmp_path)
    (tmp_path / "emoji.parquet").unlink()
    context = prepare(stage(), data=tmp_path, work=tmp_path)
    with pytest.raises(InvalidInput, match="neither emoji nor dictionaries is there"):
        trainer_of(context, tmp_path / "stage")
