"""What the documents print is run: Python, shell and JSON, page by page, in a folder of pictures."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import triptych
from triptych.cli.main import main

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

ELSEWHERE = {
    "pip install": "tests/test_install.py installs the wheel",
    ".venv/bin/pip install": "the same",
    "python3 -m venv": "the same",
    ". .venv/bin/activate": "a shell's own",
    "make": "the target exists (tests/test_docs.py)",
    "docker": "no containers here",
    "TRIPTYCH_API_KEY=": "docker compose: no containers here",
    "kubectl": "no cluster here",
    "curl": "against a running server, below",
    "triptych serve": "the same",
    "triptych mcp": "tests/integrations/test_mcp.py talks to it",
    "python -m triptych.training": "tests/training/test_run.py runs the smoke recipe",
    "apt-get download": "100 MB and more; tests/training makes a small library, and dictionaries",
    "pip download": "the same",
    "for package in": "the same",
    "python -m benchmarks": "minutes to hours",
}
ON_A_USERS_DISK = {
    "open_clip:": "weights that are not here; tests/retrieval/test_migrate.py migrates",
    "default:.work/mine": "a model that somebody trained",
    "migrate --back": "follows the line that needs weights",
    "migrate --drop-old": "the same",
}
OWN_TESTS = {
    "http.md": "tests/api/test_http_document.py",
    "rag.md": "tests/test_docs.py",
    "integrations.md": "tests/integrations/test_integrations_page.py",
}
"""Pages whose Python and JSON speak to a server or need an extra, and who runs them."""

PRELUDE = """
import numpy as np
import triptych
items = [{"id": name, "text": name} for name in ("0", "1", "id-of-an-item")]
ids, v = ["0"], np.ones(512, dtype=np.float32)
"""
NEEDS_SERVER = "triptych.connect"


def blocks(path: Path, language: str) -> list[str]:
    found = re.findall(rf"```{language}\n(.*?)```", path.read_text("utf-8"), flags=re.DOTALL)
    return [textwrap.dedent(block) for block in found]


def commands(path: Path) -> list[str]:
    return re.findall(r"^\$ (.*)$", "\n".join(blocks(path, "console")), flags=re.MULTILINE)


def is_elsewhere(command: str) -> bool:
    return command.startswith(tuple(ELSEWHERE)) or any(n in command for n in ON_A_USERS_DISK)


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that the pages name, and a home with pictures."""
    colours = {"dog": "brown", "car": "red", "shoe": "blue"}
    for folder in ("Pictures", "Scans"):
        (tmp_path / folder).mkdir()
        for name, colour in colours.items():
            Image.new("RGB", (64, 48), colour).save(tmp_path / folder / f"{name}.jpg")
    for name in ("photo.jpg", "shoe.jpg", "a.jpg", "b.png", "racing car.jpg", "car.jpg"):
        Image.new("RGB", (64, 48), "green").save(tmp_path / name)
    rows = [{"id": "p-1", "text": "a red shoe", "shop": "Nord", "price": 40}]
    (tmp_path / "products.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "products.csv").write_text("id,text,price\np-1,a red shoe,40\n")
    (tmp_path / "rows.jsonl").write_text('{"sku": "1", "title": "a blue chair"}\n')
    (tmp_path / "handbook").mkdir()
    (tmp_path / "handbook/a.md").write_text(
        "# Filters\n\nA filter says which items may be found.\n"
    )
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards/0.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("k.txt"), io.BytesIO())
    pairs = [
        {"id": str(at), "split": "dev", "image": (tmp_path / name).read_bytes()}
        | {"texts": [f"picture {at}"], "label": "", "attributes": "{}"}
        for at, name in enumerate(("a.jpg", "b.png"))
    ]
    pq.write_table(pa.Table.from_pylist(pairs), tmp_path / "pairs.parquet")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TRIPTYCH_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def stocked(desk: Path) -> Path:
    """The desk, and collections with an item."""
    for name in ("default", "photos"):
        with triptych.open(name=name) as collection:
            collection.add({"id": "shoe", "text": "a red shoe", "metadata": {"price": 70}})
    return desk


def runs(command: str) -> list[str]:
    """Return the arguments of a `triptych` command as the shell would give them."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|")
    lexer.whitespace_split, lexer.commenters = True, "#"
    words = list(lexer)
    words = words[: words.index("|")] if "|" in words else words
    assert words[0] == "triptych", command
    return [os.path.expanduser(word) for word in words[1:]]


@pytest.mark.parametrize("page", [p for p in PAGES if commands(p)], ids=lambda p: p.name)
def test_the_shells_commands_run(
    page: Path, stocked: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in commands(page):
        if is_elsewhere(command):
            continue
        code = main(runs(command))
        assert code == 0, (command, capsys.readouterr().err)


@pytest.mark.parametrize(("page", "test"), OWN_TESTS.items())
def test_a_page_that_is_left_out_has_a_test_of_its_own(page: str, test: str) -> None:
    assert page in (ROOT / test).read_text("utf-8")


def test_every_name_in_the_list_of_what_runs_elsewhere_is_used() -> None:
    every = [command for page in PAGES for command in commands(page)]
    unused = {name for name in ELSEWHERE if not any(c.startswith(name) for c in every)}
    assert unused <= {"python -m benchmarks", "docker"}


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if blocks(p, "python") and p.name not in OWN_TESTS],
    ids=lambda p: p.name,
)
def test_the_python_of_a_page_runs_from_top_to_bottom(page: Path, desk: Path) -> None:
    code = [PRELUDE]
    for block in blocks(page, "python"):
        if NEEDS_SERVER in block:
            compile(block, page.name, "exec", flags=0x2000)  # await at the top is allowed there
        else:
            code.append(block)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", "\n".join(code)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if blocks(p, "json") and p.name not in OWN_TESTS],
    ids=lambda p: p.name,
)
def test_json_in_a_page_is_a_line_of_a_manifest(page: Path, desk: Path) -> None:
    Path("img").mkdir()
    Image.new("RGB", (9, 9)).save("img/17.jpg")
    for block in blocks(page, "json"):
        Path("rows.jsonl").write_text(json.dumps(json.loads(block)) + "\n")
        assert main(["index", "rows.jsonl", "-c", "rows", "--strict"]) == 0
    assert triptych.open(name="rows").count() == len(blocks(page, "json"))


def test_requests_by_curl_are_answered(stocked: Path) -> None:
    lines = {
        page.name: [c for c in commands(page) if c.startswith("curl") and "localhost:8000" in c]
        for page in PAGES
        if page.name not in OWN_TESTS
    }
    assert lines["README.md"] and lines["start.md"]
    with subprocess.Popen(
        [sys.executable, "-m", "triptych", "serve", "--port", "0", "--log", "off"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as server:
        try:
            assert server.stdout is not None
            said = server.stdout.readline()
            port = re.search(r"127\.0\.0\.1:(\d+)", said)
            assert port is not None, said
            for command in [line for page in lines.values() for line in page]:
                there = command.replace("localhost:8000", f"localhost:{port[1]}")
                done = subprocess.run(["bash", "-c", there], capture_output=True, text=True)
                assert json.loads(done.stdout)["hits"], (command, done.stdout, done.stderr)
        finally:
            server.terminate()
