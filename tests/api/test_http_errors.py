"""The errors of the description: what is answered ahead of the routes is in it, and every code."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.api.live import Live, told
from triptych.api.openapi import ERRORS

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text("utf-8")
PATHS = ["/", "/livez", "/readyz", "/metrics", "/v1/collections", "/v1/models"]


@pytest.fixture(scope="module")
def described(live: Live) -> Any:
    return live.json("GET", "/openapi.json")["paths"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("status", "code", "headers"),
    [
        (403, "wrong_host", {"Host": "elsewhere.example"}),
        (403, "wrong_origin", {"Origin": "https://elsewhere.example"}),
        (403, "wrong_origin", {"Origin": "null"}),
        (400, "bad_request", {"X-Timeout-Ms": "soon"}),
        (415, "unsupported_media_type", {"Content-Encoding": "gzip"}),
    ],
)
def test_what_is_answered_ahead_of_a_route_is_described(
    live: Live, described: Any, path: str, status: int, code: str, headers: dict[str, str]
) -> None:
    assert told(live.client.get(path, headers=headers)) == (status, code)
    reply = described[path]["get"]["responses"][str(status)]
    assert f"`{code}`" in reply["description"]
    assert reply["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorReply")


def test_every_route_describes_what_any_may_answer(described: Any) -> None:
    for path, routes in described.items():
        for method, route in routes.items():
            missing = {"400", "403", "408", "415", "431", "500", "503"} - route["responses"].keys()
            assert not missing, (method, path, missing)


def test_headers_that_are_too_long_are_a_431_of_our_shape(live: Live) -> None:
    reply = live.raw(b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 40_000 + b"\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 431 ")
    assert b'"code": "too_large"' in reply


def test_the_page_names_the_codes_of_each_status() -> None:
    rows = re.findall(r"^\| ([0-9, ]+) \| (.+?) \| (.*)\|$", PAGE, re.MULTILINE)
    named: dict[int, set[str]] = {}
    for statuses, codes, when in rows:
        for status in statuses.split(", "):
            of_it = set(re.findall(r"`([a-z_.]+)`", codes))
            more = set(re.findall(r"`([a-z_.]+)`", when)) if status == "503" else set()
            named[int(status)] = of_it | more
    assert named.pop(405) == {"method_not_allowed"}  # no route has what it does not take
    named[431].discard("picture_too_large")
    assert named == {
        int(status): set(re.findall(r"`([a-z_.]+)`", reply["description"]))
        for status, reply in ERRORS.items()
    }
