"""Who may do what, from where: keys, roles, tenants, hosts, origins, rates."""

import json
import re
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from tests.api.live import Live, serving, told
from triptych.errors import InvalidInput, Overloaded
from triptych.keys import Key, new_key, write_keys

NAMES = ("reader", "writer", "admin", "other")


@pytest.fixture(scope="module")
def secrets() -> dict[str, tuple[str, Key]]:
    roles = {"reader": "read", "writer": "write", "admin": "admin", "other": "admin"}
    return {
        name: new_key(name, role=role, tenant="b" if name == "other" else "a")
        for name, role in roles.items()
    }


@pytest.fixture(scope="module")
def guarded(
    tmp_path_factory: pytest.TempPathFactory, secrets: dict[str, tuple[str, Key]]
) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("guarded")
    keys = [key for _, key in secrets.values()]
    with serving(folder / "data", keys=keys, host="127.0.0.1") as live:
        headers = bearer(secrets, "admin")
        live.json("POST", "/v1/collections", {"name": "photos"}, headers=headers)
        items = [{"id": "a", "text": "a red shoe", "metadata": {"shop": "Nord"}}]
        live.json("PUT", "/v1/collections/photos/items", {"items": items}, headers=headers)
        yield live


def bearer(secrets: dict[str, tuple[str, Key]], name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secrets[name][0]}"}


def routes(live: Live) -> list[tuple[str, str]]:
    paths = live.server.application.api.openapi()["paths"]
    filled = [
        (method.upper(), re.sub(r"\{id\}", "a", path.replace("{name}", "photos")))
        for path, methods in paths.items()
        for method in methods
    ]
    assert len(filled) > 20
    return filled


PUBLIC = {("GET", "/"), ("GET", "/livez"), ("GET", "/readyz")}


def test_who_sends_a_large_body_without_a_key_is_told_so(guarded: Live) -> None:
    # this client reads no answer before all is sent
    asking = HTTPConnection("127.0.0.1", guarded.port, timeout=20)
    for _ in range(2):
        asking.request("PUT", "/v1/collections/photos/items", body=b"x" * 20_000_000)
        reply = asking.getresponse()
        assert reply.status == 401
        reply.read()
    asking.close()


def test_no_route_answers_without_a_key(guarded: Live, secrets: Any) -> None:
    wrong = {"Authorization": f"Bearer {secrets['admin'][0][:-1]}"}
    for method, path in routes(guarded):
        for headers in ({}, {"Authorization": "Basic eDp5"}, {"Authorization": "Bearer x"}, wrong):
            reply = guarded.client.request(method, path, headers=headers, content=b"{no json")
            if (method, path) in PUBLIC:
                assert reply.status_code == 200
            else:
                assert reply.status_code in (401, 429), (method, path)
                told(reply)
        # what was wrong ten times waits; here it is only in the way
        guarded.server.application.asgi._access._failures._buckets.clear()
    assert guarded.client.get("/openapi.json").status_code == 200


