"""What a user's own type checker says of the public names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent

PROGRAM = """\
import triptych
from triptych import Collection, Hit, Item, Part

def fill(collection: Collection) -> int:
    written = collection.upsert({"id": "beach", "image": "photo.jpg"})
    written += collection.add(Item(id="sea", text="the sea"))
    written += collection.upsert([{"id": "1", "text": "a"}, Item(id="2", text="b")])
    return written + collection.upsert({"id": str(n), "text": "c"} for n in range(3))

def find(collection: Collection) -> list[Hit]:
    return collection.search("a dog", minus=["heels", Part(image="a.jpg")], like="sea", limit=3)

with triptych.open(":memory:") as here:
    fill(here)
    find(here)
there = triptych.connect("http://127.0.0.1:8000")
there.upsert({"id": "beach", "image": "photo.jpg"})
hits: list[Hit] = there.search("a dog", minus="heels")
"""


def said_of(program: str, folder: Path) -> str:
    file = folder / "program.py"
    file.write_text(program)
    mypy = [sys.executable, "-m", "mypy", "--no-error-summary", str(file)]
    done = subprocess.run(mypy, cwd=ROOT, capture_output=True, text=True)
    assert not done.stderr
    return done.stdout


def test_a_users_program_is_well_typed(tmp_path: Path) -> None:
    assert said_of(PROGRAM, tmp_path) == ""


def test_a_wrong_type_is_told(tmp_path: Path) -> None:
    wrong = 'import triptych\ntriptych.open(":memory:").upsert(5)\n'
    assert "[arg-type]" in said_of(wrong, tmp_path)
