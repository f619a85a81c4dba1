"""`triptych index` as a person meets it: every kind of source, good and bad."""

import io
import json
import shlex
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def rows(photos: Path) -> Path:
    """A manifest of the four pictures, each with words and a number."""
    path = photos.parent / "rows.jsonl"
    lines = [
        {"sku": f"p{at}", "image": f"photos/{picture.name}", "caption": picture.stem, "n": at}
        for at, picture in enumerate(sorted(photos.iterdir()))
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_manifest_with_its_columns_said(run: Run, rows: Path) -> None:
    code, out, err = run("index", str(rows), "--id-column", "sku")
    assert code == 0
    assert out.startswith("4 added in ")
    said = "id from 'sku', picture from 'image', text from 'caption'; metadata from 'n'"
    assert err == f"{rows}: {said}\n"
    hit = json.loads(run("search", "yellow", "-n", "1", "--json")[1])[0]
    assert (hit["id"], hit["metadata"]) == ("p3", {"n": 3})
    assert hit["uri"].endswith("photos/yellow.png")
    assert "4 unchanged" in run("index", str(rows), "--id-column", "sku")[1]


def test_what_prune_and_groups_cannot_do_is_said(run: Run, rows: Path, photos: Path) -> None:
    said = "only a folder drops what vanished"
    assert said in run("index", str(rows), "--id-column", "sku", "--prune")[2]
    assert said not in run("index", str(photos), "--prune", "-c", "other")[2]
    code, out, err = run("search", "yellow", "--group-by", "shop")
    assert (code, len(out.splitlines())) == (0, 4)
    assert err == "triptych: No item has the field 'shop'. Each is a group of its own.\n"
    assert run("search", "yellow", "--group-by", "n")[2] == ""


def test_a_row_of_one_cell(run: Run, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,text\n1,one\n2\n")
    assert "line 3: It has 1 cell, expected 2." in run("index", str(tmp_path / "a.csv"))[2]


@pytest.mark.parametrize(
    ("filter", "reasons"),
    [
        ("nope = 1", ["No item has the field 'nope'."]),
        ('n = "1"', ["No item has a text in the field 'n'."]),
        ("exists(caption2) and n > 1", ["No item has the field 'caption2'."]),
        ('{"n": {"$in": ["a", "b"]}}', ["No item has a text in the field 'n'."]),
        ('{"n": {"$in": ["a", 77]}}', []),
        ("n > 77 and n < 99", []),
        ("n = null", []),
    ],
)
def test_what_no_item_can_match_is_said(
    run: Run, rows: Path, filter: str, reasons: list[str]
) -> None:
    run("index", str(rows), "--id-column", "sku")
    code, out, err = run("search", "yellow", "--filter", filter)
    assert (code, out) == (0, "")
    assert err.splitlines() == ["nothing found", *(f"  {reason}" for reason in reasons)]


def test_several_sources_have_a_line_each_and_a_sum(run: Run, photos: Path) -> None:
    tar = photos.parent / "s-000.tar"
    with tarfile.open(tar, "w") as archive:
        info = tarfile.TarInfo("a.txt")
        info.size = 5
        archive.addfile(info, io.BytesIO(b"words"))
    parquet = photos.parent / "a.parquet"
    pq.write_table(pa.table({"id": [1, 2], "text": ["one", "two"]}), parquet)
    code, out, _ = run("index", str(tar), f"{photos}/[rg]*.png", str(parquet))
    assert code == 0
    lines = [line.partition(" in ")[0] for line in out.splitlines()]
    assert lines == [
        f"{tar}: 1 added", f"{photos}/[rg]*.png: 2 added", f"{parquet}: 2 added", "in all: 5 added",
    ]  # fmt: skip


def test_a_mistyped_folder_is_noticed_before_the_work_on_others(run: Run, photos: Path) -> None:
    run("collections", "create", "default")
    code, out, err = run("index", str(photos), str(photos) + "z")
    assert code == 2 and out == "" and f"There is no folder or file '{photos}z'" in err
    assert json.loads(run("info", "--json")[1])["count"] == 0


def test_a_folder_that_was_moved_is_said_to_have_left_its_items_behind(
    run: Run, photos: Path, tmp_path: Path
) -> None:
    (photos / "red.png").rename(tmp_path / "red.png")
    run("index", str(photos), "-c", "all")
    run("index", str(tmp_path / "red.png"), "-c", "all")
    photos = photos.rename(tmp_path / "new name")
    (tmp_path / "red.png").unlink()
    code, out, err = run("index", str(photos), "-c", "all")
    assert code == 0 and out.startswith("3 added in ")
    said, _, command = err.strip().partition("\n  ")
    assert said == (
        f"triptych: The folder {tmp_path}/photos is gone, and 3 pictures indexed from it will still "
        "be found. If it was moved or deleted, drop them:"
    )
    assert run(*shlex.split(command)[1:])[1].startswith("3 removed in ")
    assert run("index", str(photos), "-c", "all")[2] == ""


def test_pictures_named_one_by_one(run: Run, photos: Path) -> None:
    out = run("index", str(photos / "red.png"), str(photos / "blue.png"))[1]
    assert "2 added" in out and len(out.splitlines()) == 1


def test_what_is_left_out_is_named_and_the_run_goes_on(run: Run, photos: Path) -> None:
    (photos / "broken.jpg").write_bytes(b"\xff\xd8\xff not a picture")
    (photos / "empty.png").touch()
    code, out, err = run("index", str(photos))
    assert code == 0
    assert "4 added, 2 left out" in out
    assert "broken.jpg" in err
    assert "empty.png" in err


def test_an_endless_id_is_cut_where_it_is_named(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"id": "x" * 10_001, "text": "words"}) + "\n")
    code, _, err = run("index", str(path))
    assert code == 0
    assert f"line 1 (id '{'x' * 80}'...): An id is a string of 1 to 10,000 bytes" in err
    assert max(map(len, err.splitlines())) < 250