@pytest.mark.parametrize(
    "path", ["//v1/collections", "/v1/collections/", "/V1/collections", "/openapi.json/../v1/models",
             "/livez/../v1/models", "/livez%2f..%2fv1/models", "/v1//models"]
)  # fmt: skip
def test_no_spelling_of_a_path_gets_round_the_key(guarded: Live, path: str) -> None:
    reply = guarded.raw(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert reply.startswith((b"HTTP/1.1 401", b"HTTP/1.1 404")), reply[:80]


def test_roles(guarded: Live, secrets: Any) -> None:
    search = ("POST", "/v1/collections/photos/search", {"query": "x"})
    write = ("PUT", "/v1/collections/photos/items", {"items": [{"id": "w", "text": "w"}]})
    make = ("POST", "/v1/collections", {"name": "made"})
    for name, allowed in (("reader", [search]), ("writer", [search, write])):
        for route in (search, write, make):
            reply = guarded.client.request(
                route[0], route[1], json=route[2], headers=bearer(secrets, name)
            )
            if route in allowed:
                assert reply.status_code == 200
            else:
                assert told(reply) == (403, "forbidden")
    headers = bearer(secrets, "admin")
    guarded.json(*make, headers=headers)
    guarded.json("DELETE", "/v1/collections/made", headers=headers)


def test_a_key_in_the_other_header(guarded: Live, secrets: Any) -> None:
    headers = {"X-API-Key": secrets["reader"][0]}
    listed = guarded.json("GET", "/v1/collections", headers=headers)
    assert {"name": "photos"} in listed["collections"]


BODIES: dict[str, Any] = {
    "search": {"query": "a red shoe"},
    "recommend": {"positive": ["a"]},
    "facets": {"fields": ["shop"]},
    "items/get": {"ids": ["a"]},
    "items/count": {},
    "items/delete": {"ids": ["zz"]},
    "items": {"items": [{"id": "zz", "text": "zz"}]},
    "jobs": {"items": [{"id": "zz", "text": "zz"}]},
}


def test_another_tenants_collection_is_answered_like_none(guarded: Live, secrets: Any) -> None:
    """Byte for byte, in every route, before and after the owner has it in every cache."""
    guarded.json(
        "POST", "/v1/collections/photos/search", BODIES["search"], headers=bearer(secrets, "admin")
    )
    job = guarded.json(
        "POST", "/v1/collections/photos/jobs",
        {"items": [{"id": "j", "text": "j"}]}, headers=bearer(secrets, "admin"),
    )  # fmt: skip
    headers = bearer(secrets, "other") | {"X-Request-Id": "same"}

    def answers(name: str, job_id: str) -> list[tuple[int, bytes, list[tuple[str, str]]]]:
        found = []
        for method, path in routes(guarded):
            if "photos" not in path and "/jobs/" not in path:
                continue
            path = path.replace("photos", name).replace("/jobs/a", f"/jobs/{job_id}")
            body = BODIES.get(path.partition(f"{name}/")[2])
            reply = guarded.client.request(method, path, headers=headers, json=body)
            shown = [(k, v) for k, v in reply.headers.items() if k not in ("date", "server-timing")]
            content = reply.content.replace(name.encode(), b"*").replace(job_id.encode(), b"#")
            found.append((reply.status_code, content, shown))
        return found

    # names of one length, so that not even that differs
    assert answers("photos", job["id"]) == answers("photoz", "0" * 32)


def test_the_same_query_of_two_tenants_shares_no_tier(guarded: Live, secrets: Any) -> None:
    body = {"query": "something rare"}
    mine, theirs = bearer(secrets, "admin"), bearer(secrets, "other")
    guarded.json("POST", "/v1/collections", {"name": "photos"}, headers=theirs)
    try:
        path = "/v1/collections/photos/search"
        tiers = [
            guarded.client.post(path, json=body, headers=who).headers["x-triptych-tier"]
            for who in (mine, theirs, mine, theirs)
        ]
        assert tiers == ["index", "index", "process", "process"]
        timed = guarded.client.post(path, json={"query": "rare 2"}, headers=mine)
        assert "embed" in timed.headers["server-timing"]
    finally:
        guarded.json("DELETE", "/v1/collections/photos", headers=theirs)


def test_wrong_keys_are_slowed_down(tmp_path: Path) -> None:
    secret, key = new_key("a", role="admin")
    with serving(tmp_path, keys=[key]) as live:
        codes = [
            live.error("GET", "/v1/models", headers={"X-API-Key": f"wrong-{at}"})
            for at in range(15)
        ]
        assert codes[:10] == [(401, "unauthorized")] * 10
        assert codes[-1] == (429, "rate_limited")
        # one who sends none is told so, and costs nothing
        assert live.error("GET", "/v1/models") == (401, "unauthorized")
        # and nobody is locked out by a stranger behind the same proxy
        assert live.client.get("/v1/models", headers={"X-API-Key": secret}).status_code == 200


def test_a_key_has_its_rate_and_its_quota(tmp_path: Path) -> None:
    (slow, key), (few, other) = new_key("slow", rate=2.0), new_key("few", daily=5)
    with serving(tmp_path, keys=[key, other]) as live:
        replies = [live.client.get("/v1/models", headers={"X-API-Key": slow}) for _ in range(8)]
        assert replies[0].status_code == 200
        refused = [reply for reply in replies if reply.status_code == 429]
        assert refused
        assert told(refused[0]) == (429, "rate_limited")
        assert int(refused[0].headers["retry-after"]) >= 1
        headers = {"X-API-Key": few}
        live.json("POST", "/v1/embeddings", {"input": ["a"] * 4}, headers=headers)
        told_ = live.error("POST", "/v1/embeddings", {"input": ["a"] * 2}, headers=headers)
        assert told_ == (429, "quota_exceeded")
        live.json("POST", "/v1/embeddings", {"input": ["a"]}, headers=headers)


def test_who_is_told_to_try_again_has_spent_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, key = new_key("few", daily=5, role="admin")
    with serving(tmp_path, keys=[key]) as live:
        live.client.headers["X-API-Key"] = few
        live.json("POST", "/v1/collections", {"name": "photos"})
        items = {"items": [{"id": str(at), "text": "x"} for at in range(5)]}
        lines = "".join(json.dumps(item) + "\n" for item in items["items"])
        asked: list[tuple[str, dict[str, Any]]] = [
            ("/v1/collections/photos/items", {"json": items}),
            (
                "/v1/collections/photos/items",
                {"content": lines, "headers": {"Content-Type": "application/x-ndjson"}},
            ),
            ("/v1/embeddings", {"json": {"input": ["a"] * 5}}),
            ("/v1/rerank", {"json": {"query": "a", "documents": ["b"] * 4}}),
        ]

        def full(*_: Any, **more: Any) -> Any:
            raise Overloaded("64 texts wait already.", retry_after=1)

        with monkeypatch.context() as patched:
            patched.setattr(live.services.item_writer, "write", full)
            patched.setattr(live.services.embedding, "_vectors", full)
            for path, body in asked:
                assert told(live.client.post(path, **body)) == (429, "overloaded")
        live.json("PUT", "/v1/collections/photos/items", items)
        for path, body in asked:
            assert told(live.client.post(path, **body)) == (429, "quota_exceeded")


def test_who_does_not_wait_for_what_is_stored_has_spent_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, key = new_key("few", daily=5, role="admin")
    with serving(tmp_path, keys=[key]) as live:
        live.client.headers["X-API-Key"] = few
        live.json("POST", "/v1/collections", {"name": "photos"})
        items = {"items": [{"id": str(at), "text": "x"} for at in range(5)]}
        write, stored = live.services.item_writer.write, threading.Event()

        def slow(*args: Any, **more: Any) -> Any:
            outcome = write(*args, **more)
            time.sleep(0.5)
            stored.set()
            return outcome

        monkeypatch.setattr(live.services.item_writer, "write", slow)
        path = "/v1/collections/photos/items"
        late = live.error("PUT", path, items, headers={"X-Timeout-Ms": "300"})
        assert late == (503, "timed_out")
        assert stored.wait(5)
        assert live.json("POST", f"{path}/count", {}) == {"count": 5}
        assert live.error("PUT", path, items) == (429, "quota_exceeded")


def test_a_key_that_is_removed_ends_at_once(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    (first, key), (second, other) = new_key("first"), new_key("second")
    write_keys(path, [key])
    with serving(tmp_path / "data", key_file=path) as live:
        assert live.client.get("/v1/models", headers={"X-API-Key": first}).status_code == 200
        write_keys(path, [other])
        time.sleep(1.1)
        assert live.error("GET", "/v1/models", headers={"X-API-Key": first})[0] == 401
        assert live.client.get("/v1/models", headers={"X-API-Key": second}).status_code == 200
        path.write_text("no json")
        time.sleep(1.1)
        assert live.client.get("/v1/models", headers={"X-API-Key": second}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "evil.example"}, "wrong_host"),
        ({"Host": "localhost.evil.example"}, "wrong_host"),
        ({"Host": "127.0.0.1@evil.example"}, "wrong_host"),
        ({"Host": ""}, "wrong_host"),
        ({"Host": "[::1"}, "wrong_host"),
        ({"Host": "localhost:x"}, "wrong_host"),
        ({"Origin": "https://evil.example"}, "wrong_origin"),
        ({"Origin": "null"}, "wrong_origin"),
        ({"Origin": "http://localhost:1"}, "wrong_origin"),
        ({"Sec-Fetch-Site": "cross-site"}, "wrong_origin"),
    ],
)
def test_no_web_page_can_use_a_server_without_keys(
    live: Live, headers: dict[str, str], code: str
) -> None:
    for method, path in (("GET", "/v1/collections"), ("POST", "/v1/collections"), ("GET", "/")):
        assert live.error(method, path, headers=headers) == (403, code)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1", "[::1]:80"])
