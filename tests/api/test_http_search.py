"""Searches over HTTP answer as the collection itself does."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.api.conftest import png
from tests.api.live import Live, serving

SEARCH = "/v1/collections/shop/search"
WORDS = ("red shoe", "blue shoe", "red hat", "dog on a beach", "cat", "green bicycle")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with serving(tmp_path_factory.mktemp("data")) as live:
        live.json("POST", "/v1/collections", {"name": "shop"})
        items: list[dict[str, Any]] = [
            {"id": f"t{at}", "text": words, "metadata": {"n": at, "kind": words.split()[-1]}}
            for at, words in enumerate(WORDS)
        ]
        for colour in ("red", "blue"):
            picture = base64.b64encode(png(colour)).decode()
            items.append({"id": f"p-{colour}", "image": picture, "metadata": {"n": 9}})
        live.json("PUT", "/v1/collections/shop/items", {"items": items})
        yield live


def ids(reply: Any) -> list[str]:
    return [hit["id"] for hit in reply["hits"]]


@pytest.mark.parametrize(
    "asked",
    [
        {"query": "red shoe"},
        {"query": "shoe", "minus": ["red"], "limit": 3},
        {"query": "shoe", "minus": "red"},
        {"like": "t0"},
        {"like": ["t0", "t1"], "offset": 1},
        {"parts": [{"text": "shoe", "weight": 2.0}, {"id": "t3", "weight": -0.5}]},
        {"query": "shoe", "filter": {"n": {"$lt": 2}}},
        {"query": "shoe", "filter": "n < 2"},
        {"query": "shoe", "threshold": 0.3},
        {"query": "shoe", "hybrid": True},
        {"query": "shoe", "hybrid": 0.8},
        {"query": "shoe", "diversity": 0.5},
        {"query": "shoe", "group_by": "kind"},
        {"vector": [1.0] * 64},
        {"query": "nothing like it", "threshold": 2.0},
    ],
    ids=lambda asked: json.dumps(asked)[:40],
)
def test_it_answers_as_the_collection_does(shop: Live, asked: dict[str, Any]) -> None:
    reply = shop.json("POST", SEARCH, asked)
    with shop.services.catalog.using("default", "shop") as collection:
        mine = dict(asked)
        parts = mine.pop("parts", None)
        if parts is not None:
            from triptych.types import Part

            mine["query"] = [Part(**part) for part in parts]
        hits = collection.search(**mine)
    assert ids(reply) == [hit.id for hit in hits]
    assert [hit["score"] for hit in reply["hits"]] == [hit.score for hit in hits]
    assert (reply["limit"], reply["offset"]) == (asked.get("limit", 10), asked.get("offset", 0))


def test_a_picture_finds_its_like_in_every_form(shop: Live) -> None:
    red = png("red")
    plain = base64.b64encode(red).decode()
    replies = [
        shop.json("POST", SEARCH, {"image": plain}),
        shop.json("POST", SEARCH, {"image": [f"data:image/png;base64,{plain}"]}),
        shop.json("POST", SEARCH, {"parts": [{"image": plain}]}),
        shop.json("POST", SEARCH, files={"image": red}),
        shop.json("POST", SEARCH, data={"request": '{"image": "part:mine"}'}, files={"mine": red}),
    ]
    assert ids(replies[0])[0] == "p-red"
    assert replies[0]["hits"][0]["has_image"] is True
    assert all(reply == replies[0] for reply in replies[1:])
    both = shop.json("POST", SEARCH, data={"query": "shoe"}, files={"image": red})
    assert both != replies[0]


def test_the_shares_of_the_parts_add_up_to_the_score(shop: Live) -> None:
    asked = {
        "query": "shoe", "image": base64.b64encode(png("red")).decode(), "minus": ["blue"],
        "like": ["t3"], "explain": True,
    }  # fmt: skip
    reply = shop.json("POST", SEARCH, asked)
    assert reply["explain"]["parts"] == [
        {"kind": "text", "weight": 1.0}, {"kind": "image", "weight": 1.0},
        {"kind": "id", "weight": 1.0}, {"kind": "text", "weight": -1.0},
    ]  # fmt: skip
    for hit in reply["hits"]:
        assert len(hit["shares"]) == 4
        assert sum(hit["shares"]) == pytest.approx(hit["score"], abs=1e-5)
    red = next(hit for hit in reply["hits"] if hit["id"] == "p-red")
    assert np.argmax(red["shares"]) == 1
    assert {"embed", "index", "fetch"} <= set(reply["explain"]["stages_ms"])
    plain = shop.json("POST", SEARCH, {**asked, "explain": False})
    assert ids(plain) == ids(reply)
    assert "explain" not in plain
    assert "shares" not in plain["hits"][0]


def test_what_is_of_the_request_stands_in_the_headers(shop: Live) -> None:
    replies = [
        shop.client.post(SEARCH, json={"query": "a boat"}, headers={"X-Request-Id": name})
        for name in ("one.1", "two_2")
    ]
    assert replies[0].content == replies[1].content
    assert [reply.headers["x-request-id"] for reply in replies] == ["one.1", "two_2"]
    assert replies[0].headers["x-triptych-tier"] == "index"
    assert "embed;dur=" in replies[0].headers["server-timing"]


def test_pages_join(shop: Live) -> None:
    whole = ids(shop.json("POST", SEARCH, {"query": "shoe", "limit": 8}))
    pages = [
        ids(shop.json("POST", SEARCH, {"query": "shoe", "limit": 3, "offset": at}))
        for at in (0, 3, 6)
    ]
    assert [id for page in pages for id in page] == whole


def test_recommend_leaves_out_what_it_was_given(shop: Live) -> None:
    path = "/v1/collections/shop/recommend"
    reply = shop.json("POST", path, {"positive": ["t0"], "negative": ["t1"], "limit": 3})
    assert not {"t0", "t1"} & set(ids(reply))
    assert "t2" in ids(reply)
    assert shop.error("POST", path, {"positive": ["nobody"]}) == (404, "not_found")
    assert shop.error("POST", path, {"positive": []}) == (422, "invalid_input")


def test_facets_count(shop: Live) -> None:
    path = "/v1/collections/shop/facets"
    reply = shop.json("POST", path, {"fields": ["kind", "n"], "filter": "n < 2"})
    assert reply == {
        "facets": {
            "kind": [{"value": "shoe", "count": 2}],
            "n": [{"value": 0, "count": 1}, {"value": 1, "count": 1}],
        }
    }


def test_an_empty_collection_finds_nothing(shop: Live) -> None:
    shop.json("POST", "/v1/collections", {"name": "empty"})
    found = shop.json("POST", "/v1/collections/empty/search", {"query": "x"})
    assert found == {"hits": [], "limit": 10, "offset": 0}


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, (422, "invalid_input")),
        ({"query": ""}, (422, "invalid_input")),
        ({"query": "   "}, (422, "invalid_input")),
        ({"query": "x" * 1_000_001}, (422, "invalid_input")),
        ({"query": 5}, (422, "invalid_input")),
        ({"query": "x", "limit": 0}, (422, "invalid_input")),
        ({"query": "x", "limit": 10_001}, (422, "invalid_input")),
        ({"query": "x", "limit": 6_000, "offset": 6_000}, (422, "invalid_input")),
        ({"query": "x", "limit": "10"}, (422, "invalid_input")),
        ({"query": "x", "limit": True}, (422, "invalid_input")),
        ({"query": "x", "offset": -1}, (422, "invalid_input")),
        ({"query": "x", "diversity": 1.5}, (422, "invalid_input")),
        ({"query": "x", "hybrid": 2}, (422, "invalid_input")),
        ({"query": "x", "colour": "red"}, (422, "invalid_input")),
        ({"query": "x", "model": "/etc/passwd"}, (422, "invalid_input")),
        ({"query": "x", "filter": "n >>> 3"}, (422, "invalid_input")),
        ({"query": "x", "filter": {"n": {"$where": "1"}}}, (422, "invalid_input")),
        ({"query": "x", "filter": "' or 1=1 --"}, (422, "invalid_input")),
        ({"query": "x", "rerank": 5}, (422, "invalid_input")),
        ({"query": "x", "minus": "x"}, (422, "invalid_input")),
        ({"like": "nobody"}, (404, "not_found")),
        ({"vector": [1.0, 2.0]}, (422, "invalid_input")),
        ({"vector": [0.0] * 64}, (422, "invalid_input")),
        ({"vector": []}, (422, "invalid_input")),
        ({"vector": ["1"] * 64}, (422, "invalid_input")),
        ({"parts": [{}]}, (422, "invalid_input")),
        ({"parts": [{"text": "a", "id": "b"}]}, (422, "invalid_input")),
        ({"parts": [{"text": "a", "weight": 0}]}, (422, "invalid_input")),
        ({"parts": [{"text": "a"}] * 33}, (413, "too_large")),
        ({"image": "/etc/passwd"}, (422, "picture_data_uri")),
        ({"image": "file:///etc/passwd"}, (403, "url_not_allowed")),
        ({"image": "http://example.org/x.png"}, (403, "url_not_allowed")),
        ({"image": "part:x"}, (422, "picture_missing")),
        ({"image": "AAAA"}, (415, "picture_format")),
        ({"image": "data:text/html;base64,AAAA"}, (422, "picture_data_uri")),
    ],
    ids=lambda value: json.dumps(value)[:50],
)
def test_bad_input_gets_one_clear_sentence(
    shop: Live, asked: dict[str, Any], told: tuple[int, str]
) -> None:
    assert shop.error("POST", SEARCH, asked) == told


@pytest.mark.parametrize(
    ("name", "status"),
    [("nowhere", 404), ("NoName", 404), ("..", 404), ("a%2Fb", 404), ("%00", 404)],
)
def test_a_collection_that_is_not_there(shop: Live, name: str, status: int) -> None:
    path = f"/v1/collections/{name.replace('.', '%2E')}/search"
    assert shop.error("POST", path, {"query": "x"}) == (status, "not_found")


def test_vectors_of_ones_own(data: Path) -> None:
    with serving(data) as live:
        info = live.json("POST", "/v1/collections", {"name": "mine", "model": "vectors:mine:4"})
        assert (info["dim"], info["model"], info["count"]) == (4, "vectors:mine:4", 0)
        items = [{"id": str(at), "vector": np.eye(4)[at].tolist()} for at in range(4)]
        assert live.json("POST", "/v1/collections/mine/items", {"items": items})["written"] == 4
        found = live.json("POST", "/v1/collections/mine/search", {"vector": [0, 0, 3, 0.1]})
        assert ids(found)[0] == "2"
        told = live.error("POST", "/v1/collections/mine/search", {"query": "words"})
        assert told == (501, "not_available")


def test_usage_says_what_the_model_reads(live: Live, red: bytes) -> None:
    image = "data:image/png;base64," + base64.b64encode(red).decode()
    asked = {"input": ["two words", {"text": "a dog", "image": image}]}
    usage = live.json("POST", "/v1/embeddings", asked)["usage"]
    assert usage == {"prompt_tokens": 2 + 2 + 16, "total_tokens": 20}
    ranked = live.json("POST", "/v1/rerank", {"query": "dog", "documents": ["a dog", "cat!"]})
    assert ranked["usage"] == {"total_tokens": 1 + 2 + 2}
