"""What docs/http.md prints is done to a real server, and the replies are those printed."""

import base64
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.live import Live, serving
from triptych.cli.serve import OPTIONS

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text("utf-8")
CONSOLE = re.findall(r"```console\n(.*?)```", PAGE, flags=re.DOTALL)
JSON = [
    json.loads(block.replace("[...]", "[]"))
    for block in re.findall(r"```json\n(.*?)```", PAGE, flags=re.DOTALL)
]
SERVED = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, red: bytes) -> Iterator[Live]:
    """A server with what the page's requests speak of."""
    image = "data:image/png;base64," + base64.b64encode(red).decode()
    with serving(tmp_path_factory.mktemp("data")) as live:
        live.json("POST", "/v1/collections", {"name": "photos"})
        items = [
            {"id": "1", "image": image, "metadata": {"price": 60}},
            {"id": "id-of-an-item", "text": "snow"},
        ]
        live.json("PUT", "/v1/collections/photos/items", {"items": items})
        yield live


def test_the_walk_goes_as_it_is_printed(tmp_path: Path) -> None:
    (walk,) = [block for block in CONSOLE if "curl" in block]
    steps = re.findall(r"^\$ (curl .*)\n((?:[^$\n].*\n)*)", walk, flags=re.MULTILINE)
    assert len(steps) == walk.count("$ ")
    with serving(tmp_path) as live:
        for command, printed in steps:
            method, url, body = curl(command)
            found = live.json(method, url.removeprefix(SERVED), body)
            if printed:
                assert_like(found, printed)
            else:
                assert found is None


def test_every_block_of_the_page_is_tried() -> None:
    assert len(CONSOLE) == 2, "the first holds commands of ours, see tests/test_docs.py"
    assert len(JSON) == 5, "add the new block to the tests below"


def test_the_error_is_as_printed(served: Live) -> None:
    reply = served.client.get("/v1/collections/x")
    assert (reply.status_code, reply.json()) == (404, JSON[0])


def test_the_search_is_taken_and_answered_as_printed(served: Live, red: bytes) -> None:
    found = served.json("POST", "/v1/collections/photos/search", filled(JSON[1], red))
    assert {**found, "hits": []} == {**JSON[2], "hits": []}
    (hit,) = served.json("POST", "/v1/collections/photos/search", {"query": "red", "limit": 1})[
        "hits"
    ]
    (printed,) = JSON[2]["hits"]
    assert hit.keys() == printed.keys()
    for name, value in printed.items():
        assert name in ("metadata", "score") or type(hit[name]) is type(value), name


def test_a_hit_is_explained_as_printed(served: Live) -> None:
    asked = {"query": "a red shoe", "explain": ["1"]}
    found = served.json("POST", "/v1/collections/photos/search", asked)
    (hit,) = [hit for hit in found["hits"] if hit["id"] == "1"]
    assert JSON[3].keys() <= hit.keys()
    # the model of this server tells no places; tests/client asks one that does
    assert (hit["heat"], hit["word_heats"]) == (None, []) and hit["note"].endswith(".")


def test_the_embeddings_are_taken_as_printed(served: Live, red: bytes) -> None:
    asked = filled(JSON[4], red)
    assert asked["model"] == "default"
    found = served.json("POST", "/v1/embeddings", {**asked, "model": None})
    assert [one["index"] for one in found["data"]] == [0, 1, 2, 3]


def test_the_table_of_options_is_whole() -> None:
    listed = dict(re.findall(r"^\| `(--[a-z-]+)` \| `(TRIPTYCH_[A-Z_]+)` \|", PAGE, re.MULTILINE))
    assert listed == {option.flag: option.variable for option in OPTIONS}


def curl(command: str) -> tuple[str, str, Any]:
    """Return method, URL and JSON of a command that the page prints."""
    words = iter(shlex.split(command)[1:])
    method, body, url = "", None, ""
    for word in words:
        if word == "-X":
            method = next(words)
        elif word == "--json":
            body = json.loads(next(words))
        else:
            url = word
    return method or ("GET" if body is None else "POST"), url, body


def assert_like(found: Any, printed: str) -> None:
    """What is printed is there; an ellipsis stands for the rest of an object."""
    open_ended = re.sub(r", \.\.\.}", ', "...": 0}', printed)

    def check(got: Any, said: Any) -> None:
        if isinstance(said, dict):
            rest = said.pop("...", None)
            assert said.keys() <= got.keys() if rest == 0 else said.keys() == got.keys()
            for name in said:
                check(got[name], said[name])
        elif isinstance(said, list):
            assert len(got) == len(said)
            for one, other in zip(got, said, strict=True):
                check(one, other)
        else:
            assert got == said

    check(found, json.loads(open_ended))


def filled(value: Any, red: bytes) -> Any:
    """Return a printed body with a true picture, id and vector for what is left out of it."""
    if isinstance(value, list):
        return [filled(one, red) for one in value]
    if not isinstance(value, dict):
        return value
    image = base64.b64encode(red).decode()
    full = {name: filled(one, red) for name, one in value.items()}
    for name, one in full.items():
        if name == "image" and isinstance(one, str):
            full[name] = image
        elif name == "id" and one == "...":
            full[name] = "1"
        elif name == "vector":
            full[name] = [1.0] * 64
    return full
