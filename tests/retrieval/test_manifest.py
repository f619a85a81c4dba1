"""Manifests: what a row becomes, what is refused, and that nothing is lost or invented."""

from __future__ import annotations

import csv
import json
import string
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from triptych.errors import InvalidInput, NotFound
from triptych.retrieval.ingest.columns import Wanted
from triptych.retrieval.ingest.manifest import Manifest
from triptych.retrieval.ingest.offers import Failure, Offer
from triptych.retrieval.ingest.rows_csv import plain
from triptych.types import Item

GUESS = Wanted()


def read(path: Path, wanted: Wanted = GUESS) -> tuple[list[Item], list[Failure]]:
    found = list(Manifest(str(path), wanted).offers())
    items = [one.item for one in found if isinstance(one, Offer)]
    return items, [one for one in found if isinstance(one, Failure)]


def write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write the same rows as the ending says."""
    rows = list(rows)
    names = list(dict.fromkeys(name for row in rows for name in row))
    if path.suffix == ".parquet":
        columns = {name: [row.get(name) for row in rows] for name in names}
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            delimiter = "\t" if path.suffix == ".tsv" else ","
            table = csv.DictWriter(file, names, delimiter=delimiter)
            table.writeheader()
            table.writerows(rows)
    return path


@pytest.fixture(params=[".jsonl", ".csv", ".tsv", ".parquet"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"rows{request.param}"


def test_a_row_becomes_an_item(path: Path) -> None:
    row = {"id": "a", "image": "sub/a.jpg", "text": "a cat", "uri": "x:1", "n": 3, "who": "me"}
    [item], failed = read(write(path, [row]))
    assert not failed
    assert (item.id, item.text, item.uri) == ("a", "a cat", "x:1")
    assert item.image == str(path.parent / "sub/a.jpg")
    assert item.metadata == {"n": 3, "who": "me"}


def test_names_are_guessed_and_said(path: Path) -> None:
    write(path, [{"Key": 7, "file_name": "/abs/a.png", "caption": "x", "split": "dev"}])
    [item], _ = read(path)
    assert (item.id, item.image, item.text, item.uri) == ("7", "/abs/a.png", "x", "/abs/a.png")
    assert item.metadata == {"split": "dev"}
    note = Manifest(str(path), GUESS).note
    assert (
        note
        == "id from 'Key', picture from 'file_name', text from 'caption'; metadata from 'split'"
    )


def test_columns_that_are_named_come_first(path: Path) -> None:
    write(path, [{"id": "a", "sku": "s1", "text": "x", "long": "words", "image": "a.jpg"}])
    [item], _ = read(path, Wanted(id="sku", text="long", image=""))
    assert (item.id, item.text, item.image) == ("s1", "words", None)
    assert item.metadata == {"id": "a", "text": "x", "image": "a.jpg"}
    with pytest.raises(InvalidInput, match=r"no column 'nope', it has: 'id', 'sku'"):
        Manifest(str(path), Wanted(id="nope"))


def test_without_an_id_the_picture_names_the_item(path: Path) -> None:
    write(path, [{"image": "a.jpg"}, {"image": "b.jpg"}])
    assert [item.id for item in read(path)[0]] == [str(path.parent / f"{x}.jpg") for x in "ab"]


def test_of_an_id_that_comes_twice_the_first_is_kept(path: Path) -> None:
    items, [failure] = read(write(path, [{"id": "a", "text": x} for x in ("one", "two")]))
    assert [item.text for item in items] == ["one"]
    first = (
        "row 1" if path.suffix == ".parquet" else "line 1" if path.suffix == ".jsonl" else "line 2"
    )
    assert failure.code == "row_duplicate" and failure.id == "a" and first in failure.reason


def test_metadata_as_an_object(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "x", "metadata": {"k": [1, None, {"z": None}]}, "n": None}]
    assert read(write(tmp_path / "a.jsonl", rows))[0][0].metadata == {"k": [1, None, {}]}
    rows = [{"id": "a", "text": "x", "metadata": '{"k": 1.5}', "m": "0123"}]
    assert read(write(tmp_path / "a.csv", rows))[0][0].metadata == {"k": 1.5, "m": "0123"}
    rows = [{"id": "a", "text": "x", "metadata": {"k": 1}, "k": 2}]
    assert read(write(tmp_path / "b.jsonl", rows))[1][0].code == "row_metadata"


def test_a_picture_that_comes_after_many_rows_without_is_one(tmp_path: Path) -> None:
    rows = [{"id": f"note {at}", "title": "a note"} for at in range(150)]
    rows += [{"id": "photo", "title": "a shoe", "Image": "shoe.jpg"}, {"id": "bare", "path": "b"}]
    items, [failure] = read(write(tmp_path / "a.jsonl", rows))
    assert (items[-1].image, items[-1].metadata) == (str(tmp_path / "shoe.jpg"), {})
    assert failure.id == "bare"  # what was chosen stays
    items, _ = read(tmp_path / "a.jsonl", Wanted(image=""))
    assert (items[-1].image, items[-1].metadata) == (None, {"Image": "shoe.jpg"})


def test_parquet_holds_pictures_dates_and_lists(tmp_path: Path) -> None:
    day = date(2026, 11, 22)
    rows = [
        {"id": 1, "image": b"jpeg", "day": day, "tags": ["a", "b"], "blob": b"\0", "f": float("nan")},
        {"id": 2, "image": None, "day": None, "tags": None, "blob": None, "f": 0.5},
    ]  # fmt: skip
    [item], [failure] = read(write(tmp_path / "a.parquet", rows))
    assert item.image == b"jpeg" and item.uri is None
    assert item.metadata == {"day": "2026-11-22", "tags": ["a", "b"]}
    assert (failure.id, failure.code, failure.place) == ("2", "row_empty", "row 2")


def test_parquet_keeps_times_in_nanoseconds_as_pandas_writes_them(tmp_path: Path) -> None:
    at = pa.array([1_600_000_000_123_456_789, None], pa.timestamp("ns", tz="UTC"))
    day = pa.array([1_001, 2_002], pa.time64("ns"))
    table = pa.table({"id": ["a", "b"], "text": ["x", "y"], "at": at, "day": day})
    pq.write_table(table, tmp_path / "a.parquet")
    [first, second], failures = read(tmp_path / "a.parquet")
    assert not failures
    expected = {"at": "2020-09-13T12:26:40.123456+00:00", "day": "00:00:00.000001"}
    assert (first.metadata, set(second.metadata)) == (expected, {"day"})


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2**31 - 1, 1, 2], pa.date32()),
        pa.array([2**60, 1, 2], pa.timestamp("us")),
        pa.Array.from_buffers(
            pa.string(), 3, pa.array([b"\xff", b"a", b"b"], pa.binary()).buffers()
        ),
    ],
)
def test_a_value_of_parquet_that_nobody_can_hold_costs_its_row_alone(
    column: pa.Array, tmp_path: Path
) -> None:
    table = pa.table({"id": ["a", "b", "c"], "text": ["x", "y", "z"], "odd": column})
    pq.write_table(table, tmp_path / "a.parquet")
    items, [failure] = read(tmp_path / "a.parquet")
    assert [item.id for item in items] == ["b", "c"]
    assert (failure.place, failure.code) == ("row 1", "row_value")
    assert "'odd'" in failure.reason


def test_parquet_as_hugging_face_writes_it(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "image": {"bytes": b"jpeg", "path": "a.jpg"}},
        {"id": "b", "image": {"bytes": None, "path": "b.jpg"}},
    ]
    items, _ = read(write(tmp_path / "a.parquet", rows))
    assert [item.image for item in items] == [b"jpeg", str(tmp_path / "b.jpg")]


def test_pictures_in_parquet_without_ids_are_called_by_their_rows(tmp_path: Path) -> None:
    rows = [
        {"image": {"bytes": b"jpeg", "path": None}, "label": 3},
        {"image": {"bytes": None, "path": "b.jpg"}, "label": 4},
    ]
    items, failed = read(write(tmp_path / "train.parquet", rows))
    assert not failed
    assert [item.id for item in items] == ["train.parquet/row 1", str(tmp_path / "b.jpg")]
    assert items[0].metadata == {"label": 3} and items[0].uri is None


@pytest.mark.parametrize(
    ("line", "code", "said"),
    [
        ('{"id": "x", ', "row_json", "column 12"),
        ("[1, 2]", "row_json", "a list"),
        ('"x"', "row_json", "a string"),
        ("null", "row_json", "null"),
        ('{"id": "x", "text": "a", "v": NaN}', "row_json", "NaN"),
        ('{"id": "x", "text": "a", "v": 1e999}', "row_json", "too large"),
        ('{"id": "x", "text": "a", "v": ' + "9" * 5000 + "}", "row_json", "digits"),
        ('{"id": "x", "id": "y", "text": "a"}', "row_json", "'id' comes twice"),
        ('{"id": "x", "text": "a", "v": ' + "[" * 99999 + "]" * 99999 + "}", "row_json", "deep"),
        ('{"text": "a"}', "row_id", "missing"),
        ('{"id": "", "text": "a"}', "row_id", "str ''"),
        ('{"id": 1.5, "text": "a"}', "row_id", "float 1.5"),
        ('{"id": true, "text": "a"}', "row_id", "bool True"),
        ('{"id": ["x"], "text": "a"}', "row_id", "list"),
        ('{"id": "x"}', "row_empty", "neither"),
        ('{"id": "x", "text": "  "}', "row_empty", "neither"),
        ('{"id": "x", "text": 5}', "row_text", "int 5"),
        ('{"id": "x", "text": ["a"]}', "row_text", "list"),
        ('{"id": "x", "text": "\\ud800"}', "row_text", "Unicode"),
        ('{"id": "x", "image": 5}', "row_image", "int 5"),
        ('{"id": "x", "image": {"path": "a.jpg", "x": 1}}', "row_image", "dict"),
        ('{"id": "x", "image": "a\\u0000.jpg"}', "row_image", "NUL"),
        ('{"id": "x", "text": "a", "uri": 5}', "row_uri", "int 5"),
        ('{"id": "x", "text": "a", "metadata": [1]}', "row_metadata", "list"),
        ('{"id": "x", "text": "a", "metadata": "{"}', "row_json", "no JSON"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_a_bad_line_is_named_and_the_rest_goes_on(
    tmp_path: Path, line: str, code: str, said: str
) -> None:
    good = '{"id": "%s", "text": "t", "image": null, "uri": null, "metadata": null}\n'
    path = tmp_path / "a.jsonl"
    path.write_text(good % "first" + "\n" + line + "\n" + good % "last")
    items, [failure] = read(path)
    assert [item.id for item in items] == ["first", "last"]
    assert (failure.place, failure.code, failure.source) == ("line 3", code, str(path))
    assert said in failure.reason and len(failure.reason) < 200


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", b"", "it is empty"),
        ("a.jsonl", b'[{"id": "a"}]', "line 1: It is a list"),
        ("a.jsonl", bytes(range(128, 256)), "not UTF-8"),
        ("a.jsonl", b"id,text\n1,a\n", "line 1: It is no JSON"),
        ("a.jsonl", b'{"a": 1}\n', "neither pictures nor text"),
        ("a.jsonl", b'{"text": "a"}\n', "no column that is an id"),
        ("a.csv", b"", "no line of names"),
        ("a.csv", b"\n1,2\n", "no line of names"),
        ("a.csv", b"id,text,id\n", "twice"),
        ("a.csv", b"id,,text\n", "empty"),
        ("a.csv", "id,t\xe9xt\n".encode("latin1"), "not UTF-8"),
        ("a.csv", b'"id,text\n', "no CSV file"),
        ("a.csv", b"x,y\n1,2\n", "neither pictures nor text that are known by name, it has: 'x', 'y'"),
        ("a.parquet", b"", "no readable Parquet file"),
        ("a.parquet", b"PAR1garbagePAR1", "no readable Parquet file"),
    ],
)  # fmt: skip
def test_a_file_of_another_kind_is_one_sentence(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=said) as caught:
        Manifest(str(path), GUESS)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_no_file_and_no_regular_file(tmp_path: Path) -> None:
    import os

    with pytest.raises(NotFound, match="no file"):
        Manifest(str(tmp_path / "a.csv"), GUESS)
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(InvalidInput, match="no regular file"):
        Manifest(str(tmp_path / "pipe.jsonl"), GUESS)


def test_csv_as_it_comes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(
        b'\xef\xbb\xbfid;text;n\r\n1;"a ""b""; c\r\nd";2\r\n\r\n2;b\r\n3;caf\xe9;1\r\n4;d;\r\n'
    )
    items, failed = read(path)
    assert [(item.id, item.text, item.metadata) for item in items] == [
        ("1", 'a "b"; c\r\nd', {"n": 2}), ("4", "d", {}),
    ]  # fmt: skip
    assert [(one.place, one.code) for one in failed] == [
        ("line 5", "row_length"), ("line 6", "row_encoding"),
    ]  # fmt: skip


def test_a_quote_that_is_never_closed_costs_what_follows_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('id,text\n1,a\n2,"b\n3,c\n')
    items, [failure] = read(path)
    assert [item.id for item in items] == ["1"]
    assert (failure.place, failure.code) == ("line 3", "row_csv")


def test_a_parquet_file_that_is_damaged_inside(tmp_path: Path) -> None:
    rows = [{"id": f"{at}", "text": f"{at * 7919:064b}"} for at in range(20_000)]
    path = tmp_path / "a.parquet"
    columns = {name: [row[name] for row in rows] for name in ("id", "text")}
    pq.write_table(pa.table(columns), path, row_group_size=1000, write_page_checksum=True)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 2000] = bytes(2000)
    path.write_bytes(content)
    items, failed = read(path)
    assert 0 < len(items) < 20_000
    assert failed[-1].code == "manifest_damaged" and "cannot be read" in failed[-1].reason


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("12", 12), ("-3", -3), ("0.5", 0.5), ("1e3", 1000.0), ("true", True), ("False", False),
        ("0123", "0123"), ("+1", "+1"), ("1,5", "1,5"), ("1.", "1."), (".5", ".5"), ("nan", "nan"),
        ("12345678901234567890", "12345678901234567890"), ("１２", "１２"), (" 12", " 12"), ("", ""),
    ],
)  # fmt: skip
def test_what_a_cell_means(cell: str, value: Any) -> None:
    found = plain(cell)
    assert found == value and type(found) is type(value)


words = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
plain_values = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words
values = st.recursive(
    plain_values | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
names = st.text(string.ascii_letters, min_size=1, max_size=8).map(lambda name: f"m_{name}")
ids = st.lists(words, min_size=1, max_size=8, unique=True)
ANY = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)


def without_nothing(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nothing(one) for name, one in value.items() if one is not None}
    return [without_nothing(one) for one in value] if isinstance(value, list) else value


@ANY
@given(ids, st.data())
def test_every_jsonl_row_comes_out_as_it_went_in(
    tmp_path: Path, found: list[str], data: Any
) -> None:
    metadata = {id: data.draw(st.dictionaries(names, values, max_size=3)) for id in found}
    rows = [{"id": id, "text": data.draw(words), **metadata[id]} for id in found]
    items, failed = read(write(tmp_path / "a.jsonl", rows))
    assert not failed
    assert [(item.id, item.text) for item in items] == [(row["id"], row["text"]) for row in rows]
    assert [item.metadata for item in items] == [without_nothing(metadata[id]) for id in found]


@ANY
@given(ids, st.data())
def test_every_csv_row_comes_out_as_it_went_in(tmp_path: Path, found: list[str], data: Any) -> None:
    rows = [{"id": id, "text": data.draw(words), "m_a": data.draw(words)} for id in found]
    items, failed = read(write(tmp_path / "a.csv", rows))
    assert not failed
    assert [(item.id, item.text) for item in items] == [(row["id"], row["text"]) for row in rows]
    assert [str(item.metadata["m_a"]) for item in items] == [str(plain(row["m_a"])) for row in rows]


@ANY
@given(
    st.lists(st.binary(max_size=60), max_size=12), st.sampled_from([".jsonl", ".csv", ".parquet"])
)
def test_any_bytes_are_items_failures_or_one_error(
    tmp_path: Path, lines: list[bytes], suffix: str
) -> None:
    path = tmp_path / f"a{suffix}"
    first = b'{"id": "a", "text": "b"}' if suffix == ".jsonl" else b"id,text"
    path.write_bytes(b"\n".join([first, *lines]))
    try:
        items, failed = read(path)
    except InvalidInput:
        return
    assert len({item.id for item in items}) == len(items)
    assert all(failure.place and failure.reason for failure in failed)