def test_of_many_failures_twenty_are_named_in_order(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    bad = '{"id": "x"}\n' + '{"id": "p%s", "image": "none.png"}\n'
    path.write_text('{"id": "ok", "text": "words"}\n' + "".join(bad % at for at in range(15)))
    code, out, err = run("index", str(path))
    assert code == 0
    assert "1 added, 30 left out" in out
    lines = err.splitlines()[1:]
    assert [line.split()[3].rstrip(":") for line in lines[:20]] == [str(at) for at in range(2, 22)]
    assert lines[1] == "  left out: line 3 (id 'p0'): There is no file 'none.png'."
    assert lines[20:] == ["  ... and 10 more, all of them with --report FILE"]


def test_the_report_as_tsv(run: Run, photos: Path, tmp_path: Path) -> None:
    (photos / "a\tb.png").touch()
    report = tmp_path / "report.tsv"
    assert run("index", str(photos), "--strict", "--report", str(report))[0] == 1
    names, values = (line.split("\t") for line in report.read_text().splitlines())
    assert names == ["source", "place", "id", "code", "reason"]
    assert values[:4] == [str(photos), f"{photos}/a\\tb.png", "", "picture_empty"]


def test_a_report_does_not_overwrite_what_is_indexed(run: Run, rows: Path, tmp_path: Path) -> None:
    before = rows.read_bytes()
    (tmp_path / "link.jsonl").symlink_to(rows)
    for report in (rows, tmp_path / "link.jsonl"):
        code, _, err = run("index", str(rows), "--id-column", "sku", "--report", str(report))
        assert (code, rows.read_bytes()) == (2, before)
        assert "is what is to be indexed" in err


@pytest.mark.parametrize("name", ["left-out.tsv", "left-out.jsonl"])
def test_a_report_replaces_a_report_and_no_other_file(
    run: Run, photos: Path, tmp_path: Path, name: str
) -> None:
    report, other = tmp_path / name, tmp_path / f"other-{name}"
    for broken in ("a.png", "b.png"):  # the first finds no report, the second one with a line
        (photos / broken).touch()
        assert run("index", str(photos), "--report", str(report))[0] == 0
        assert broken in report.read_text()
    for line in ('{"id": 1}', "[1]", "id\ttext", "\xff"):
        other.write_text(line, encoding="latin-1")
        code, _, err = run("index", str(photos), "--report", str(other))
        assert (code, other.read_text(encoding="latin-1")) == (2, line)
        assert f"{other} is there already, and is not a report of ours." in err


def test_the_report_as_jsonl(run: Run, rows: Path, tmp_path: Path) -> None:
    with rows.open("a") as file:
        print("{", file=file)
        print('{"sku": "\\ud800", "text": ""}', file=file)
    report = tmp_path / "report.jsonl"
    assert run("index", str(rows), "--id-column", "sku", "--report", str(report))[0] == 0
    found = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(one["place"], one["id"], one["code"]) for one in found] == [
        ("line 5", None, "row_json"), ("line 6", "\ud800", "row_empty"),
    ]  # fmt: skip
    assert {one["source"] for one in found} == {str(rows)}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "nothing to index"),
        ([""], "Got an empty name to index."),
        (["--documents", "{tmp}", ""], "Got an empty name to index."),
        (["/nowhere/at/all"], "There is no folder or file '/nowhere/at/all'"),
        (["/nowhere/rows.csv"], "There is no file /nowhere/rows.csv"),
        (["/nowhere/*.jpg"], "Nothing matches"),
        (["/dev/null"], "/dev/null"),
        (["{tmp}/a.txt"], "expected a folder, pictures, .jsonl"),
        (["{tmp}/a.csv.gz"], "Unpack it first"),
        (["{tmp}/a.pdf"], "triptych index --documents {tmp}/a.pdf"),
        (["{tmp}/array.jsonl"], "line 1: It is a list"),
        (["{tmp}/array.jsonl"], "; of an array: jq -c '.[]' OLD > NEW.jsonl"),
        (["{tmp}/a.json"], "Of an array: jq -c '.[]' OLD > NEW.jsonl"),
        (["{tmp}/pandas.csv"], "names a column '' (empty), expected a name for each. From pandas:"),
        (["{tmp}/utf16.csv"], "iconv -f utf-16 -t utf-8"),
        (["{tmp}/empty.jsonl"], "it is empty"),
        (["{tmp}/empty.csv"], "no line of names"),
        (["{tmp}/empty.parquet"], "no readable Parquet file"),
        (["{tmp}/empty.tar"], "no tar"),
        (["{tmp}/a.csv", "--id-column", "sku"], "has no column 'sku', it has: 'id', 'text'"),
        (["{tmp}/a.csv", "--text-column", ""], "neither pictures nor text"),
        (["{tmp}/a.csv", "--id-column", ""], "no column that is an id"),
        (["{tmp}/a.csv", "--report", "{tmp}/report.xml"], "expected .jsonl or .tsv"),
        (["{tmp}/a.csv", "--report", "/nowhere/report.tsv"], "cannot be written"),
        (["{tmp}/a.csv", "--max-megapixels", "x"], "expected a whole number"),
        (["{tmp}/a.csv", "--max-megapixels", "0"], "got 0, expected 1 or more"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_clear_sentence(
    run: Run, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    files = {
        "a.txt": "x",
        "a.csv.gz": "x",
        "a.pdf": "x",
        "array.jsonl": "[1]",
        "a.json": "[1]",
        "pandas.csv": ",id,text\n0,1,one\n",
        "a.csv": "id,text\n1,one\n",
    }
    files |= {f"empty.{kind}": "" for kind in ("jsonl", "csv", "parquet", "tar")}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    (tmp_path / "utf16.csv").write_text("id,text\n1,one\n", encoding="utf-16")
    code, out, err = run("index", *(one.replace("{tmp}", str(tmp_path)) for one in arguments))
    assert code == 2
    assert sentence.replace("{tmp}", str(tmp_path)) in err
    assert err.startswith("triptych: ")
    assert len(err.splitlines()) == 1
    assert out == ""
