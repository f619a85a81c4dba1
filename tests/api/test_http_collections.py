"""Collections over HTTP, models, embeddings, reranking."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest

from tests.api.conftest import png
from tests.api.live import Live, serving
from triptych.encoders.onnx import OnnxModel
from triptych.errors import DiskFull
from triptych.settings import Settings


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("data"), also_models=("hashing:32",)) as live:
        yield live


def test_a_collection_is_made_listed_shown_and_dropped(running: Live) -> None:
    assert running.json("GET", "/v1/collections") == {"collections": []}
    info = running.json("POST", "/v1/collections", {"name": "b", "precision": "fp16"})
    assert set(info) == {
        "name", "count", "model", "fingerprint", "dim", "precision", "index", "recall_at_10",
        "pending", "pictures", "sequence", "format", "created", "damaged",
    }  # fmt: skip
    assert (info["name"], info["precision"], info["model"]) == ("b", "fp16", "hashing:64")
    running.json("POST", "/v1/collections", {"name": "a", "model": "hashing:32"})
    listed = running.json("GET", "/v1/collections")
    assert listed == {"collections": [{"name": "a"}, {"name": "b"}]}
    assert running.json("GET", "/v1/collections/a")["dim"] == 32
    assert running.json("POST", "/v1/collections/a/compact")["count"] == 0
    told = running.error("POST", "/v1/collections", {"name": "a"})
    assert told == (409, "already_exists")
    for name in ("a", "b"):
        assert running.json("DELETE", f"/v1/collections/{name}") is None
        assert running.error("GET", f"/v1/collections/{name}") == (404, "not_found")
        assert running.error("DELETE", f"/v1/collections/{name}") == (404, "not_found")
    assert running.json("GET", "/v1/collections") == {"collections": []}


@pytest.mark.parametrize(
    "body",
    [
        {}, {"name": ""}, {"name": "../x"}, {"name": "A"}, {"name": "x" * 65}, {"name": 5},
        {"name": "x", "precision": "fp8"}, {"name": "x", "tokens": 1}, {"name": "x", "path": "/"},
        {"name": "x", "model": "vectors:a"}, {"name": "x", "model": "vectors:../../a:4"},
    ],
)  # fmt: skip
def test_a_collection_that_cannot_be(running: Live, body: dict[str, Any]) -> None:
    assert running.error("POST", "/v1/collections", body) == (422, "invalid_input")


@pytest.mark.parametrize(
    "model", ["hashing:16", "/etc/passwd", "default:/etc", "os:system", "open_clip:x"]
)
def test_only_the_servers_models_can_be_named(running: Live, model: str) -> None:
    assert running.error("POST", "/v1/collections", {"name": "x", "model": model}) == (
        404, "not_found",
    )  # fmt: skip
    for path, body in (
        ("/v1/embeddings", {"input": "x", "model": model}),
        ("/v1/rerank", {"query": "x", "documents": ["y"], "model": model}),
    ):
        assert running.error("POST", path, body) == (404, "not_found")


def test_models_are_listed(running: Live) -> None:
    listed = running.json("GET", "/v1/models")
    assert listed["object"] == "list"
    assert [(one["id"], one["dim"]) for one in listed["data"]] == [
        ("hashing:64", 64), ("hashing:32", 32),
    ]  # fmt: skip


def test_a_model_tells_what_collections_call_it(tmp_path: Path) -> None:
    with serving(tmp_path, model="default") as live:
        info = live.json("POST", "/v1/collections", {"name": "a"})
        (model,) = live.json("GET", "/v1/models")["data"]
    assert model["id"] == "default" != info["model"]
    assert (model["name"], model["fingerprint"]) == (info["model"], info["fingerprint"])


def test_one_model_is_shown(running: Live) -> None:
    listed = running.json("GET", "/v1/models")["data"]
    for one in listed:
        assert running.json("GET", f"/v1/models/{one['id']}") == one
    assert running.json("GET", "/v1/models/hashing%3A32") == listed[1]
    head = running.client.head("/v1/models/hashing:64")
    assert (head.status_code, head.content) == (200, b"")
    refused = running.client.delete("/v1/models/hashing:64")
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    "name", ["hashing:16", "", "hashing:64/", "%2Fetc%2Fpasswd", "a/b", "%FF", "hashing%253A64"]
)
def test_a_model_that_is_not_there_is_not_shown(running: Live, name: str) -> None:
    assert running.error("GET", f"/v1/models/{name}") == (404, "not_found")


def test_a_model_is_shown_whose_name_is_a_path(tmp_path: Path) -> None:
    folder = tmp_path / "kept"
    OnnxModel.from_name("", threads=1).save(folder)
    with serving(tmp_path / "data", also_models=(f"default:{folder}",)) as live:
        expected = live.json("GET", "/v1/models")["data"][1]
        for name in (f"default:{folder}", quote(f"default:{folder}", safe="")):
            assert live.json("GET", f"/v1/models/{name}") == expected


def vectors(reply: Any) -> Any:
    return np.array([one["embedding"] for one in reply["data"]], dtype=np.float32)


def test_embeddings_in_every_form(running: Live) -> None:
    picture = base64.b64encode(png("red")).decode()
    uri = f"data:image/png;base64,{picture}"
    path = "/v1/embeddings"
    reply = running.json("POST", path, {"input": "a red dog", "model": "hashing:64"})
    assert (reply["object"], reply["model"]) == ("list", "hashing:64")
    assert reply["data"][0]["object"] == "embedding"
    text = vectors(reply)
    assert np.linalg.norm(text) == pytest.approx(1, abs=1e-5)
    mixed = running.json(
        "POST",
        path,
        {
            "input": [
                "a red dog",
                {"text": "a red dog"},
                {"image": uri},
                {"text": "x", "image": picture},
            ]
        },
    )
    assert [one["index"] for one in mixed["data"]] == [0, 1, 2, 3]
    np.testing.assert_array_equal(vectors(mixed)[:2], np.concatenate([text, text]))
    image = vectors(running.json("POST", path, {"input": [uri], "modality": "image"}))
    np.testing.assert_array_equal(image[0], vectors(mixed)[2])
    content = [
        {"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": uri}},
    ]  # fmt: skip
    said = running.json("POST", path, {"messages": [{"role": "user", "content": content}]})
    np.testing.assert_array_equal(vectors(said)[0], vectors(mixed)[3])
    coded = running.json("POST", path, {"input": "a red dog", "encoding_format": "base64"})
    raw = np.frombuffer(base64.b64decode(coded["data"][0]["embedding"]), dtype="<f4")
    np.testing.assert_array_equal(raw, text[0])
    other = running.json("POST", path, {"input": "a", "model": "hashing:32", "dimensions": 32})
    assert vectors(other).shape == (1, 32)


@pytest.mark.parametrize(
    "body",
    [
        {}, {"input": []}, {"input": ""}, {"input": " "}, {"input": [[1, 2]]}, {"input": [{}]},
        {"input": "a", "messages": []}, {"input": "a", "dimensions": 8}, {"input": None},
        {"input": "a", "encoding_format": "int8"}, {"messages": [{"role": "user", "content": []}]},
    ],
)  # fmt: skip
def test_what_cannot_be_embedded(running: Live, body: dict[str, Any]) -> None:
    assert running.error("POST", "/v1/embeddings", body) == (422, "invalid_input")


def test_too_many_inputs(running: Live) -> None:
    assert running.error("POST", "/v1/embeddings", {"input": ["a"] * 2049}) == (413, "too_large")
    images = [{"image": "AAAA"}] * 65
    assert running.error("POST", "/v1/embeddings", {"input": images}) == (413, "too_large")


def test_rerank_puts_the_best_first(running: Live) -> None:
    documents = ["a cat", {"text": "a red dog"}, {"image": base64.b64encode(png("red")).decode()}]
    body = {"query": "red dog", "documents": documents}
    reply = running.json("POST", "/v1/rerank", body)
    assert reply["results"][0]["index"] == 1
    scores = [one["relevance_score"] for one in reply["results"]]
    assert scores == sorted(scores, reverse=True)
    assert reply["results"][0]["document"] == {"text": "a red dog"}
    short = running.json("POST", "/v1/rerank", {**body, "top_n": 1, "return_documents": False})
    assert short["results"] == [{"index": 1, "relevance_score": scores[0]}]


def test_a_collection_of_another_process_is_found(data: Path) -> None:
    from triptych.settings import Settings

    settings = Settings(data=data, model="hashing:64")
    with serving(data) as live, settings.create_collection("fresh") as collection:
        collection.add([{"id": "a", "text": "a boat"}])
        found = live.json("POST", "/v1/collections/fresh/search", {"query": "boat"})
        assert [hit["id"] for hit in found["hits"]] == ["a"]
        # that process is the writer: ours hands over
        path = "/v1/collections/fresh/items"
        assert live.json("PUT", path, {"items": [{"id": "b", "text": "x"}]})["written"] == 1
        assert collection.count() == 2


def test_no_room_for_the_model_makes_no_collection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise DiskFull("The disk is full.")

    with serving(tmp_path / "data") as live:
        with monkeypatch.context() as patched:
            patched.setattr(Settings, "keep", full)
            assert live.error("POST", "/v1/collections", {"name": "c"}) == (507, "disk_full")
        assert live.json("GET", "/v1/collections")["collections"] == []
        live.json("POST", "/v1/collections", {"name": "c"})
