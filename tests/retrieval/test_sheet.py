import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from PIL import Image

import triptych
from triptych.errors import InvalidInput
from triptych.retrieval.display.hits import MOST
from triptych.retrieval.display.lettering import clipped, fitting, wrapped
from triptych.retrieval.display.sheet import SheetRow, Tile, contact_sheet

RED = Image.new("RGB", (300, 200), (255, 0, 0))


def colours(sheet: Image.Image) -> dict[object, int]:
    return {colour: count for count, colour in sheet.getcolors(2**24) or []}


def test_every_hit_is_shown() -> None:
    tiles = [Tile(RED, 0.5, "red.jpg") for _ in range(3)]
    sheet = contact_sheet([SheetRow("red", (), tiles), SheetRow("more", (), tiles[:1])])
    assert sheet.mode == "RGB"
    assert colours(sheet)[(255, 0, 0)] > 4 * 200 * 130


def test_many_hits_go_on_below() -> None:
    few, many = (contact_sheet([SheetRow("red", (), [Tile(RED, 0.5, "")] * n)]) for n in (8, 20))
    assert many.width == few.width < 2_100 and 2 * few.height < many.height < 3 * few.height
    assert colours(many)[(255, 0, 0)] == 20 / 8 * colours(few)[(255, 0, 0)]


def test_a_better_score_has_a_longer_bar() -> None:
    blue = (0x1C, 0x7E, 0xD6)
    shown = [
        colours(contact_sheet([SheetRow("", (), [Tile(RED, score, "")])])).get(blue, 0)
        for score in (-0.5, 0.2, 0.6, 1.0)
    ]
    assert shown[0] == 0 < shown[1] < shown[2] < shown[3]


def test_what_is_excluded_is_red() -> None:
    crimson = (0xC9, 0x2A, 0x2A)
    assert crimson in colours(contact_sheet([SheetRow("sea\n− people")]))
    assert crimson not in colours(contact_sheet([SheetRow("sea\npeople")]))


@pytest.mark.parametrize(
    "row",
    [
        SheetRow(""),
        SheetRow("x" * 5000, [RED] * 50),
        SheetRow("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk"),
        SheetRow("a", [], [Tile(None, float("nan"), "words " * 500)]),
        SheetRow("a", [], [Tile(Image.new("L", (1, 5000)), 2.0, "\n\0\u202e")]),
        SheetRow("a", [], [Tile(Image.new("RGBA", (5000, 1)), -3.0, "日本 🙂 العربية")]),
    ],
    ids=range(6),
)
def test_anything_can_be_drawn(row: SheetRow) -> None:
    contact_sheet([row, row])


def test_nothing_asked_is_a_sheet_as_well() -> None:
    assert contact_sheet([]).size[0] > 100


def test_hits_are_a_picture_for_a_notebook() -> None:
    with triptych.open(":memory:", model="hashing:64") as collection:
        collection.add([{"id": "a", "image": RED}, {"id": "b", "text": "red"}])
        hits = collection.search("red")
        one = triptych.sheet(collection, hits)
        two = triptych.sheet(collection, {"red": hits, "blue": hits[:1]})
        nothing = triptych.sheet(collection, [])
    assert one.mode == "RGB" and one._repr_png_()  # what a notebook asks for
    assert colours(one)[(254, 0, 0)] > 200 * 130
    assert nothing.height < one.height < two.height
    with pytest.raises(InvalidInput, match="has room for 1,000 hits, got 1,001"):
        triptych.sheet(collection, hits[:1] * (MOST + 1))


@given(st.text(max_size=200), st.integers(30, 300))
@settings(max_examples=50, deadline=None)
def test_lines_fit(text: str, width: int) -> None:
    shown, font = fitting(text, size=16)
    lines = wrapped(shown, font, width=width, num_lines=3)
    assert len(lines) <= 3
    assert all(
        font.getlength(line) <= width for line in [*lines, clipped(shown, font, width=width)]
    )
