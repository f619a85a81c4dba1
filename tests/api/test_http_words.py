"""What an error says, to somebody who has not seen the code."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.api.live import Live

PHOTOS = "/v1/collections/photos"


def said(reply: Any) -> tuple[str, str | None]:
    """Return message and hint of an error."""
    error = json.loads(reply.content)["error"]
    return error["message"], error["hint"]


@pytest.mark.parametrize(
    ("path", "body", "message"),
    [
        ("/v1/embeddings", {"input": [1, 2]}, "input.0 is a number, expected text or an object; input.1 is a number, expected text or an object."),
        ("/v1/embeddings", {"input": ["a", {"pic": "b"}]}, "input.1.pic is not known."),
        ("/v1/embeddings", {"input": ["a", ""]}, "input.1 is empty."),
        ("/v1/embeddings", {"input": []}, "input is empty."),
        ("/v1/embeddings", {"input": "a", "encoding_format": "int8"}, "encoding_format is not known, expected 'float' or 'base64'."),
        ("/v1/rerank", {"query": "a", "documents": "b"}, "documents is text, expected a list."),
        ("/v1/rerank", {"query": "a", "documents": [None]}, "documents.0 is null, expected text or an object."),
        ("/v1/collections", [], "The body is a list, expected an object."),
        ("/v1/collections", {"name": "No"}, "name does not match ^[a-z0-9_-]{1,64}$."),
        (f"{PHOTOS}/search", {"query": "a", "limit": "3"}, "limit is text, expected a whole number."),
        (f"{PHOTOS}/search", {"query": "a", "limit": 10_001}, "limit is too large, expected at most 10,000."),
        (f"{PHOTOS}/search", {"query": "a", "hybrid": "yes"}, "hybrid is text, expected true or false or a number."),
        (f"{PHOTOS}/search", {"query": "a", "hybrid": 2}, "hybrid is too large, expected at most 1."),
        (f"{PHOTOS}/search", {"query": "a", "minus": ["b", {"text": ""}]}, "minus.1.text is empty."),
        (f"{PHOTOS}/search", {"vector": [1, "2", True, None, {}]}, "vector.1 is text, expected a number; vector.2 is true or false, expected a number; vector.3 is null, expected a number (and 1 more)."),
    ],
    ids=lambda value: None if isinstance(value, str) else json.dumps(value)[:50],
)  # fmt: skip
def test_a_wrong_field_is_named_with_what_was_expected(
    live: Live, path: str, body: Any, message: str
) -> None:
    assert said(live.client.post(path, json=body)) == (message, "See: GET /openapi.json")


def test_an_unknown_field_gets_the_known_ones(live: Live) -> None:
    message, hint = said(live.client.post("/v1/collections", json={"nme": "a"}))
    assert message == "name is missing; nme is not known."
    assert hint == "Known are name, model, precision, tokens."


def test_a_parameter_of_the_address(live: Live) -> None:
    message, _ = said(live.client.get(f"{PHOTOS}/map?limit=x"))
    assert message == "limit is text, expected a whole number."


def test_json_that_cannot_be_read_is_named(live: Live) -> None:
    kind = {"Content-Type": "application/json"}
    empty = live.client.post(f"{PHOTOS}/search", content=b" ", headers=kind)
    assert said(empty)[0] == "The body is no JSON: it is empty."
    form = live.client.put(f"{PHOTOS}/items", data={"metadata": '{"a": 1'}, files={"x": b""})
    assert said(form)[0].startswith("The field metadata is no JSON: ")
    kind = {"Content-Type": "application/x-ndjson"}
    lines = live.client.put(f"{PHOTOS}/items", content=b"{", headers=kind).json()
    assert lines["errors"][0]["error"]["message"].startswith("The line is no JSON: ")


def test_a_body_without_a_type(live: Live) -> None:
    message, _ = said(live.client.post("/v1/collections", content=b"{}"))
    assert message == "Got no content type, expected application/json."