def test_the_names_of_this_machine(live: Live, host: str) -> None:
    assert live.client.get("/v1/collections", headers={"Host": host}).status_code == 200


def test_a_page_of_ours_and_one_that_is_allowed(tmp_path: Path) -> None:
    with serving(tmp_path, allow_origins=("https://page.example",)) as live:
        own = {"Host": "localhost:7", "Origin": "http://localhost:7"}
        assert live.client.get("/v1/collections", headers=own).status_code == 200
        page = {"Origin": "https://page.example"}
        reply = live.client.get("/v1/collections", headers=page)
        assert reply.headers["access-control-allow-origin"] == "https://page.example"
        before = live.client.options("/v1/collections", headers=page)
        assert before.status_code == 204
        assert "Authorization" in before.headers["access-control-allow-headers"]
        assert (
            live.error("GET", "/v1/models", headers={"Origin": "https://other.example"})[0] == 403
        )


def test_headers_that_are_there_twice(guarded: Live, secrets: Any) -> None:
    for twice in ("Host: a\r\nHost: b", "Authorization: Bearer a\r\nAuthorization: Bearer b"):
        host = "" if twice.startswith("Host") else "Host: x\r\n"
        reply = guarded.raw(
            f"GET /v1/models HTTP/1.1\r\n{host}{twice}\r\nConnection: close\r\n\r\n".encode()
        )
        assert reply.startswith(b"HTTP/1.1 400"), reply[:60]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "example.org"])
