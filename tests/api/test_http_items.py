"""Items over HTTP: each form of the body, each fate of an item."""

import base64
import json
import socket
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.api.live import Live, read_all, serving, told
from triptych.api.config import Times
from triptych.cache.base import NoCache
from triptych.errors import Overloaded
from triptych.index.remote.handoff import Unanswered
from triptych.keys import new_key
from triptych.retrieval import prepare
from triptych.retrieval.batching import BatchingModel


@pytest.fixture(autouse=True)
def fresh(live: Live) -> Iterator[None]:
    yield
    live.json("DELETE", "/v1/collections/photos")
    live.json("POST", "/v1/collections", {"name": "photos"})


ITEMS = "/v1/collections/photos/items"


def test_items_come_back_as_they_went(live: Live, red: bytes) -> None:
    uri = f"data:image/png;base64,{base64.b64encode(red).decode()}"
    written = live.json(
        "POST",
        ITEMS,
        {
            "items": [
                {"id": "a", "text": "a red shoe", "metadata": {"shop": "Nord", "n": 10**30}},
                {"id": "b", "image": uri, "uri": "https://example.org/b.png"},
                {"id": "c", "text": "both", "image": base64.b64encode(red).decode()},
            ]
        },
    )
    assert written == {"written": 3, "errors": [], "num_errors": 0}
    found = live.json("POST", f"{ITEMS}/get", {"ids": ["c", "nobody", "a"], "vectors": True})
    both, nobody, first = found["items"]
    assert nobody is None
    assert both["modality"] == "both"
    assert sum(x * x for x in both["vector"]) == pytest.approx(1, abs=1e-5)
    vector = first.pop("vector")
    assert len(vector) == 64
    assert first == {
        "id": "a", "modality": "text", "text": "a red shoe", "uri": None,
        "metadata": {"shop": "Nord", "n": 10**30},
    }  # fmt: skip
    assert live.json("POST", f"{ITEMS}/count", {}) == {"count": 3}
    assert live.json("POST", f"{ITEMS}/count", {"filter": 'shop = "Nord"'}) == {"count": 1}
    assert live.json("POST", f"{ITEMS}/delete", {"ids": ["a", "nobody"]}) == {"deleted": 1}
    assert live.json("DELETE", f"{ITEMS}/b") == {"deleted": 1}
    assert live.error("DELETE", f"{ITEMS}/b") == (404, "not_found")
    assert live.error("GET", f"{ITEMS}/b") == (404, "not_found")


def test_an_item_that_is_wrong_is_named_and_the_others_are_stored(live: Live) -> None:
    given = [
        {"id": "good", "text": "fine"},
        {"id": "empty"},
        {"id": "colour", "text": "x", "colour": "red"},
        5,
        {"text": "no id"},
        {"id": "blank", "text": "  "},
        {"id": "path", "image": "/etc/passwd"},
        {"id": "vector", "vector": [1.0, 2.0]},
        {"id": "good2", "text": "fine too"},
    ]
    reply = live.json("PUT", ITEMS, {"items": given})
    assert reply["written"] == 2
    assert reply["num_errors"] == 7
    assert [one["index"] for one in reply["errors"]] == [1, 2, 3, 4, 5, 6, 7]
    assert [one["id"] for one in reply["errors"]] == [
        "empty", "colour", None, None, "blank", "path", "vector",
    ]  # fmt: skip
    assert {one["error"]["code"] for one in reply["errors"]} == {
        "invalid_input", "picture_data_uri", "model_mismatch",
    }  # fmt: skip
    assert live.json("POST", f"{ITEMS}/count", {}) == {"count": 2}


def test_add_does_not_replace_and_upsert_does(live: Live) -> None:
    items = {"items": [{"id": "a", "text": "one"}, {"id": "b", "text": "two"}]}
    assert live.json("POST", ITEMS, items)["written"] == 2
    again = live.json("POST", ITEMS, {"items": [*items["items"], {"id": "c", "text": "three"}]})
    assert again["written"] == 1
    assert [one["error"]["code"] for one in again["errors"]] == ["already_exists"] * 2
    twice = live.json("POST", ITEMS, {"items": [{"id": "d", "text": "x"}] * 2})
    assert (twice["written"], twice["num_errors"]) == (1, 1)
    assert live.json("PUT", ITEMS, {"items": [{"id": "a", "text": "other"}]})["written"] == 1
    assert live.json("GET", f"{ITEMS}/a")["text"] == "other"


