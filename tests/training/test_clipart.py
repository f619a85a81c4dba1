"""The set of drawings: what is said of them is read out of their SVG, the pixels out of the PNG."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import IO
from xml.etree import ElementTree

import pyarrow.parquet as parquet
import pytest
from PIL import Image, ImageDraw

from triptych.training import clipart
from triptych.training.data import read_rows
from triptych.training.sources import draw_of

SVG = """<svg xmlns="http://www.w3.org/2000/svg"><metadata>
<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"
 xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>{title}</dc:title>
<dc:subject><r:Bag>{keywords}</r:Bag></dc:subject><dc:creator><dc:title>Somebody</dc:title>
</dc:creator></r:RDF></metadata>"""


def add(
    library: Path,
    name: str,
    *,
    title: str = "",
    keywords: Iterable[str] = (),
    colour: str = "red",
    ending: str = "</svg>",
) -> None:
    png, svg = (library / kind / f"{name}.{kind}" for kind in ("png", "svg"))
    for path in (png, svg):
        path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGBA", (400, 300), (0, 0, 0, 0))
    ImageDraw.Draw(picture).ellipse((50, 50, 250, 250), fill=colour)
    picture.save(png)
    items = "".join(f"<r:li>{word}</r:li>" for word in keywords)
    svg.write_text(SVG.format(title=title, keywords=items) + ending, encoding="utf-8")


def texts(library: Path) -> dict[str, tuple[str, ...]]:
    return {row.id: row.texts for row in clipart.rows_of(library)}


def test_title_and_keywords_are_the_texts(tmp_path: Path) -> None:
    add(
        tmp_path, "food/pie_01", title="Apple_Pie 2 (B and W)", keywords=["food", "", "hash", "pie"]
    )
    assert texts(tmp_path) == {"food/pie_01.png": ("Apple Pie black and white", "food, pie")}


def test_a_title_of_many_is_none(tmp_path: Path) -> None:
    for number in range(clipart.MOST_OF_A_TITLE + 1):
        add(
            tmp_path,
            f"roads/{number}",
            title="Road Signs",
            keywords=["road", f"{'abcdefg'[number]}bc"],
        )
    assert {said[0] for said in texts(tmp_path).values()} >= {"road, abc", "road, gbc"}


def test_what_nothing_is_said_of_is_left_out(tmp_path: Path) -> None:
    add(tmp_path, "animals/one", keywords=["animal"])
    add(tmp_path, "animals/two", title="Icons", keywords=["animal"])
    add(tmp_path, "shapes/stars/star_5", title="Star", keywords=["star", "shape"])
    add(tmp_path, "animals/owl", title="Owl", ending="<broken")
    assert texts(tmp_path) == {"animals/owl.png": ("Owl",)}


def test_no_drawing_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, "animals/one", title="Owl")
    add(tmp_path, "animals/two", title="Crow", ending="<broken")
    read: list[IO[bytes]] = []

    def parse(source: IO[bytes]) -> Iterator[tuple[str, ElementTree.Element]]:
        read.append(source)
        return iterparse(source)

    iterparse = ElementTree.iterparse
    monkeypatch.setattr(ElementTree, "iterparse", parse)
    texts(tmp_path)
    assert [file.closed for file in read] == [True, True]


def test_a_blank_drawing_is_left_out(tmp_path: Path) -> None:
    add(tmp_path, "weather/bolt", title="Lightning", colour="white")  # on grey
    add(tmp_path, "weather/air", title="Air", colour="#ffffff00")
    assert texts(tmp_path).keys() == {"weather/bolt.png"}


def test_one_that_has_to_stay_unseen_is_left_out(tmp_path: Path) -> None:
    add(tmp_path, "food/tomato", title="Tomato", colour="red")
    add(tmp_path, "buildings/fence", title="Fence")
    fence = Image.effect_noise((300, 300), 200)
    fence.convert("RGB").save(tmp_path / "png/buildings/fence.png")
    seen = tmp_path / "seen"
    seen.mkdir()
    Image.open(tmp_path / "png/food/tomato.png").resize((200, 150)).save(seen / "other.png")
    kept = clipart.unlike(clipart.rows_of(tmp_path), folder=seen)
    assert [row.label for row in kept] == ["fence"]


def test_the_file_is_read_as_a_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add(tmp_path, "food/tomato", title="Tomato", keywords=["food", "red", "fruit", "vegetable"])
    add(tmp_path, "food/tomato_2", title="Tomato", keywords=["food"])
    out = tmp_path / "clipart.parquet"
    monkeypatch.setattr("sys.argv", ["clipart", str(tmp_path), "--out", str(out)])
    clipart.main()
    assert parquet.read_metadata(out).num_rows == 2
    rows = read_rows(out, splits=["train", "dev"])
    drawn = draw_of("clipart")(rows, Random(1))
    assert drawn.groups == ["tomato", "tomato"]  # alike, so neither is a wrong answer
    assert drawn.owners == [0, 0, 1, 1]
    assert drawn.texts[0] == "Tomato"
    assert 2 <= len(drawn.texts[1].split(", ")) <= 4
