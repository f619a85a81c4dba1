"""What the documents say is run, or looked up."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from triptych.cli.main import COMMANDS, USAGE, main

ROOT = Path(__file__).parent.parent
READMES = [ROOT / "README.md", ROOT / "README.zh.md"]
DOCUMENTS = [*READMES, ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text("utf-8"), flags=re.DOTALL)


def test_the_readmes_python_runs_as_printed(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "shoe.jpg")
    (code,) = blocks(ROOT / "README.md", "python")
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"TRIPTYCH_DATA": str(tmp_path / "data")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.search(r"^0\.\d{3} note \{'shop': 'Nord'\}$", done.stdout, flags=re.MULTILINE)


def test_the_python_of_the_documents_about_documents_runs_as_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("filters.md", "collections.md"):
        shutil.copy(ROOT / "docs" / name, tmp_path / "docs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TRIPTYCH_DATA", str(tmp_path / "data"))
    asked = []
    scope = {"llm": lambda prompt: asked.append(prompt) or "In ISO form [1]."}
    for block in blocks(ROOT / "docs/rag.md", "python"):
        exec(compile(block, "rag.md", "exec"), scope)
    shown = capsys.readouterr().out
    assert re.search(r"^\d+ documents, \d+ passages, \d+ pictures$", shown, flags=re.MULTILINE)
    assert re.search(r"^filters\.md, characters \d+-\d+$", shown, flags=re.MULTILINE)
    assert "Dates as text in ISO form" in asked[0]


def test_the_readme_shows_code_before_its_25th_line() -> None:
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert any(line.startswith("```python") for line in lines[:24])


def test_the_chinese_readme_shows_what_the_english_one_does() -> None:
    english, chinese = READMES
    code = {language: blocks(english, language) for language in ("python", "console")}
    for language, theirs in code.items():
        ours = blocks(chinese, language)
        assert ours and set(ours) <= set(theirs)
    queries = r"^\| (`.*`) \|"
    found = [re.findall(queries, path.read_text("utf-8"), flags=re.MULTILINE) for path in READMES]
    assert len(found[0]) == 6 and found[0] == found[1]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_in_documents_exist(path: Path) -> None:
    for block in blocks(path, "console"):
        for command in re.findall(r"^\$ triptych (\w+)", block, flags=re.MULTILINE):
            assert command in COMMANDS.names()
        for target in re.findall(r"^\$ make (\w+)", block, flags=re.MULTILINE):
            assert f"\n{target}:" in (ROOT / "Makefile").read_text()


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text("utf-8")):
        assert "://" in link or (path.parent / link).exists(), link


@pytest.mark.parametrize("name", COMMANDS.names())
def test_every_command_has_help_and_a_line_in_the_usage(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        main([name, "--help"])
    assert exit.value.code == 0
    assert f"usage: triptych {name}" in capsys.readouterr().out
    assert f"\n  {name} " in USAGE


def test_options_in_the_command_line_document_exist(capsys: pytest.CaptureFixture[str]) -> None:
    known = set()
    for name in COMMANDS.names():
        with pytest.raises(SystemExit):
            main([name, "--help"])
        known |= set(re.findall(r"--[a-z][a-z-]+", capsys.readouterr().out))
    named = set(re.findall(r"--[a-z][a-z-]+", (ROOT / "docs/cli.md").read_text("utf-8")))
    assert named <= known
