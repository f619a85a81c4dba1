"""`triptych index --documents` and `triptych context`, as a person meets them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def handbook(tmp_path: Path) -> Path:
    folder = tmp_path / "handbook"
    folder.mkdir()
    (folder / "a.md").write_text("# Wheel\n\nTurn the wheel to the left.\n\n![x](/etc/passwd.png)")
    (folder / "broken.pdf").write_bytes(b"%PDF")
    return folder


def test_documents_come_in_and_answer(run: Run, handbook: Path) -> None:
    code, out, err = run("index", "--documents", str(handbook))
    assert code == 0
    assert (
        out.startswith(f"{handbook}: 1 added, 1 left out in ") and "1 passages, 0 pictures" in out
    )
    assert f"left out: {handbook}/broken.pdf: It is damaged, or no PDF." in err
    assert f"note: {handbook}/a.md: It names the picture '/etc/passwd.png'" in err
    assert "1 unchanged" in run("index", "--documents", str(handbook))[1]
    code, out, _ = run("context", "turn", "the", "wheel")
    assert code == 0 and "[1] a.md, characters 0-" in out and "Turn the wheel to the left." in out
    said = json.loads(run("context", "wheel", "--json", "--budget", "300", "--expand", "0")[1])
    assert said["tokens"] <= 300
    assert said["sources"][0]["citation"]["document"] == str(handbook / "a.md")


def test_files_of_other_kinds_are_counted(run: Run, handbook: Path, photos: Path) -> None:
    for name in ("a.rst", "b.RST", "c.docx", "LICENSE", ".hidden.rst", "d.png"):
        (handbook / name).touch()
    _, _, err = run("index", "--documents", str(handbook))
    assert "  passed over, by their ending: 2 .rst, 1 without, 1 .docx\n" in err
    assert "passed over" not in run("index", "--documents", str(handbook / "a.md"))[2]
    (photos / "film.mp4").touch()
    assert run("index", str(photos), "-c", "photos")[2] == ""  # where there are pictures
    for n in range(12):
        (handbook.parent / "films").mkdir(exist_ok=True)
        (handbook.parent / f"films/x.{n}").touch()
    code, out, err = run("index", str(handbook.parent / "films"), "-c", "photos")
    assert code == 0 and out.startswith("no items in ")
    assert err.startswith("  passed over, by their ending: 1 .") and "and 2 kinds more" in err


def test_a_context_of_pictures_alone_says_that_it_cites_nothing(run: Run, photos: Path) -> None:
    run("index", str(photos))
    code, out, err = run("context", "red")
    assert code == 0 and "picture in red.png" in out
    assert "triptych index --documents FOLDER" in err


def test_a_filter_that_matches_nothing_is_named(run: Run, handbook: Path) -> None:
    run("index", "--documents", str(handbook))
    code, out, err = run("context", "wheel", "--filter", 'formt = "pdf"')
    assert code == 0 and "found: 0." in out
    assert err == "nothing found\n  No item has the field 'formt'.\n"


def test_the_report_and_strict_work_as_for_pictures(run: Run, handbook: Path) -> None:
    report = handbook.parent / "left-out.jsonl"
    assert run("index", "--documents", str(handbook), "--strict", "--report", str(report))[0] == 1
    (line,) = report.read_text().splitlines()
    assert json.loads(line)["code"] == "document_damaged"
    assert run("index", "--documents")[0] == 2


def test_without_the_extra_nothing_is_made(
    run: Run, handbook: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("markdown", "html", "pdf"):
        monkeypatch.delitem(sys.modules, f"triptych.retrieval.rag.{module}", raising=False)
    monkeypatch.setitem(sys.modules, "selectolax.lexbor", None)  # Markdown needs it as well
    for source in (handbook, handbook / "a.md"):
        code, out, err = run("index", "--documents", str(source))
        assert (code, out) == (2, "")
        assert "needs 'selectolax.lexbor'" in err and 'pip install "triptych[documents]"' in err
    assert not data.exists()
    (handbook / "a.md").unlink()
    assert run("index", "--documents", str(handbook))[0] == 0, "a PDF is read without"


def test_a_mistyped_name_is_noticed_before_the_work_on_others(run: Run, handbook: Path) -> None:
    run("collections", "create", "default")
    code, out, err = run("index", "--documents", str(handbook), f"{handbook}z")
    assert code == 2 and out == "" and f"There is no folder or file '{handbook}z'" in err
    assert json.loads(run("info", "--json")[1])["count"] == 0
