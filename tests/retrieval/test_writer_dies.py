"""A process that writes for others and is killed at it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from triptych.encoders.hashing import HashingEncoder
from triptych.errors import NotAvailable
from triptych.retrieval.collection import Collection

WRITER = """
import os, signal, sys, time
from triptych.encoders.hashing import HashingEncoder
from triptych.index.sqlite.store import Store
from triptych.retrieval.collection import Collection

collection = Collection.open(sys.argv[1], embedder=HashingEncoder(dim=16))
collection.upsert([{"id": "first", "text": "x"}])
Store.write = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A collection that another process writes to, which dies at the next write."""
    folder = tmp_path / "c"
    command = [sys.executable, "-c", WRITER, str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        yield folder
        process.kill()


def test_an_upsert_is_done_again_by_who_asked(folder: Path) -> None:
    with Collection.open(folder, embedder=HashingEncoder(dim=16)) as collection:
        assert collection.upsert([{"id": "second", "text": "y"}]) == 1
        assert None not in collection.get(["first", "second"])


def test_of_an_add_nobody_knows_whether_it_was_done(folder: Path) -> None:
    with Collection.open(folder, embedder=HashingEncoder(dim=16)) as collection:
        with pytest.raises(NotAvailable, match="unknown"):
            collection.add([{"id": "second", "text": "y"}])
        assert collection.add([{"id": "third", "text": "z"}]) == 1
