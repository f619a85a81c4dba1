"""`triptych migrate` as a person meets it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import triptych

Run = Callable[..., tuple[int, str, str]]


def info(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("info", "--json")[1])
    return found


def test_there_and_back_again(run: Run, photos: Path) -> None:
    run("index", str(photos))
    code, out, _ = run("migrate", "--model", "hashing:64")
    assert code == 0
    assert out.startswith("hashing:256 -> hashing:64: 4 embedded in ")
    assert info(run)["dim"] == 64
    assert "red.png" in run("search", "red", "-n", "1")[1]
    assert "hashing:64 is searched already" in run("migrate", "--model", "hashing:64")[1]
    assert "4 unchanged" in run("index", str(photos))[1]

    Image.new("RGB", (20, 20), "orange").save(photos / "orange.png")
    run("index", str(photos))
    code, out, _ = run("migrate", "--back")
    assert code == 0
    assert out.startswith("hashing:64 -> hashing:256: 1 embedded in ")
    assert "orange.png" in run("search", "orange", "-n", "1")[1]


def test_info_shows_the_vectors_there_are_and_drop_old_deletes_them(run: Run, photos: Path) -> None:
    run("index", str(photos))
    run("migrate", "--model", "hashing:64")
    shown = "hashing:256 (4 vectors), hashing:64 (4 vectors, searched)"
    assert shown in run("info")[1]
    code, out, _ = run("migrate", "--drop-old")
    assert code == 0
    assert "the vectors of 1 other model are deleted" in out
    assert "spaces       hashing:64 (4 vectors, searched)" in run("info")[1]
    assert "no vectors of another model" in run("migrate", "--back")[2]


def test_a_model_of_files_is_kept_for_the_time_after(run: Run, photos: Path, data: Path) -> None:
    run("index", str(photos))
    assert run("migrate", "--model", "default")[0] == 0
    assert (data / "models" / info(run)["fingerprint"]).is_dir()
    assert "red.png" in run("search", "red", "-n", "1")[1]


def test_token_states_are_dropped_by_word_alone(run: Run, data: Path) -> None:
    path = data / "default" / "default"
    with triptych.open(path, model="hashing", tokens=True) as collection:
        collection.add([{"id": "a", "text": "a red car"}])
    assert run("migrate", "--model", "hashing:64")[0] == 0
    assert info(run)["with_tokens"] == 1
    assert run("migrate", "--model", "hashing:32", "--drop-tokens")[0] == 0
    assert "with_tokens" not in info(run)
    assert run("migrate", "--back")[0] == 0
    assert info(run)["token_width"] == 64
    code, out, _ = run("migrate", "--model", "hashing:64", "--drop-tokens")
    assert code == 0
    assert out == "hashing:64 is searched already\nthe token states of 1 item are deleted\n"
    assert "token_width" not in info(run)


def test_what_is_lost_is_told_with_the_ways_out(run: Run, photos: Path) -> None:
    run("index", str(photos))
    (photos / "red.png").unlink()
    code, out, err = run("migrate", "--model", "hashing:64")
    assert code == 2
    assert not out
    assert "1 item cannot be embedded again" in err
    assert "red.png" in err
    assert "--from-thumbnails" in err
    assert info(run)["dim"] == 256

    code, out, err = run("migrate", "--model", "hashing:64", "--from-thumbnails")
    assert code == 0
    assert "1 of them from thumbnails" in out
    assert "red.png" in run("search", "red", "-n", "1")[1]


def test_what_is_lost_can_be_dropped(run: Run, photos: Path) -> None:
    run("index", str(photos))
    Image.new("RGB", (64, 48), "white").save(photos / "red.png")
    code, _, err = run("migrate", "--model", "hashing:64")
    assert code == 2
    assert "another one now" in err
    assert "Index their folder again" in err
    code, _, err = run("migrate", "--model", "hashing:64", "--drop-missing")
    assert code == 0
    assert "1 dropped:\n  picture_changed  " in err
    assert info(run)["count"] == 3


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--model", "hashing:64", "--back"], "not allowed with"),
        (["--model", "nothing"], "Unknown model"),
        (["--model", "hashing:64", "-c", "nowhere"], "There is no collection"),
        (["--model", "vectors:mine:8"], "makes no vectors"),
        (["--back"], "no vectors of another model"),
        ([], "Got no model to migrate to"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)  # fmt: skip
def test_bad_calls(run: Run, photos: Path, line: list[str], said: str) -> None:
    run("index", str(photos))
    code, out, err = run("migrate", *line)
    assert code == 2
    assert not out
    assert said in err
    assert "Traceback" not in err
