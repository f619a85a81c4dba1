"""Parquet files of pictures with texts: whose they are, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import ExifTags, Image

pytest.importorskip("torch")

from triptych.encoders.pictures.look import Look
from triptych.encoders.pictures.picture import load_picture
from triptych.encoders.towers.mobilenet import IMAGE_SIZE
from triptych.errors import InvalidInput, NotAvailable
from triptych.training.build import minilm_folder, prepare
from triptych.training.data import checked, picture_sets, read_rows
from triptych.training.features import pixel_batches
from triptych.training.made_up import write_data
from triptych.training.recipes import base, more


def write(path: Path, *rows: dict[str, Any]) -> Path:
    blank = {"split": "train", "image": b"", "texts": ["a dog"]}
    table = [{"id": str(at), **blank, **row} for at, row in enumerate(rows)]
    pq.write_table(pa.Table.from_pylist(table), path)
    return path


def test_files_that_recipes_name_come_first_and_the_law_has_no_pictures(tmp_path: Path) -> None:
    for name in ("zoo", "law", "vietnamese", "birds", "flickr8k"):
        write(tmp_path / f"{name}.parquet", {})
    assert list(picture_sets(tmp_path)) == ["flickr8k", "vietnamese", "birds", "zoo"]
    assert list(picture_sets(tmp_path / "zoo.parquet")) == ["zoo"]


@pytest.mark.parametrize("name", ["", "law.parquet", "nowhere"])
def test_no_pictures_no_run(tmp_path: Path, name: str) -> None:
    write(tmp_path / "law.parquet", {})
    with pytest.raises(InvalidInput, match="holds no Parquet file of pictures"):
        picture_sets(tmp_path / name)


def test_rows_need_no_label_and_come_split_by_split(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"split": "catalogue"}, {"split": "dev"}, {}, {})
    rows = read_rows(path, splits=["train", "catalogue"])
    assert [row.id for row in rows] == ["2", "3", "0"]
    assert {(row.label, len(row.attributes)) for row in rows} == {("", 0)}


def test_sets_of_ones_own_have_a_share_and_many_views() -> None:
    towers = base()[1]
    assert towers.mixture_of(["mine", "law"]) == {"mine": towers.own, "law": towers.mixture["law"]}
    assert towers.views_of("mine") == max(towers.views.values())
    assert towers.views_of("law") == 1
    with pytest.raises(InvalidInput, match=r"stage base learns from flickr8k, .*: none is there"):
        towers.mixture_of([])


@pytest.mark.parametrize("steps", [1, 3, 100, 10_000])
def test_a_shorter_stage_rises_and_measures_in_time(steps: int) -> None:
    for stage in more():
        short = stage.at_most(steps)
        assert short.steps == min(steps, stage.steps)
        assert short.warmup <= short.steps / 4 and 1 <= short.eval_every <= short.steps
    assert stage.at_most(10_000) == stage


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"split": "test"}], r"a\.parquet has no rows of the split train"),
        ([{"texts": []}], r"The row '0' of .*a\.parquet has no text"),
        ([{"image": None}, {}], r"The row '0' of .*a\.parquet has no picture"),
    ],
)
def test_a_row_that_is_not_whole_is_named(
    tmp_path: Path, rows: Sequence[dict[str, Any]], says: str
) -> None:
    path = write(tmp_path / "a.parquet", *rows)
    with pytest.raises(InvalidInput, match=says):
        checked(read_rows(path, splits=["train"]), of=path)


def test_a_file_of_another_kind_says_what_was_expected(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_text("id,split\n")
    with pytest.raises(InvalidInput, match="not a readable Parquet file"):
        read_rows(path, splits=["dev"])
    pq.write_table(pa.table({"id": ["1"], "text": ["a dog"]}), path)
    with pytest.raises(InvalidInput, match=r"lacks the columns split, image, texts\. Expected id,"):
        read_rows(path, splits=["dev"])


def test_a_picture_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {"id": "broken", "image": b"GIF89a, or so"})
    with pytest.raises(InvalidInput, match="The picture of the row 'broken' cannot be read"):
        next(pixel_batches(read_rows(path, splits=["train"]), view=1))


def test_from_nothing_a_start_is_needed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", {})
    with pytest.raises(InvalidInput, match=r"there is none in .*a\.parquet.*The recipe more"):
        prepare(base()[0], data=path, work=tmp_path)


def test_from_nothing_minilm_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("triptych.training.build.find_spec", lambda name: None)
    with pytest.raises(NotAvailable, match=r"no folder minilm in .*pip install"):
        minilm_folder(tmp_path)


def test_made_up_data_is_whole(tmp_path: Path) -> None:
    write_data(tmp_path)
    for path in picture_sets(tmp_path).values():
        assert checked(read_rows(path, splits=["train"]), of=path)


def transparent(colour: str) -> bytes:
    picture = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    picture.paste(colour, (5, 5, 15, 15))
    return encoded(picture, "PNG")


def turned() -> bytes:
    picture = Image.new("RGB", (20, 10), "navy")
    picture.paste("ivory", (0, 0, 10, 10))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return encoded(picture, "JPEG", exif=exif)


def encoded(picture: Image.Image, kind: str, **options: Any) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


PICTURES = {colour: transparent(colour) for colour in ("white", "ivory", "navy")}


@pytest.mark.parametrize("image", [*PICTURES.values(), turned()], ids=[*PICTURES, "turned"])
def test_a_picture_is_trained_with_as_it_is_encoded(tmp_path: Path, image: bytes) -> None:
    rows = read_rows(write(tmp_path / "a.parquet", {"image": image}), splits=["train"])
    (pixels_1CHW,) = pixel_batches(rows)
    seen_HWC = ((pixels_1CHW[0] + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert (seen_HWC == Look().square(load_picture(image), IMAGE_SIZE)).all()
