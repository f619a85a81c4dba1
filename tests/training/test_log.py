"""What a run leaves to look at: lines of JSON, TensorBoard's files, curves."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("tensorboardX")
pytest.importorskip("matplotlib")

from triptych.training.log import FIGURES, LINES, RunLog, draw_curves, read_log

TERMS = {"contrastive": 2.0, "classification": 1.0, "sparsity": 0.1, "regularisation": 0.2}


def tell(folder: Path, *, done: int, steps: int, loss: float) -> None:
    log = RunLog(folder, steps=10, done=done)
    for step in range(done + 1, steps + 1):
        log.step(step, {"set": "flickr8k", "loss": loss, "num_active": 3.2, **TERMS})
    log.figures(steps, {"flickr8k.t2i@1": 20.0})
    log.close()


def test_a_run_that_goes_on_counts_its_steps_once_and_the_later_ones(tmp_path: Path) -> None:
    folder = tmp_path / "joint"
    folder.mkdir()
    tell(folder, done=0, steps=4, loss=3.0)
    tell(folder, done=2, steps=5, loss=1.0)
    lines = read_log(folder / LINES)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5]
    assert [line["loss"] for line in lines] == [3.0, 3.0, 1.0, 1.0, 1.0]
    assert [line["step"] for line in read_log(folder / FIGURES)] == [4, 5]
    assert any((folder / "tensorboard").iterdir())
    assert read_log(folder / "none.jsonl") == []


def test_the_curves_are_a_picture(tmp_path: Path) -> None:
    tell(tmp_path, done=0, steps=4, loss=3.0)
    draw_curves(tmp_path, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.size[0] > 800 and len(set(picture.convert("L").tobytes())) > 50


def test_the_bar_stands_where_the_run_stood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    tell(tmp_path, done=6, steps=8, loss=1.0)
    assert "8/10" in capsys.readouterr().err


def test_a_torn_line_costs_no_more_than_itself(tmp_path: Path) -> None:
    path = tmp_path / LINES
    path.write_text('{"step": 1}\n{"step": 2, "lo{"step": 3}\n{"step": 4}\n', encoding="utf-8")
    assert [line["step"] for line in read_log(path)] == [1, 4]
