"""Pictures over HTTP: small, large, and many tiny ones in one."""

from __future__ import annotations

from io import BytesIO

import pytest
from PIL import Image

from tests.api.conftest import png
from tests.api.live import Live

ITEMS = "/v1/collections/photos/items"


def test_a_picture_comes_small_or_large(live: Live) -> None:
    form = {"id": "wide"}
    live.json("PUT", ITEMS, data=form, files={"image": ("x.png", png("red", (1000, 500)))})
    live.json("PUT", ITEMS, {"items": [{"id": "words", "text": "x"}]})
    for query, size in (("", (256, 128)), ("?side=800", (800, 400)), ("?side=4096", (1000, 500))):
        reply = live.client.get(f"{ITEMS}/wide/image{query}")
        assert reply.headers["content-type"] == "image/jpeg"
        assert Image.open(BytesIO(reply.content)).size == size
    for side in ("0", "5000", "x", "-1"):
        assert live.error("GET", f"{ITEMS}/wide/image?side={side}")[0] == 422
    for id in ("words", "none"):
        assert live.error("GET", f"{ITEMS}/{id}/image?side=800") == (404, "not_found")


def test_a_hint_is_one_that_a_caller_can_follow(live: Live) -> None:
    files = {"image": ("x.png", png("red", (6_000, 5_000)))}
    reply = live.client.post("/v1/collections/photos/search", files=files)
    assert reply.json()["error"] == {
        "code": "picture_too_large",
        "message": "The picture has 30.0 megapixels, expected at most 25.0.",
        "hint": "Make it smaller.",
    }
    reply = live.client.get("/v1/collections/photos/serch")
    assert reply.json()["error"]["hint"] == "See: GET /openapi.json"


def test_a_mosaic_of_many(live: Live) -> None:
    live.json("PUT", ITEMS, data={"id": "blue"}, files={"image": ("x.png", png("blue"))})
    reply = live.client.post(f"{ITEMS}/mosaic", json={"ids": ["blue", "none"] * 30})
    assert reply.headers["content-type"] == "image/jpeg"
    assert Image.open(BytesIO(reply.content)).size == (640, 32)
    assert live.error("POST", f"{ITEMS}/mosaic", {"ids": ["blue"] * 1_001})[0] == 422
    assert live.error("POST", f"{ITEMS}/mosaic", {"ids": "blue"})[0] == 422


@pytest.mark.parametrize("what", ["image", "image?side=800", "picture"])
def test_a_picture_that_the_caller_has_is_not_sent_again(live: Live, what: str) -> None:
    def put(colour: str) -> None:
        files = {"image": ("x.png", png(colour, (1000, 500)))}
        live.json("PUT", ITEMS, data={"id": "seen"}, files=files)

    put("red")
    path = f"{ITEMS}/seen/{what}"
    first = live.client.get(path)
    name = first.headers["etag"]
    assert first.status_code == 200
    # no cache on the way may show it to another, and none at all after it is gone
    assert first.headers["cache-control"] == "private, no-cache"
    for said in (name, f'"other", {name}', name.removeprefix("W/"), "*"):
        again = live.client.get(path, headers={"If-None-Match": said})
        assert (again.status_code, again.content) == (304, b"")
        assert again.headers["etag"] == name
        assert again.headers["cache-control"] == "private, no-cache"
        assert again.headers["x-request-id"]
    for said in ('"other"', name.strip('W/"'), ""):
        assert live.client.get(path, headers={"If-None-Match": said}).content == first.content
    put("blue")
    changed = live.client.get(path, headers={"If-None-Match": name})
    assert changed.status_code == 200
    assert changed.headers["etag"] != name
    live.json("DELETE", f"{ITEMS}/seen")
    gone = live.client.get(path, headers={"If-None-Match": name})
    assert gone.status_code == 404
    assert gone.headers["cache-control"] == "no-store"


def test_a_large_picture_that_the_caller_has_is_not_made_again(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {"image": ("x.png", png("red", (1000, 500)))}
    live.json("PUT", ITEMS, data={"id": "once"}, files=files)
    path = f"{ITEMS}/once/image?side=500"
    name = live.client.get(path).headers["etag"]
    assert live.client.get(path.replace("500", "600")).headers["etag"] != name
    monkeypatch.setattr("triptych.api.routes.pictures.enlarged", None)
    assert live.client.get(path, headers={"If-None-Match": name}).status_code == 304
