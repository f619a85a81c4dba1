"""What the tools take and refuse, without a client in between."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import triptych
from triptych.api.catalog import Catalog
from triptych.errors import InvalidInput, NotFound, PictureError, TriptychError
from triptych.integrations.mcp import Remote
from triptych.integrations.mcp_tools import McpConfig, Tools, inside
from triptych.settings import Settings


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tools]:
    allowed = tmp_path_factory.mktemp("allowed")
    Image.new("RGB", (32, 32), (220, 10, 10)).save(allowed / "red.png")
    Image.new("RGB", (32, 32)).save(allowed.parent / "secret.png")
    with triptych.open(":memory:", model="hashing:64") as collection:
        tools = Tools(Remote(collection, "default"), McpConfig(folder=allowed))
        tools.call(
            "add",
            {
                "items": [
                    {"id": "note", "text": "a note on apples", "metadata": {"year": 2020}},
                    {"id": "red", "image": "red.png", "metadata": {"year": 2024}},
                ]
            },
        )
        yield tools


def test_words_pictures_and_filters_find(tools: Tools) -> None:
    found = tools.call("search", {"query": "apples", "limit": 2})
    assert found.said["hits"][0]["id"] == "note"
    assert list(found.pictures) == ["red"]
    assert Image.open(BytesIO(found.pictures["red"])).format == "JPEG"
    (hit,) = tools.call("search", {"image": "red.png", "limit": 1}).said["hits"]
    assert hit["id"] == "red" and hit["score"] > 0.99
    bare = tools.call("search", {"query": "apples", "filter": "year > 2020", "pictures": False})
    assert [hit["id"] for hit in bare.said["hits"]] == ["red"] and not bare.pictures


def test_get_count_and_list(tools: Tools) -> None:
    found = tools.call("get", {"ids": ["red", "gone"]})
    assert found.said["missing"] == ["gone"] and list(found.pictures) == ["red"]
    assert found.said["items"][0]["metadata"] == {"year": 2024}
    assert tools.call("count", None).said == {"count": 2}
    assert tools.call("count", {"filter": {"year": 2020}}).said == {"count": 1}
    assert tools.call("list", {}).said == {"collections": ["default"]}


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("drop", {}, "no tool 'drop'"),
        ("search", [], "expected object, got list"),
        ("search", {"query": 7}, "query: expected string, got int"),
        ("search", {"query": "a", "limit": "5"}, "limit: expected integer, got str"),
        ("search", {"query": "a", "limit": True}, "limit: expected integer, got bool"),
        ("search", {"query": "a", "limit": 0}, "1 or more"),
        ("search", {"query": "a", "limit": 10**9}, "at most 50"),
        ("search", {"query": "a", "sql": "1"}, "'sql' is not one of"),
        ("search", {}, "query is empty"),
        ("search", {"query": "a", "filter": "year >="}, "filter"),
        ("search", {"query": "a", "like": [1]}, r"like\[0\]: expected string"),
        ("search", {"query": "a", "collection": "../other"}, "no collection"),
        ("get", {}, "ids is missing"),
        ("get", {"ids": ["x"] * 101}, "at most 100"),
        ("add", {"items": [{"text": "a"}]}, "id is missing"),
        ("add", {"items": [{"id": "a", "vector": [1.0]}]}, "'vector' is not one of"),
        ("add", {"items": [{"id": "a", "text": "x" * 200_001}]}, "at most 200,000"),
        ("add", {"items": [{"id": "a"}]}, "empty"),
    ],
)
def test_what_is_wrong_is_a_sentence(tools: Tools, name: str, given: Any, says: str) -> None:
    with pytest.raises(TriptychError, match=says):
        tools.call(name, given)
    assert tools.call("count", {}).said == {"count": 2}


@pytest.mark.parametrize(
    "path",
    [
        "../secret.png",
        "/etc/passwd",
        "/proc/self/environ",
        "~/.ssh/id_rsa",
        "red.png/../../secret.png",
        "missing.png",
        ".",
        "",
        "a\0b",
        "x" * 5000,
        "link.png",
        "pipe",
    ],
)
def test_nothing_outside_the_folder_is_read(tmp_path: Path, path: str) -> None:
    allowed = tmp_path / "allowed"
    allowed.mkdir()
    Image.new("RGB", (8, 8)).save(allowed / "red.png")
    Image.new("RGB", (8, 8)).save(tmp_path / "secret.png")
    (allowed / "link.png").symlink_to(tmp_path / "secret.png")
    os.mkfifo(allowed / "pipe")
    with pytest.raises(PictureError) as caught:
        inside(path, allowed)
    assert str(tmp_path) not in str(caught.value).replace(path, "")
    with pytest.raises(PictureError):
        inside("red.png", None)
    assert inside("red.png", allowed) == (allowed / "red.png").resolve()


def test_huge_pictures_and_addresses_are_refused(tools: Tools) -> None:
    buffer = BytesIO()
    Image.new("1", (10_000, 10_000)).save(buffer, "PNG")
    huge = base64.b64encode(buffer.getvalue()).decode()
    many = "A" * (15 * 2**20)
    for picture in (f"data:image/png;base64,{huge}", f"data:image/png;base64,{many}"):
        with pytest.raises(PictureError) as caught:
            tools.call("search", {"image": picture})
        assert caught.value.code in ("picture_too_large", "picture_too_many_pixels")
        assert len(str(caught.value)) < 400
    for address in ("http://169.254.169.254/x", "file:///etc/passwd", "ftp://x/y"):
        with pytest.raises(PictureError, match="not fetched"):
            tools.call("search", {"image": address})


def test_who_only_reads_is_offered_no_add() -> None:
    with triptych.open(":memory:", model="hashing:64") as collection:
        tools = Tools(Remote(collection, "default"), McpConfig(read_only=True))
        assert "add" not in tools.specs()
        with pytest.raises(NotFound):
            tools.call("add", {"items": []})


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
_NAMES = st.sampled_from(["query", "image", "like", "minus", "filter", "limit", "hybrid", "ids"])


@settings(max_examples=40)
@given(
    name=st.sampled_from(["search", "get", "count", "list"]), given=st.dictionaries(_NAMES, _JSON)
)
def test_any_json_is_answered_or_refused(tools: Tools, name: str, given: Any) -> None:
    try:
        tools.call(name, given)
    except TriptychError as error:
        assert str(error)


@given(_JSON)
def test_any_item_is_stored_or_refused(tools: Tools, given: Any) -> None:
    try:
        tools.call("add", {"items": given})
    except InvalidInput as error:
        assert str(error)


def test_a_server_behind_is_for_one_tenant_alone() -> None:
    with triptych.open(":memory:", model="hashing:64") as collection:
        tools = Tools(Remote(collection, "default"), McpConfig())
        assert tools.call("list", {}).said == {"collections": ["default"]}
        assert tools.call("list", {}, tenant="other").said == {"collections": []}
        with pytest.raises(NotFound) as caught:
            tools.call("count", {}, tenant="other")
    assert caught.value.hint is None


def test_without_a_collection_it_says_how_one_is_made(tmp_path: Path) -> None:
    catalog = Catalog(Settings(data=tmp_path), models=("hashing:64",))
    tools = Tools(catalog, McpConfig())
    for name in ("first", "other"):
        with pytest.raises(NotFound, match=f"no collection '{name}'") as caught:
            tools.call("add", {"items": [{"id": "1", "text": "a"}], "collection": name})
        assert ("triptych index" in str(caught.value)) is (name == "first")
        if name == "first":
            catalog.create("default", "one", model="hashing:64", precision="fp32", tokens=False)
    catalog.close()