def test_a_form_brings_one_item_with_its_picture(live: Live, red: bytes) -> None:
    form = {"id": "pic", "text": "red", "metadata": '{"a": 1}'}
    written = live.json("POST", ITEMS, data=form, files={"image": ("../../x.png", red)})
    assert written["written"] == 1
    record = live.json("GET", f"{ITEMS}/pic")
    assert (record["modality"], record["metadata"], record["uri"]) == ("both", {"a": 1}, None)
    reply = live.client.get(f"{ITEMS}/pic/image")
    assert reply.headers["content-type"] == "image/jpeg"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.content[:2] == b"\xff\xd8"


def test_a_form_brings_many_items_with_their_pictures(live: Live, red: bytes) -> None:
    items = [
        {"id": "1", "image": "part:one"},
        {"id": "2", "image": "part:two"},
        {"id": "3", "image": "part:none"},
    ]
    files = {"one": ("a", red), "two": ("b", b"no picture")}
    reply = live.json("PUT", ITEMS, data={"items": json.dumps(items)}, files=files)
    assert reply["written"] == 1
    assert [one["error"]["code"] for one in reply["errors"]] == [
        "picture_format", "picture_missing",
    ]  # fmt: skip


def test_lines_are_taken_as_they_come(live: Live) -> None:
    lines = [json.dumps({"id": str(at), "text": f"line {at}"}) for at in range(200)]
    lines[10:10] = ["", "no json", '{"id": "x"', "  "]
    reply = live.client.put(
        ITEMS,
        content=(f"{line}\n".encode() for line in lines),
        headers={"content-type": "application/x-ndjson"},
    )
    assert reply.status_code == 200, reply.text
    assert reply.json()["written"] == 200
    assert [one["index"] for one in reply.json()["errors"]] == [11, 12]
    assert {one["error"]["code"] for one in reply.json()["errors"]} == {"bad_json"}
    assert live.json("POST", f"{ITEMS}/count", {}) == {"count": 200}


@pytest.mark.parametrize(
    ("path", "data"),
    [
        (ITEMS, {"id": "a", "text": "x"}),
        (ITEMS, {"items": '[{"id": "a", "text": "x", "image": "part:photo"}]'}),
        ("/v1/collections/photos/search", {"query": "x"}),
        ("/v1/collections/photos/search", {"request": '{"image": "part:photo"}'}),
    ],
)
def test_a_file_that_nothing_names_is_not_lost_in_silence(
    live: Live, red: bytes, path: str, data: dict[str, str]
) -> None:
    files = {"photo": ("x.png", red), "img": ("y.png", red)}
    reply = live.client.post(path, data=data, files=files)
    assert told(reply) == (422, "invalid_input")
    assert "names the file '" in reply.json()["error"]["message"]
    assert live.json("POST", f"{ITEMS}/count", {}) == {"count": 0}


def lines_of(ids: Iterable[int]) -> str:
    return "".join(f'{{"id": "{at}", "text": "x"}}\n\n' for at in ids)


LINES = {"content-type": "application/x-ndjson"}


def test_lines_may_begin_as_windows_begins_a_file(live: Live) -> None:
    lines = '\ufeff{"id": "0", "text": "a"}\r\n{"id": "1", "text": "b"}\r\n'
    reply = live.client.put(ITEMS, content=lines.encode(), headers=LINES)
    assert reply.json() == {"written": 2, "errors": [], "num_errors": 0}


