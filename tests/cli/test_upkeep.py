"""verify, export, import and dedup, as a person calls them."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from triptych.retrieval.folder import STORE

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def indexed(run: Run, photos: Path, data: Path) -> Path:
    shutil.copy(photos / "red.png", photos / "red again.png")
    assert run("index", str(photos))[0] == 0
    return data / "default" / "default"


def damage(folder: Path) -> None:
    raw = bytearray((folder / STORE).read_bytes())
    at = raw.index(b"red again.png")
    raw[at] ^= 1
    (folder / STORE).write_bytes(raw)


def test_verify_says_what_is_wrong_and_repairs_it(run: Run, indexed: Path) -> None:
    code, out, _ = run("verify")
    assert code == 0 and "wrong" not in out and "items       5 " in out
    damage(indexed)
    code, out, _ = run("verify")
    assert code == 1 and "1 wrong" in out
    assert "To repair it: triptych verify --repair -c default" in out
    code, out, _ = run("verify", "--repair", "--json")
    said = json.loads(out)
    assert code == 0 and said["ok"] and said["lost"] == [] and said["still_wrong"] == []
    assert Path(said["damaged_store"]).name == f"{STORE}.damaged-1"
    code, out, _ = run("verify", "--repair")
    assert code == 0 and "repaired" not in out


def test_the_hint_of_a_damaged_store_is_a_command_that_helps(run: Run, indexed: Path) -> None:
    raw = bytearray((indexed / STORE).read_bytes())
    raw[3] ^= 1
    (indexed / STORE).write_bytes(raw)
    code, _, err = run("info")
    assert code == 2
    command = err.partition("Run: triptych ")[2].split()
    assert command[:2] == ["verify", "--repair"]
    assert run(*command)[0] == 0
    assert run("info")[0] == 0


def test_a_model_that_went_bad_is_found_and_the_hint_helps(
    run: Run, photos: Path, data: Path
) -> None:
    assert run("index", str(photos), "--model", "default")[0] == 0
    (copy,) = (data / "models").iterdir()
    raw = bytearray((copy / "shared.bin").read_bytes())
    raw[len(raw) // 2] ^= 1  # every size stays
    (copy / "shared.bin").write_bytes(raw)
    code, out, _ = run("verify")
    assert code == 1 and "shared.bin of model" in out and f"Restore {copy}, or" in out
    assert "delete it: it is copied again" in out
    assert "--repair" not in out
    assert run("verify", "--repair")[0] == 1
    shutil.rmtree(copy)
    assert run("search", "red")[0] == 0 and run("verify")[0] == 0


def test_export_and_import(run: Run, indexed: Path, tmp_path: Path) -> None:
    file = str(tmp_path / "all.tar")
    code, out, _ = run("export", file)
    assert code == 0 and out.startswith(f"5 items in {file}")
    assert run("export", file)[0] == 2 and run("export", file, "--force")[0] == 0
    code, out, err = run("import", file, "-c", "copy")
    assert code == 0 and err == "" and out.startswith("5 items in ")
    assert run("search", "red", "--json")[1] == run("search", "red", "--json", "-c", "copy")[1]
    code, _, err = run("import", file, "-c", "copy")
    assert code == 2 and "has 5 items" in err


def test_import_names_the_model_that_is_needed(
    run: Run, indexed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("export", str(tmp_path / "all.tar"))
    monkeypatch.setattr("triptych.encoders.hashing.HashingEncoder.from_name", _other)
    code, out, err = run("import", str(tmp_path / "all.tar"), "-c", "copy")
    assert code == 0 and out.startswith("5 items")
    assert "the model hashing:256 is needed" in err and "models/" in err


def _other(argument: str, *, threads: int = 1) -> object:
    from triptych.encoders.vectors import CallerVectors

    return CallerVectors("other", 256)


def test_dedup(run: Run, indexed: Path, photos: Path) -> None:
    code, out, _ = run("dedup")
    assert code == 0 and out.startswith("exact duplicates, in groups: 1 of 2 items (1 to spare)")
    assert f"  {photos}/red again.png\n" in out and f"  {photos}/red.png\n" in out
    said = json.loads(run("dedup", "--similar", "0.9999", "--json")[1])
    assert len(said["exact"]) == 1 and said["similar"] == []
    (photos / "red.png").unlink()
    out = run("dedup")[1]
    assert f"  {photos}/red again.png\n" in out and f"  {photos}/red.png  (gone)\n" in out
    assert run("dedup", "--similar", "7")[0] == 2
    assert run("dedup", "-c", "nothing")[0] == 2


@pytest.mark.parametrize("command", [["verify"], ["dedup"], ["export", "there.triptych"]])
def test_of_a_collection_that_is_not_there_those_that_are_there_are_named(
    command: list[str], run: Run, indexed: Path
) -> None:
    code, _, err = run(*command, "-c", "defualt")
    assert code == 2
    assert f"no collection 'defualt' in {indexed.parent}, known: default." in err
