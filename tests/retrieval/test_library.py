"""Collections by name, and the models that are kept for them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.retrieval.fakes import CountingModel
from triptych.errors import CollectionBusy, InvalidInput, NotFound
from triptych.retrieval.collection import Collection
from triptych.retrieval.library import Library, keep_model, model_folder


@pytest.fixture
def library(tmp_path: Path) -> Library:
    return Library(tmp_path / "data")


def make(library: Library, name: str) -> None:
    with Collection.open(library.create(name), embedder=CountingModel()) as collection:
        collection.add([{"id": name, "text": name}])


def test_create_list_open_drop(library: Library) -> None:
    assert library.list() == []
    make(library, "photos")
    make(library, "art_2-b")
    assert library.list() == ["art_2-b", "photos"]
    with Collection.open(library.existing("photos"), embedder=CountingModel()) as collection:
        assert collection.get("photos")[0] is not None
    with pytest.raises(InvalidInput, match="exists"):
        library.create("photos")
    library.drop("photos")
    assert library.list() == ["art_2-b"]
    make(library, "photos")


def test_an_unknown_name_lists_the_known(library: Library) -> None:
    with pytest.raises(NotFound, match="'x', known: none yet"):
        library.drop("x")
    make(library, "photos")
    with pytest.raises(NotFound, match="'x', known: photos"):
        library.existing("x")


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "A", "é", "a b", "a" * 65, "a\n", "a\0", ".trash-a", None, 3]
)
def test_names_cannot_leave_the_folder(library: Library, name: str) -> None:
    with pytest.raises(InvalidInput, match="expected 1 to 64"):
        library.path(name)
    with pytest.raises(InvalidInput, match="tenant"):
        Library(library.root, tenant=name)


def test_tenants_see_their_own(library: Library) -> None:
    make(library, "photos")
    assert Library(library.root, tenant="other").list() == []


def test_a_collection_that_is_written_to_is_not_dropped(library: Library) -> None:
    make(library, "photos")
    with Collection.open(library.existing("photos"), embedder=CountingModel()) as collection:
        collection.delete("photos")
        with pytest.raises(CollectionBusy):
            library.drop("photos")
    library.drop("photos")


def test_a_crash_while_dropping_leaves_no_zombie(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(library, "photos")
    make(library, "other")
    with monkeypatch.context() as patch:
        patch.setattr("triptych.retrieval.library.shutil.rmtree", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            library.drop("photos")
    assert library.list() == ["other"]
    library.drop("other")
    assert list(library.folder.iterdir()) == []


def test_a_model_is_kept_once(tmp_path: Path) -> None:
    model, root = tmp_path / "model", tmp_path / "data"
    model.mkdir()
    (model / "model.onnx").write_bytes(b"1")
    save = partial(shutil.copytree, model)
    kept = keep_model(save, root, "abc123")
    assert kept == model_folder(root, "abc123")
    (model / "model.onnx").unlink()
    (model / "model.onnx").write_bytes(b"2")  # an upgrade puts a new file in its place
    assert keep_model(save, root, "abc123") == kept
    assert (kept / "model.onnx").read_bytes() == b"1"
    assert [path.name for path in (root / "models").iterdir()] == ["abc123"]


@pytest.mark.parametrize("fingerprint", ["", "../x", "a/b", "."])
def test_a_fingerprint_is_no_path(tmp_path: Path, fingerprint: str) -> None:
    with pytest.raises(InvalidInput, match="fingerprint"):
        keep_model(Path.mkdir, tmp_path, fingerprint)


def test_a_copy_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        keep_model(partial(shutil.copytree, tmp_path / "nowhere"), tmp_path / "data", "abc")
    assert list((tmp_path / "data" / "models").iterdir()) == []


def test_no_room_for_a_model_is_said_and_leaves_nothing(tmp_path: Path) -> None:
    """The limit on the size of files stands for the disk's: Python gets an error of either."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.onnx").write_bytes(bytes(10_000))
    script = (
        "import functools, resource, shutil, sys; from triptych.retrieval.library import keep_model;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5_000, 5_000));"
        "keep_model(functools.partial(shutil.copytree, sys.argv[1]), sys.argv[2], 'abc')"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "model"), str(tmp_path / "data")]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert "DiskFull: The disk is full: the model was not copied" in ran.stderr
    assert list((tmp_path / "data" / "models").iterdir()) == []
