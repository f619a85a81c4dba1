"""The command line as a person meets it: what is printed, what is said, what is returned."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from triptych.cli.main import main
from triptych.cli.sheets import save_sheet, sheet_file
from triptych.retrieval.display.hits import MOST
from triptych.retrieval.display.sheet import SheetRow, Tile, contact_sheet

Run = Callable[..., tuple[int, str, str]]


def test_without_arguments_it_shows_how(run: Run) -> None:
    code, out, _ = run()
    assert code == 0
    assert "triptych index ~/Pictures" in out


def test_an_unknown_command_lists_the_known(run: Run) -> None:
    code, _, err = run("serach", "dog")
    assert code == 2
    assert "Unknown command 'serach' (did you mean 'search'?)" in err
    assert "collections, context" in err
    assert "Traceback" not in err


def test_index_then_search_by_words(run: Run, photos: Path) -> None:
    code, out, _ = run("index", str(photos))
    assert code == 0
    assert "4 added" in out
    code, out, _ = run("search", "red")
    assert code == 0
    score, path = out.splitlines()[0].split("  ")
    assert path == str(photos / "red.png")
    assert 0 < float(score) <= 1


def test_the_second_index_touches_nothing(run: Run, photos: Path) -> None:
    run("index", str(photos))
    _, out, _ = run("index", str(photos))
    assert "4 unchanged" in out
    assert "added" not in out


def test_search_by_picture_finds_it_first(run: Run, photos: Path) -> None:
    run("index", str(photos))
    _, out, _ = run("search", str(photos / "blue.png"), "-f")
    assert out.splitlines()[0] == str(photos / "blue.png")


def test_options_are_recognised_anywhere(run: Run, photos: Path) -> None:
    run("index", str(photos))
    for line in (
        ["-n", "1", "red", "-", "blue"],
        ["red", "-n", "1", "-", "blue"],
        ["red", "-", "blue", "-n", "1"],
    ):
        code, out, _ = run("search", *line)
        assert code == 0
        assert len(out.splitlines()) == 1
        assert "red.png" in out


def test_minus_pushes_away(run: Run, photos: Path) -> None:
    run("index", str(photos))
    _, out, _ = run("search", "red", "+", "green", "-", "2:green", "-f")
    assert out.splitlines()[0].endswith("red.png")


def test_json_is_one_array_of_hits(run: Run, photos: Path) -> None:
    run("index", str(photos))
    _, out, _ = run("search", "red", "--json", "--limit", "2")
    hits = json.loads(out)
    assert [set(hit) >= {"id", "score", "metadata", "uri"} for hit in hits] == [True, True]


@pytest.mark.parametrize(
    ("name", "kind"), [("sheet.png", "PNG"), ("sheet.JPG", "JPEG"), ("sheet.jpeg", "JPEG")]
)
def test_a_sheet_is_drawn(
    run: Run, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run("index", str(photos))
    code, _, _ = run("search", "red", f"--sheet=~/{name}")
    assert code == 0
    with Image.open(tmp_path / name) as sheet:
        assert sheet.width > 300
        assert sheet.format == kind


@pytest.mark.parametrize("name", ["sheet.png", "sheet.jpg"])
def test_a_sheet_replaces_a_sheet_and_no_other_file(
    run: Run, photos: Path, tmp_path: Path, name: str
) -> None:
    run("index", str(photos))
    photo, sheet = photos / name, tmp_path / name
    Image.new("RGB", (64, 48), "red").save(photo)
    before = photo.read_bytes()
    code, out, err = run("search", "red", "--sheet", str(photo))
    assert (code, out, photo.read_bytes()) == (2, "", before)
    assert (
        err
        == f"triptych: {photo} is there already, and is not a sheet of ours. Name another file.\n"
    )
    sheet.touch()  # as mktemp does
    for query in ("red", "blue"):
        assert run("search", query, "--sheet", str(sheet))[0] == 0


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (["--sheet", "nowhere/hits.png"], "There is no folder 'nowhere' for the sheet."),
        (["--sheet", "hits.txt"], "The sheet hits.txt ends in .txt, expected .png or .jpg."),
        (["--sheet", "hits"], "The sheet hits ends in nothing, expected .png or .jpg."),
        (["--sheet", "a.png"], "The sheet a.png is a folder."),
        (["--sheet", "hits.png", "-n", "1001"], "has room for 1,000 hits, got 1,001."),
    ],
)
def test_a_sheet_that_cannot_be_is_refused_before_anything_is_opened(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.png").mkdir()
    code, out, err = run("search", "red", *line, "-c", "not-there-either")
    assert (code, out) == (2, "")
    assert sentence in err


def test_the_largest_jpeg_is_written(tmp_path: Path) -> None:
    tiles = [Tile(None, 0.5, "")] * MOST
    save_sheet(
        contact_sheet([SheetRow("x", (), tiles)]), sheet_file(tmp_path / "a.jpg", limit=MOST)
    )
    with Image.open(tmp_path / "a.jpg") as sheet:
        assert sheet.height > 33_000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["search"], "The query is empty"),
        (["search", ""], "empty"),
        (["search", "dog", "--limit", "0"], "limit"),
        (["search", "dog", "--limit", "many"], "expected a whole number"),
        (["search", "dog", "-c", "nowhere"], "nowhere"),
        (["search", "dog", "-c", "No Name"], "No Name"),
        (["search", "dog", "+"], "Nothing follows"),
        (["search", "shoe", "-heels"], "Unrecognized arguments: -heels. A minus stands alone: - heels."),
        (["search", "cat", "-dog"], "A minus stands alone: - dog."),
        (["info", "-verbose"], "Unrecognized arguments: -verbose. See"),
        (["search", "./missing.jpg"], "missing.jpg"),
        (["search", "image:http://127.0.0.1/x.png"], "not fetched"),
        (["search", "id:unknown"], "unknown"),
        (["search", "dog", "--filter", "year >>> 3"], "at character 7"),
        (["search", "dog", "--model", "open_klip:x"], "Unknown model"),
        (["search", "dog", "--model", "vectors:mine:8"], "use another collection"),
        (["search", "dog", "--model", "hashing:64"], "triptych migrate --model NAME"),
        (["embed", "dog", "--model", "vectors:mine"], "vectors:<name>:<dim>"),
        (["eval", "/nowhere.parquet"], "/nowhere.parquet"),
        (["info", "-c", "nowhere"], "nowhere"),
        (["collections", "drop", "nowhere"], "nowhere"),
        (["collections", "create"], "NAME"),
        (["serve", "--host", "0.0.0.0"], "Without a key"),
        (["serve", "--port", "many"], "whole number"),
        (["serve", "--port", "70000"], "expected a number from 0 to 65535"),
        (["serve", "--pool", "0"], "expected a number from 1 to 1024"),
        (["serve", "--follow", "localhost:8000"], "expected http://"),
        (["serve", "--follow", "http://127.0.0.1:1", "--follow-key", "tt_abc\n"], "strip the line end"),
        (["serve", "--key-file", "/nowhere/keys.json"], "triptych keys add"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_input_gets_one_clear_sentence(
    run: Run, photos: Path, arguments: list[str], sentence: str
) -> None:
    run("index", str(photos))
    code, out, err = run(*arguments)
    assert code == 2
    assert sentence in err
    assert err.startswith("triptych: ")
    assert len(err.splitlines()) == 1
    assert out == ""


def test_reranking_says_how_to_make_a_collection_that_can(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPTYCH_MODEL", "default")
    run("index", str(photos))
    _, _, err = run("search", "red", "--rerank", "3")
    assert "triptych collections create NAME --tokens" in err
    assert run("collections", "create", "able", "--tokens")[0] == 0
    run("index", str(photos), "-c", "able")
    code, out, _ = run("search", "red", "--rerank", "3", "-c", "able")
    assert code == 0 and "red.png" in out


def test_a_mistyped_folder_makes_no_collection(run: Run) -> None:
    code, _, err = run("index", "./Picturez", "-c", "new")
    assert code == 2
    assert "There is no folder or file './Picturez'" in err
    assert "new" not in run("collections")[1]


def test_a_missing_collection_names_those_there_are_and_how_to_make_it(
    run: Run, photos: Path
) -> None:
    run("index", str(photos), "-c", "photos")
    _, _, err = run("search", "red", "-c", "photo")
    assert "known: photos." in err
    assert "triptych index ~/Pictures -c photo" in err


def test_a_missing_folder_of_a_collection_stays_a_folder_in_the_hint(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "triptych index ~/Pictures -c ./shop" in run("search", "red", "-c", "./shop")[2]


def test_an_address_is_words_and_that_is_said(run: Run, photos: Path) -> None:
    run("index", str(photos))
    code, out, err = run("search", "https://example.com/a.jpg")
    assert code == 0 and out
    assert "was searched as words, as nothing is fetched" in err


def test_what_the_system_refuses_is_a_sentence(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRIPTYCH_DATA", "/proc/nowhere")
    monkeypatch.setenv("TRIPTYCH_MODEL", "default")
    code, _, err = run("index", str(photos))
    assert code == 1
    assert err.startswith("triptych: The system refused /proc/nowhere")
    assert len(err.splitlines()) == 1


def test_the_name_of_a_picture_without_a_dot_is_words_and_that_is_said(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("index", str(photos))
    monkeypatch.chdir(photos)
    _, _, err = run("search", "red.png", "-f")
    assert "'red.png' was searched as words; for the picture write ./red.png" in err
    _, _, err = run("search", "rde.PNG", "-f")
    assert "'rde.PNG' was searched as words; for the picture write ./rde.PNG" in err
    assert "as words" not in run("search", "what a .png is", "-f")[2]


def test_paths_in_a_pipe_are_those_on_the_disk_byte_for_byte(photos: Path, data: Path) -> None:
    odd = os.fsdecode(b"not-utf8-\xff.png")
    (photos / "red.png").rename(photos / odd)
    main(["index", str(photos)])
    command = [sys.executable, "-m", "triptych", "search", "red", "-f", "-n", "1"]
    piped = subprocess.run(command, capture_output=True, check=True).stdout
    assert Path(os.fsdecode(piped.removesuffix(b"\n"))).exists()


def test_a_folder_without_documents_is_said_to_have_none(run: Run, photos: Path) -> None:
    (photos / "link").symlink_to("/etc")
    _, out, _ = run("index", "--documents", str(photos))
    assert "no documents (.md .html .pdf .txt), 1 left out" in out


def test_collections_by_name(run: Run, photos: Path) -> None:
    run("index", str(photos), "-c", "holidays")
    run("collections", "create", "empty")
    assert run("collections")[1].split() == ["empty", "holidays"]
    assert run("collections", "drop", "holidays")[0] == 0
    assert run("collections", "list")[1].split() == ["empty"]


def test_a_collection_keeps_its_model(
    run: Run, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("index", str(photos))
    monkeypatch.setenv("TRIPTYCH_MODEL", "vectors:mine:8")
    assert run("search", "red")[0] == 0


def test_embed_prints_a_line_each(run: Run, photos: Path) -> None:
    _, out, _ = run("embed", "red", str(photos / "red.png"))
    rows = [json.loads(line) for line in out.splitlines()]
    assert [row["input"] for row in rows] == ["red", str(photos / "red.png")]
    assert sum(x * x for x in rows[0]["vector"]) == pytest.approx(1, abs=1e-5)


def test_models_are_listed(run: Run) -> None:
    out = run("models")[1]
    assert "* hashing" in out
    assert "open_clip:<architecture>" in out


@pytest.mark.parametrize("option", ["default", "fine"])
def test_info_says_what_model_calls_the_packages_own(run: Run, option: str) -> None:
    """They call themselves by their training, which --model does not take."""
    name, fingerprint = (line.split()[1] for line in run("models", option)[1].splitlines()[:2])
    run("collections", "create", "own", "--model", option)
    assert f"model        {name} (--model {option})\n" in run("info", "-c", "own")[1]
    info = json.loads(run("info", "-c", "own", "--json")[1])
    assert (info["model"], info["fingerprint"]) == (name, fingerprint)


def test_info_says_what_is_there(run: Run, photos: Path) -> None:
    run("index", str(photos))
    out = run("info")[1]
    assert "count        4" in out
    assert "pictures     0 kept whole (0.0 MB)" in out
    assert "hashing" in out
