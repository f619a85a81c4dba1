"""The documents as a site: built strictly, whole, and without a request to another host."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TECHNIQUES = sorted((ROOT / "docs/techniques").glob("*.md"))


def built(folder: Path) -> Path:
    """Build the site strictly into a folder, and return it."""
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return built(tmp_path_factory.mktemp("site"))


def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        for tag in re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page.read_text("utf-8")):
            assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", tag), (page, tag)
    for sheet in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", sheet.read_text("utf-8")), sheet


def test_the_model_card_of_the_site_is_the_one_beside_the_model(site: Path) -> None:
    shown = (site / "model-card/index.html").read_text("utf-8")
    assert "MobileNetEdgeTPU" in shown and "--8&lt;--" not in shown


@pytest.mark.parametrize("page", sorted((ROOT / "docs").rglob("*.md")), ids=lambda p: p.name)
def test_every_page_is_in_the_navigation(page: Path) -> None:
    assert str(page.relative_to(ROOT / "docs")) in (ROOT / "mkdocs.yml").read_text()


@pytest.mark.parametrize("page", TECHNIQUES, ids=lambda page: page.name)
def test_a_technique_says_where_it_lives_and_what_it_measured(page: Path) -> None:
    text = page.read_text("utf-8")
    if page.name == "index.md":
        assert {f"({other.name})" for other in TECHNIQUES if other != page} <= set(
            re.findall(r"\(\w+\.md\)", text)
        )
        return
    assert "**Rows**" in text and "**What it is.**" in text and "**Measured" in text
    where = re.search(r"\*\*Where\.\*\*(.*?)\n\n", text, flags=re.DOTALL)
    assert where is not None
    room = ROOT
    for name in re.findall(r"`([\w/.]+(?:\.py|/)?)`", where[1]):
        found = [p / name for p in (ROOT / "triptych", ROOT, room) if (p / name).exists()]
        if not re.search(r"\.py$|/", name):
            continue
        assert found, f"{page.name} names {name}"
        room = found[0].parent


@pytest.mark.parametrize("page", TECHNIQUES, ids=lambda page: page.name)
def test_a_techniques_figures_are_those_of_the_benchmarks(page: Path) -> None:
    measured = re.search(
        r"\*\*Measured(.*?)(\*\*Not |\n## |\Z)", page.read_text("utf-8"), re.DOTALL
    )
    if page.name == "index.md":
        return
    assert measured is not None
    benchmarks = (ROOT / "docs/benchmarks.md").read_text("utf-8")
    figures = re.findall(r"\d+\.\d+", re.sub(r"`[^`]*`|\]\([^)]*\)", "", measured[1]))
    other = [
        one for one in figures if not re.search(rf"(?<![\d.]){re.escape(one)}(?!\d)", benchmarks)
    ]
    assert other == [], f"not in docs/benchmarks.md: {other}"


def _lines() -> list[list[str]]:
    text = (ROOT / "docs/techniques/index.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if re.match(r"\| [0-4U]-\d\d \|", line)]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


@pytest.mark.parametrize("line", _lines(), ids=lambda line: line[0])
def test_a_seeds_technique_has_a_line_with_name_place_and_measure(line: list[str]) -> None:
    row, says, here, where, measured, page = line
    assert says and here and measured
    for name in re.findall(r"`([^`]+)`", where):
        assert (ROOT / "triptych" / name).exists() or (ROOT / name).exists(), name
    target = re.search(r"\((\w+\.md)\)", page)
    assert target is not None
    assert row in (ROOT / "docs/techniques" / target[1]).read_text("utf-8"), (
        "the page names the row"
    )
    benchmarks = (ROOT / "docs/benchmarks.md").read_text("utf-8")
    known = benchmarks + (ROOT / "docs/techniques" / target[1]).read_text("utf-8")
    figures = re.findall(
        r"\d+(?:\.\d+)?", re.sub(r"\]\([^)]*\)|(?:as|below|with) [0-4]-\d\d", "", measured)
    )
    lost = [one for one in figures if not re.search(rf"(?<![\d.]){re.escape(one)}(?!\d)", known)]
    assert not lost, lost


def test_every_row_of_the_seeds_is_built_or_named_as_not_built() -> None:
    text = (ROOT / "docs/techniques/index.md").read_text("utf-8")
    named: set[str] = set()
    for first, last in re.findall(r"([0-4U]-\d\d)(?: to ([0-4]-\d\d))?", text):
        numbers = range(int(first[2:]), int((last or first)[2:]) + 1)
        named |= {f"{first[0]}-{number:02}" for number in numbers}
    assert len(named) == 126
