import gc
from pathlib import Path
from typing import Any

import pytest

import triptych
from triptych.cache.memory import MemoryCache
from triptych.encoders.base import EmbeddingModel
from triptych.errors import InvalidInput, ModelMismatch, NotFound
from triptych.retrieval.answering.query_log import QueryLog
from triptych.retrieval.answering.questions import asked_of
from triptych.retrieval.maintenance.migrate import migrate
from triptych.settings import Settings

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize("page", ["start.md", "collections.md"])
def test_the_data_folder_lies_where_the_documents_say(
    page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    assert Settings.from_env({}).data == Path("/home/ada/.local/share/triptych")
    assert "`~/.local/share/triptych`" in (DOCS / page).read_text("utf-8")


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


def test_a_migration_while_the_model_is_opened_is_no_mismatch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(data=tmp_path, model="hashing:32")
    model_of = Settings.model_of
    with settings.open_collection(tmp_path / "c") as other:
        other.add([{"id": "1", "text": "red shoe"}])

        def late(self: Settings, *args: Any, **options: Any) -> EmbeddingModel:
            model = model_of(self, *args, **options)
            migrate(other, settings.open_model("hashing:16"))
            return model

        monkeypatch.setattr(Settings, "model_of", late)
        with settings.open_collection(tmp_path / "c") as collection:
            assert collection.embedder.dim == 16 and len(collection.search("red shoe")) == 1
    with pytest.raises(ModelMismatch):
        settings.open_collection(tmp_path / "c", model="hashing:32")


def test_open_takes_a_path_or_a_name() -> None:
    with pytest.raises(InvalidInput, match="expected one of them"):
        triptych.open()


def test_a_collection_that_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRIPTYCH_DATA", str(tmp_path))
    monkeypatch.setenv("TRIPTYCH_MODEL", "hashing")
    monkeypatch.setenv("TRIPTYCH_QUERY_LOG", "1")
    for expected in ([], ["a red bicycle"]):
        with triptych.open(name="one", cache=True) as collection:
            collection.upsert([{"id": "x", "text": "a red bicycle"}])
            log = tmp_path / "default" / "one" / "queries.json"
            asked = QueryLog(log).top(9)
            assert [asked_of(question)[0].parts[0].text for question in asked] == expected
            first = collection.search("a red bicycle")
            assert collection.search("a red bicycle") == first
        del collection
        gc.collect()
    with triptych.open(name="one") as collection:  # the model is the same, cached or not
        assert collection.search("a red bicycle") == first
    triptych.drop("one")
    assert not log.exists()


def test_two_collections_may_share_a_cache(tmp_path: Path) -> None:
    cache = MemoryCache(10**6)
    found = []
    for name in ("a", "b"):
        with triptych.open(tmp_path / name, model="hashing", cache=cache) as collection:
            collection.upsert([{"id": name, "text": "a red bicycle"}])
            found.append(collection.search("a red bicycle")[0].id)
    assert found == ["a", "b"]
    assert cache.stats()["memory"].hits == 3  # all but the first item's are the same text
    with triptych.open(":memory:", model="vectors:mine:2", cache=cache) as collection:
        collection.add([{"id": "v", "vector": [1, 0]}])
        for _ in range(2):
            assert collection.search(vector=[1, 0])[0].id == "v"
