"""What a command writes where: odd names, odd terminals, outputs that are closed or full."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from triptych.cli.main import COMMANDS, main
from triptych.encoders.hashing import HashingEncoder
from triptych.retrieval.collection import Collection

Run = Callable[..., tuple[int, str, str]]


def piped(*arguments: str, encoding: str = "utf-8", to: str = "cat") -> tuple[int, bytes, bytes]:
    """Call the command as a shell does, its output into another program; not in this process."""
    command = shlex.join([sys.executable, "-m", "triptych", *arguments])
    variables = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUNBUFFERED": ""}
    shell = ["bash", "-o", "pipefail", "-c", f"{command} {to if to[0] in '>2' else '| ' + to}"]
    done = subprocess.run(shell, capture_output=True, env=variables)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252"])
def test_no_name_is_too_odd_for_any_terminal(photos: Path, data: Path, encoding: str) -> None:
    odd = [
        os.fsdecode(b"not-utf8-\xff.png"),
        "\u65e5\u672c \U0001f600.png",
        "\xe9.png",
        "e\u0301.png",
    ]
    for name in odd:
        shutil.copy(photos / "red.png", photos / name)
    main(["index", str(photos)])
    code, out, err = piped("search", "red", "-n", "9", encoding=encoding)
    assert (code, err, len(out.splitlines())) == (0, b"", 8)
    code, out, err = piped("search", "red", "--json", "-n", "9", encoding=encoding)
    assert (code, err) == (0, b"")
    assert {*odd} <= {Path(hit["uri"]).name for hit in json.loads(out.decode(encoding))}
    code, out, err = piped("search", "red", "-f", "-n", "9", encoding=encoding)
    assert (code, err) == (0, b"")
    assert all(Path(os.fsdecode(line)).exists() for line in out.splitlines())


@pytest.mark.parametrize(
    ("to", "code", "said"),
    [
        ("(exec 0<&-; sleep 3)", 0, b""),  # as `head` does
        (">/dev/full", 1, b"triptych: The system refused: No space left on device.\n"),
        (">&-", 0, b""),
    ],
)
def test_an_output_that_is_closed_or_full_is_no_traceback(to: str, code: int, said: bytes) -> None:
    found, _, err = piped("version", to=to)
    assert (found, err) == (code, said)


def test_a_folder_is_indexed_where_nobody_listens(photos: Path, data: Path) -> None:
    assert piped("index", str(photos), to="2>&-")[0] == 0
    with Collection.open(data / "default/default", embedder=HashingEncoder()) as collection:
        assert len(collection) == 4


def test_odd_metadata_of_a_picture_is_no_warning(photos: Path, data: Path) -> None:
    jpeg = photos / "odd.jpg"
    Image.new("RGB", (64, 64), "red").save(jpeg)
    exif = b"\xff\xe1\x00\x20Exif\0\0II*\0\xff\xff\xff\xff" + b"\xff" * 16
    jpeg.write_bytes(jpeg.read_bytes()[:2] + exif + jpeg.read_bytes()[2:])
    code, out, err = piped("index", str(photos))
    assert (code, err) == (0, b"")
    assert out.startswith(b"5 added in ")


def test_a_long_text_without_blanks_is_shown_as_far_as_there_is_room(
    run: Run, tmp_path: Path
) -> None:
    texts = ["\u8d64\u3044\u9774" * 40, "a red shoe and " * 40, "first\nsecond"]
    rows = [json.dumps({"id": str(at), "text": text}) for at, text in enumerate(texts)]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    run("index", str(tmp_path / "rows.jsonl"))
    lines = sorted(line.partition("  ")[2] for line in run("search", "red")[1].splitlines())
    assert lines[0] == f"0  {(texts[0])[:78]} \u2026"
    assert lines[1].endswith(" \u2026")
    assert set(lines[1][3:-2].split()) == {"a", "red", "shoe", "and"}
    assert lines[2] == "2  first second"


def test_nothing_large_is_loaded_before_ctrl_c_ends_quietly() -> None:
    code = "import sys, triptych.cli.main; print({'numpy', 'faiss', 'PIL'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.parametrize(
    "loading", ["raise KeyboardInterrupt", "raise ImportError from KeyboardInterrupt()"]
)
def test_ctrl_c_while_a_command_is_loaded_is_quiet(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loading: str
) -> None:
    (tmp_path / "loading.py").write_text(loading)  # the second as pybind11 does
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(COMMANDS._targets, "loading", "loading:Loading")
    said = "triptych: interrupted; what was acknowledged is kept.\n"
    assert run("loading") == (130, "", said)
