from pathlib import Path

import pytest

import triptych
from triptych.errors import InvalidInput, NotFound
from triptych.settings import Settings


def test_empty_values_count_as_unset() -> None:
    settings = Settings.from_env({"TRIPTYCH_MODEL": "", "TRIPTYCH_DATA": "/data"})
    assert settings.model == "default"
    assert settings.data == Path("/data")
    assert settings.num_threads >= 1


@pytest.mark.parametrize("value", ["-1", "two", "1.5", "²"])
def test_a_thread_count_that_is_none_says_so(value: str) -> None:
    with pytest.raises(InvalidInput, match="TRIPTYCH_THREADS"):
        Settings.from_env({"TRIPTYCH_THREADS": value})


def test_an_unknown_model_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="open_clip"):
        Settings(data=tmp_path).open_model("clip:ViT")


def test_the_model_of_a_collection_is_kept_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data=tmp_path)
    with settings.open_collection(tmp_path / "default" / "a") as collection:
        fingerprint = collection.embedder.fingerprint
        collection.add([{"id": "note", "text": "a red bicycle"}])
    kept = tmp_path / "models" / fingerprint
    assert (kept / "text.onnx").is_file()
    # an upgrade of the package brings another default model
    monkeypatch.setattr("triptych.encoders.onnx.DEFAULT_FOLDER", tmp_path / "gone")
    with settings.open_collection(tmp_path / "default" / "a") as collection:
        assert collection.search("bicycle")[0].id == "note"


def test_collections_from_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPTYCH_DATA", str(tmp_path))
    monkeypatch.setenv("TRIPTYCH_MODEL", "hashing")
    triptych.create("one").close()
    with triptych.open(name="two") as collection:
        collection.upsert([{"id": "x", "text": "red", "metadata": {"n": 1}}])
    assert triptych.collections() == ["one", "two"]
    with triptych.open(name="two") as collection:
        assert [hit.metadata for hit in collection.search("red", top_k=3)] == [{"n": 1}]
    triptych.drop("one")
    assert triptych.collections() == ["two"]
    with pytest.raises(InvalidInput, match="exists already"):
        triptych.create("two")


def test_open_takes_a_path_or_a_name() -> None:
    with pytest.raises(InvalidInput, match="expected one of them"):
        triptych.open()
