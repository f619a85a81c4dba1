"""Evaluation on a small file whose figures are known."""

import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from triptych.encoders.hashing import HashingEncoder
from triptych.errors import InvalidInput
from triptych.retrieval.evaluate import evaluate, format_table, read_pictures

COLOURS = ["red", "green", "blue", "yellow"]


def png(colour: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32), colour).save(buffer, "PNG")
    return buffer.getvalue()


def row(colour: str, **changes: Any) -> dict[str, Any]:
    return {
        "id": colour,
        "split": "dev",
        "image": png(colour),
        "texts": [colour, f"a {colour} thing"],
        "label": "warm" if colour in ("red", "yellow") else "cold",
        "attributes": json.dumps({"de": [f"{colour} auf Deutsch"]}),
        **changes,
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    rows = [row(colour) for colour in COLOURS]
    rows += [row("black", split="train"), row("white", image=None)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet", row_group_size=2)
    return tmp_path / "pairs.parquet"


def test_dev_is_measured_unless_there_is_a_test_split(file: Path, tmp_path: Path) -> None:
    assert [picture.id for picture in read_pictures(file)] == COLOURS
    rows = [row("red"), row("blue", split="test")]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "test.parquet")
    assert [picture.id for picture in read_pictures(tmp_path / "test.parquet")] == ["blue"]


def test_options_choose_rows_and_texts(file: Path) -> None:
    assert [p.id for p in read_pictures(file, split="train")] == ["black"]
    assert len(read_pictures(file, limit=2)) == 2
    assert read_pictures(file, first_text=True)[0].texts == ("red",)
    assert read_pictures(file, language="de")[0].texts == ("red auf Deutsch",)


def test_colours_are_found_by_their_names(file: Path) -> None:
    done: list[int] = []
    report = evaluate(HashingEncoder(), read_pictures(file), progress=done.append)
    assert report["num_pictures"] == 4
    assert report["num_texts"] == 8
    assert report["text_to_image"]["recall@1"] == 1.0
    assert report["image_to_text"]["median_rank"] == 1.0
    assert 0 < report["labels"]["map"] <= 1
    assert sum(done) == 4 + 8 + 2
    json.dumps(report)


def test_the_table_is_in_percent(file: Path) -> None:
    table = format_table(evaluate(HashingEncoder(), read_pictures(file)))
    assert "4 pictures, 8 texts" in table
    assert "100.0" in table
    assert "2 labels by name" in table


def test_without_labels_there_is_no_label_table(tmp_path: Path) -> None:
    rows = [row(colour, label="") for colour in COLOURS]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    report = evaluate(HashingEncoder(), read_pictures(tmp_path / "pairs.parquet"))
    assert report["labels"] is None
    assert "labels" not in format_table(report)


def test_one_label_a_picture_gives_no_picture_map(tmp_path: Path) -> None:
    rows = [row(colour, label=colour) for colour in COLOURS]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    report = evaluate(HashingEncoder(), read_pictures(tmp_path / "pairs.parquet"))
    assert report["labels"]["picture_map"] is None


def test_what_is_no_such_file_says_what_is_expected(file: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no split 'test'"):
        read_pictures(file, split="test")
    (tmp_path / "words.parquet").write_text("not a table")
    with pytest.raises(InvalidInput, match="not a readable Parquet file"):
        read_pictures(tmp_path / "words.parquet")
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "narrow.parquet")
    with pytest.raises(InvalidInput, match="lacks the columns split, image"):
        read_pictures(tmp_path / "narrow.parquet")
    pq.write_table(pa.Table.from_pylist([row("red", image=None)]), tmp_path / "none.parquet")
    with pytest.raises(InvalidInput, match="no picture"):
        read_pictures(tmp_path / "none.parquet")


def test_four_columns_will_do(tmp_path: Path) -> None:
    kept = ("id", "split", "image", "texts")
    rows = [{name: row(colour)[name] for name in kept} for colour in COLOURS]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    pictures = read_pictures(tmp_path / "pairs.parquet", language="de")
    assert [(p.label, p.texts) for p in pictures] == [("", ())] * len(COLOURS)


@pytest.mark.parametrize("said", ["rot", "[1]", "3"])
def test_attributes_that_are_no_json_object_are_told(tmp_path: Path, said: str) -> None:
    rows = [row("red") | {"attributes": said}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    with pytest.raises(
        InvalidInput, match=f"The attributes of 'red'.* are {re.escape(repr(said))}"
    ):
        read_pictures(tmp_path / "pairs.parquet")


def test_pictures_that_are_not_bytes_are_told(tmp_path: Path) -> None:
    rows = [row("red") | {"image": "red.png"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    with pytest.raises(InvalidInput, match="no encoded bytes as image"):
        read_pictures(tmp_path / "pairs.parquet")