def test_other_addresses_need_a_key(tmp_path: Path, host: str) -> None:
    with (
        pytest.raises(InvalidInput, match=r"Without a key .* triptych keys add"),
        serving(tmp_path, host=host),
    ):
        pass


def test_a_server_that_only_reads(tmp_path: Path) -> None:
    with serving(tmp_path) as live:
        live.json("POST", "/v1/collections", {"name": "photos"})
    with serving(tmp_path, read_only=True) as live:
        assert live.error("POST", "/v1/collections", {"name": "x"}) == (403, "read_only")
        path = "/v1/collections/photos/items"
        assert live.error("PUT", path, {"items": [{"id": "a", "text": "a"}]}) == (403, "read_only")
        assert live.json("POST", "/v1/collections/photos/search", {"query": "x"})["hits"] == []


def test_no_secret_is_in_metrics_or_errors(guarded: Live, secrets: Any) -> None:
    headers = bearer(secrets, "reader")
    metrics = guarded.client.get("/metrics", headers=headers).text
    assert "triptych_requests_total" in metrics
    for name in ("photos", "tenant", secrets["reader"][0], secrets["reader"][1].sha256):
        assert name not in metrics
    reply = guarded.client.get("/v1/collections/nowhere", headers=headers)
    assert str(guarded.services.catalog.settings.data) not in reply.text
    assert json.loads(reply.content)