def test_lines_wait_for_room_once_the_first_are_stored(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = live.services.item_writer.write
    refused: list[Any] = []

    def busy(*args: Any, **more: Any) -> Any:
        if len(refused) < 2 and args[2][0][0] >= 128:
            refused.append(args)
            raise Overloaded("1 requests wait.", retry_after=0.1)
        return write(*args, **more)

    monkeypatch.setattr(live.services.item_writer, "write", busy)
    reply = live.client.post(ITEMS, content=lines_of(range(150)), headers=LINES)
    assert (reply.status_code, reply.json()["written"], len(refused)) == (200, 150, 2)


# a vector of its own is found out when the batch is stored, which is then halved
HALVED = [{"id": str(at), "text": "x"} for at in range(4)]
HALVED[1] = {"id": "bad", "vector": [1.0] * 64}  # type: ignore[dict-item]
MANY = [{"id": str(at), "text": "x"} for at in range(70)]


@pytest.mark.parametrize(("items", "at"), [(HALVED, "2"), (MANY, "56")], ids=["halved", "many"])
def test_a_batch_waits_for_room_once_the_first_of_it_are_stored(
    live: Live, monkeypatch: pytest.MonkeyPatch, items: list[Any], at: str
) -> None:
    embed, left = BatchingModel.embed, [0]

    def busy(self: BatchingModel, given: Any) -> Any:
        if given[0].id == at and left[0]:
            left[0] -= 1
            raise Overloaded("1 requests wait.", retry_after=0.1)
        return embed(self, given)

    monkeypatch.setattr(BatchingModel, "embed", busy)
    monkeypatch.setattr(live.services.catalog, "cache", NoCache())
    live.json("DELETE", "/v1/collections/photos")
    live.json("POST", "/v1/collections", {"name": "photos"})
    left[0] = 2
    told_of = live.json("POST", ITEMS, {"items": items})
    good = [item["id"] for item in items if item["id"] != "bad"]
    assert told_of["written"] == len(good) and left == [0]
    assert [one["id"] for one in told_of["errors"]] == ["bad"] * (len(items) - len(good))
    # where there is none in time it is no 429: who gets that sends all of it again
    live.json("DELETE", "/v1/collections/photos")
    live.json("POST", "/v1/collections", {"name": "photos"})
    left[0] = 100
    reply = live.client.post(ITEMS, json={"items": items}, headers={"X-Timeout-Ms": "1500"})
    assert told(reply) == (503, "timed_out")
    error = reply.json()["error"]
    assert error["taken_in"] == int(at)
    assert f"The {at} items before were taken in." in error["message"]
    stored = [item["id"] for item in items[: int(at)] if item["id"] != "bad"]
    assert live.json("POST", f"{ITEMS}/count", {}) == {"count": len(stored)}


def test_lines_that_take_long_are_stored_a_few_at_a_time(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each go has the time of an answer: 64 long texts had more to do, however often sent."""
    sizes = slowly(live, monkeypatch)
    body = "\n".join(json.dumps({"id": f"{at}", "text": "x"}) for at in range(70))
    assert live.client.put(ITEMS, content=body, headers=LINES).json()["written"] == 70
    assert sizes[0] == 8 and max(sizes[1:]) <= 2 and sum(sizes) == 70


def slowly(live: Live, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Have each item take a twentieth of a second, goes a tenth; return how many are in each."""
    monkeypatch.setattr(prepare, "_GO", 0.1)
    sizes: list[int] = []
    write = live.services.item_writer.write

    def slow(tenant: str, name: str, given: Any, **more: Any) -> Any:
        sizes.append(len(given))
        time.sleep(0.05 * len(given))
        return write(tenant, name, given, **more)

    monkeypatch.setattr(live.services.item_writer, "write", slow)
    return sizes


def test_a_list_of_items_takes_the_time_that_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had the time of one answer for all of them, and was given up half stored."""
    body = {"items": [{"id": f"{at}", "text": "x"} for at in range(40)]}
    with serving(tmp_path, times=Times(answer=1.0, drain=5)) as live:
        live.json("POST", "/v1/collections", {"name": "photos"})
        sizes = slowly(live, monkeypatch)
        assert live.json("PUT", ITEMS, body)["written"] == 40
        assert sizes[0] == 8 and max(sizes[1:]) <= 2
        # unless the caller does not want to wait for it
        reply = live.client.put(ITEMS, json=body, headers={"X-Timeout-Ms": "900"})
        assert told(reply) == (503, "timed_out")
        taken_in = reply.json()["error"]["taken_in"]
        assert 0 < taken_in < 40
        assert f"The {taken_in} items before were taken in." in reply.json()["error"]["message"]


def test_of_who_hangs_up_no_more_items_are_stored(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = slowly(live, monkeypatch)
    body = json.dumps({"items": [{"id": f"{at}", "text": "x"} for at in range(100)]}).encode()
    head = f"PUT {ITEMS} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    live.raw(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body, wait=0.5)
    time.sleep(1.0)
    so_far = sum(sizes)
    time.sleep(0.5)
    assert sum(sizes) == so_far < 100


def test_a_body_may_be_longer_on_its_way_than_an_answer_may_take(tmp_path: Path) -> None:
    body = json.dumps({"input": "a dog" + " " * 100_000}).encode()  # parsed in the pool
    head = "POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    with (
        serving(tmp_path, times=Times(answer=0.5, drain=5)) as live,
        socket.create_connection(("127.0.0.1", live.port), timeout=10) as connected,
    ):
        connected.sendall(head.encode() + body[:1_000])
        time.sleep(0.8)
        connected.sendall(body[1_000:])
        assert read_all(connected).startswith(b"HTTP/1.1 200 ")


def test_of_an_add_whose_writer_died_nothing_is_said_to_be_missing(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def died(*args: Any, **more: Any) -> Any:
        raise Unanswered("Whether it was done is unknown.")

    monkeypatch.setattr(live.services.item_writer, "write", died)
    reply = live.client.post(ITEMS, json={"items": [{"id": "a", "text": "x"}]})
    assert told(reply) == (503, "not_available")  # 501 is for what is not installed
    assert reply.headers["retry-after"] == "1"


def test_lines_that_are_refused_at_once_may_be_sent_again(
    live: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    def busy(*args: Any, **more: Any) -> Any:
        raise Overloaded("1 requests wait.", retry_after=1)

    monkeypatch.setattr(live.services.item_writer, "write", busy)
    reply = live.client.post(ITEMS, content=lines_of(range(150)), headers=LINES)
    assert (reply.status_code, told(reply)[1]) == (429, "overloaded")


def test_lines_that_are_refused_midway_are_no_429(tmp_path: Path) -> None:
    (few, key), (none, other) = (new_key(str(n), role="admin", daily=n) for n in (50, 1))
    with serving(tmp_path, keys=[key, other]) as live:
        live.client.headers["X-API-Key"] = few
        live.json("POST", "/v1/collections", {"name": "photos"})
        reply = live.client.post(ITEMS, content=lines_of(range(90)), headers=LINES)
        # an add that is sent again would find its own first items there
        assert told(reply) == (503, "quota_exceeded")
        assert int(reply.headers["retry-after"]) > 60
        assert "The 64 lines before were taken in." in reply.json()["error"]["message"]
        assert reply.json()["error"]["taken_in"] == 64
        # blank lines are no items: half of the 64
        assert live.json("POST", f"{ITEMS}/count", {}) == {"count": 32}
        live.client.headers["X-API-Key"] = none
        reply = live.client.post(ITEMS, content=lines_of(range(90)), headers=LINES)
        assert told(reply) == (429, "quota_exceeded")


@pytest.mark.parametrize(
    "id", ["/photos/1.jpg", "a b", "ü", "%2F", "image", "get", "a/image", "..", "?x=1#y", "\x00\n"]
)
def test_an_id_is_one_segment_whatever_is_in_it(live: Live, id: str) -> None:
    from urllib.parse import quote

    live.json("PUT", ITEMS, {"items": [{"id": id, "text": "odd"}, {"id": "a", "text": "other"}]})
    path = f"{ITEMS}/{quote(id, safe='').replace('.', '%2E')}"
    assert live.json("GET", path)["id"] == id
    assert live.error("GET", f"{path}/image") == (404, "not_found")
    assert live.json("DELETE", path) == {"deleted": 1}
    assert live.json("POST", f"{ITEMS}/count", {}) == {"count": 1}


def test_what_is_acknowledged_is_found_at_once(live: Live) -> None:
    for at in range(20):
        live.json("PUT", ITEMS, {"items": [{"id": "a", "text": f"word{at}"}]})
        hits = live.json("POST", "/v1/collections/photos/search", {"query": f"word{at}"})["hits"]
        assert hits[0]["text"] == f"word{at}"
        assert hits[0]["score"] == pytest.approx(1, abs=1e-5)


def test_a_picture_comes_back_as_it_was_sent(live: Live, red: bytes) -> None:
    image = base64.b64encode(red).decode()
    live.json("PUT", ITEMS, {"items": [{"id": "a/b", "image": image}, {"id": "t", "text": "x"}]})
    reply = live.client.request("GET", f"{ITEMS}/a%2Fb/picture")
    assert (reply.status_code, reply.content) == (200, red)
    assert reply.headers["content-type"] == "image/png"
    assert reply.headers["content-disposition"] == "attachment"
    assert reply.headers["x-content-type-options"] == "nosniff"
    for id in ("t", "nobody"):
        assert live.error("GET", f"{ITEMS}/{id}/picture") == (404, "not_found")
    live.json("DELETE", f"{ITEMS}/a%2Fb")
    assert live.error("GET", f"{ITEMS}/a%2Fb/picture") == (404, "not_found")


def test_a_server_can_be_told_to_keep_thumbnails_only(data: Path, red: bytes) -> None:
    with serving(data, discard_pictures=True) as running:
        running.json("POST", "/v1/collections", {"name": "photos"})
        image = base64.b64encode(red).decode()
        running.json("PUT", ITEMS, {"items": [{"id": "a", "image": image}]})
        assert running.error("GET", f"{ITEMS}/a/picture") == (404, "not_found")
        assert running.client.request("GET", f"{ITEMS}/a/image").status_code == 200
