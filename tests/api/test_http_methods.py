"""HEAD, Allow and Upgrade: what a proxy, a monitor and `curl -I` ask."""

from __future__ import annotations

import logging

import pytest

from tests.api.conftest import png
from tests.api.live import Live

PHOTOS = "/v1/collections/photos"


@pytest.mark.parametrize(
    "path", ["/", "/livez", "/readyz", "/metrics", "/v1/collections", f"{PHOTOS}/items/a/image"]
)
def test_head_is_get_without_the_body(live: Live, path: str) -> None:
    live.json("PUT", f"{PHOTOS}/items", data={"id": "a"}, files={"image": ("x.png", png("red"))})
    whole, head = live.client.get(path), live.client.head(path)
    assert (head.status_code, head.content) == (whole.status_code, b"")
    assert head.headers["content-type"] == whole.headers["content-type"]
    if path != "/metrics":
        assert int(head.headers["content-length"]) == len(whole.content) > 0


def test_head_of_an_error(live: Live) -> None:
    assert live.client.head("/v1/collections/nowhere").status_code == 404
    assert live.client.head(f"{PHOTOS}/search").status_code == 405


def test_head_of_a_stream_ends(live: Live) -> None:
    job = live.json("POST", f"{PHOTOS}/jobs", {"items": [{"id": "b", "text": "b"}]})
    head = live.client.head(f"/v1/jobs/{job['id']}/events", timeout=5)
    assert head.headers["content-type"].startswith("text/event-stream")
    asked = live.raw(
        b"HEAD /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"
        b"GET /livez HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    assert asked.count(b"200 OK") == 2 and asked.count(b'{"status":"ok"}') == 1


def test_numbers_name_the_route_of_a_head(live: Live) -> None:
    live.client.head(PHOTOS)
    text = live.client.get("/metrics").text
    assert 'requests_total{method="HEAD",route="/v1/collections/{name}",status="200"}' in text


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/collections", "GET, HEAD, POST"),
        (PHOTOS, "DELETE, GET, HEAD"),
        (f"{PHOTOS}/items", "POST, PUT"),
        (f"{PHOTOS}/items/a%2Fb", "DELETE, GET, HEAD"),
        (f"{PHOTOS}/search", "POST"),
    ],
)
def test_all_methods_of_a_path_are_named(live: Live, path: str, allowed: str) -> None:
    reply = live.client.request("PATCH", path)
    assert (reply.status_code, reply.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize("to", ["websocket", "h2c"])
def test_an_upgrade_is_not_taken_and_fills_no_log(
    live: Live, to: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        reply = live.client.get("/livez", headers={"Connection": "Upgrade", "Upgrade": to})
    assert reply.json() == {"status": "ok"}
    assert not caplog.records
