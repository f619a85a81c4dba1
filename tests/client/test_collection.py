"""The same tests for a collection here, one of a real server, and that one awaited."""

from __future__ import annotations

import asyncio
import inspect
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.client.serving import served
from tests.retrieval.fakes import BLUE, GREEN, RED, encoded, paint, picture
from triptych import connect, connect_async
from triptych.client.collection import AsyncRemoteCollection, RemoteCollection
from triptych.encoders.hashing import HashingEncoder
from triptych.encoders.onnx import OnnxModel
from triptych.errors import InvalidInput, NotFound, PictureError, RemoteError
from triptych.filters import parse_filter
from triptych.retrieval.collection import Collection
from triptych.types import Hit, Item, Part

pytest.importorskip("triptych.api.server")


class Awaited:
    """Awaits every method, so that the tests need not."""

    def __init__(self, remote: AsyncRemoteCollection, runner: asyncio.Runner) -> None:
        self._remote, self._runner = remote, runner

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._remote, name)
        return lambda *args, **kwargs: self._runner.run(method(*args, **kwargs))

    def __len__(self) -> int:
        return self.count()


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(tmp_path_factory.mktemp("data")) as url:
        yield url


names = itertools.count()


@pytest.fixture(params=["here", "remote", "async"])
def collection(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """An empty collection of the hashing model."""
    if request.param == "here":
        with Collection.open(tmp_path / "c", embedder=HashingEncoder(dim=64)) as here:
            yield here
        return
    url, name = request.getfixturevalue("address"), f"c{next(names)}"
    if request.param == "remote":
        with connect(url, collection=name) as remote:
            remote.create()
            yield remote
            remote.drop()
        return
    with asyncio.Runner() as runner:
        awaited = Awaited(connect_async(url, collection=name), runner)
        awaited.create()
        yield awaited
        awaited.drop()
        awaited.close()


ITEMS = [
    {"id": "shoe", "text": "the red shoe", "metadata": {"shop": "Nord", "price": 40}},
    {"id": "hat", "text": "a green hat", "metadata": {"shop": "Süd", "price": 90}},
    {"id": "sea", "image": encoded(BLUE), "metadata": {"shop": "Nord"}, "uri": "https://x.example"},
    {"id": "both", "text": "red", "image": picture(RED)},
]


def test_what_is_written_is_there_and_found(collection: Any) -> None:
    assert collection.add(ITEMS) == 4
    assert collection.count() == len(collection) == 4
    shoe, nothing, sea = collection.get(["shoe", "nobody", "sea"])
    assert nothing is None
    assert (shoe.id, shoe.text, shoe.modality, shoe.uri) == ("shoe", "the red shoe", "text", None)
    assert shoe.metadata == {"shop": "Nord", "price": 40}
    assert (sea.modality, sea.uri, sea.text) == ("image", "https://x.example", None)
    hits = collection.search("the red shoe", limit=3)
    assert hits[0].id == "shoe"
    assert hits[0].score == pytest.approx(1, abs=1e-5)
    assert hits[0].metadata == shoe.metadata
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_the_hits_are_those_of_a_collection_here(collection: Any, tmp_path: Path) -> None:
    more = [{"id": f"{n}", "text": f"red shoe number {n}", "metadata": {"n": n}} for n in range(40)]
    blue = paint(tmp_path / "blue.png", BLUE)
    asked: list[dict[str, Any]] = [
        {"query": "red shoe"},
        {"query": "red shoe", "minus": ["green"], "limit": 30},
        {"image": blue},
        {"image": [picture(GREEN), np.full((8, 8, 3), 200, np.uint8)]},
        {"query": "red", "image": encoded(RED), "threshold": 0.2},
        {"like": "shoe", "limit": 5, "offset": 2},
        {"vector": np.arange(64, dtype=np.float32)},
        {"query": [Part(text="red", weight=2), Part(id="hat", weight=-0.5)], "top_k": 7},
        {"query": "number", "filter": {"n": {"$lt": 7}}},
        {"query": "number", "filter": "n < 7 or shop = \"Süd\""},
        {"query": "number", "filter": parse_filter({"n": {"$in": [1, 2]}})},
        {"query": "shoe number 17", "hybrid": True},
        {"query": "shoe number 17", "hybrid": 0.9, "k": 3},
        {"query": "shoe", "diversity": 0.5},
        {"query": "shoe", "group_by": "shop", "group_size": 2},
        {"query": "nothing", "threshold": 1.0},
    ]  # fmt: skip
    with Collection.open(":memory:", embedder=HashingEncoder(dim=64)) as here:
        for one in (collection, here):
            one.upsert(ITEMS)
            one.upsert(iter(more))
        for arguments in asked:
            assert collection.search(**arguments) == here.search(**arguments), arguments
        assert (collection.vectors(["hat", "3"]) == here.vectors(["hat", "3"])).all()
        facets = {"fields": ["shop", "price"], "filter": "price > 1", "limit": 3}
        assert collection.facets(**facets) == here.facets(**facets)
        assert collection.facets("shop") == here.facets("shop")
        assert collection.count({"n": {"$gte": 30}}) == here.count({"n": {"$gte": 30}}) == 10


def test_explanations_are_those_of_a_collection_here(collection: Any) -> None:
    with Collection.open(":memory:", embedder=HashingEncoder(dim=64)) as here:
        for one in (collection, here):
            one.upsert(ITEMS)
        for explain in (True, ["sea", "shoe"], "both", []):
            asked = {"query": "red", "minus": "green", "explain": explain}
            _same(collection.search(**asked), here.search(**asked))
    with pytest.raises(InvalidInput):
        collection.search("red", explain=3)


@pytest.mark.parametrize("remote", [connect, connect_async])
def test_heat_is_that_of_a_collection_here(remote: Callable[..., Any], tmp_path: Path) -> None:
    items = [{"id": "sea", "image": picture(BLUE)}, {"id": "note", "text": "a shoe"}]
    with (
        served(tmp_path, "--model", "default") as url,
        asyncio.Runner() as runner,
        Collection.open(":memory:", embedder=OnnxModel.load()) as here,
    ):
        there = remote(url)
        one = Awaited(there, runner) if remote is connect_async else there
        one.create()
        one.upsert(items)
        here.upsert(items)
        asked = {"query": "the sea", "explain": True}
        _same(one.search(**asked), here.search(**asked))
        assert any(hit.explanation.heat for hit in one.search(**asked))
        one.close()


def _same(found: list[Hit], expected: list[Hit]) -> None:
    for hit, other in zip(found, expected, strict=True):
        assert (hit.id, hit.score) == (other.id, pytest.approx(other.score, abs=1e-6))
        one, two = hit.explanation, other.explanation
        assert (one is None) == (two is None)
        if one is None or two is None:
            continue
        assert one.shares == pytest.approx(two.shares, abs=1e-6)
        assert (one.tier, one.note, set(one.stages_ms)) == (two.tier, two.note, set(two.stages_ms))
        assert (one.heat is None) == (two.heat is None)
        heats = [h for h in (one.heat, *one.words) if h is not None]
        others = [h for h in (two.heat, *two.words) if h is not None]
        for heat, another in zip(heats, others, strict=True):
            np.testing.assert_allclose(heat.grid_RC, another.grid_RC, atol=1e-5)
            assert heat.png[:4] == another.png[:4] == b"\x89PNG"
        said = [
            [(w.word, w.part, w.start, w.stop) for w in words] for words in (one.words, two.words)
        ]
        assert said[0] == said[1]


def test_writing_again_replaces_and_adding_again_is_refused(collection: Any) -> None:
    collection.upsert({"id": "a", "text": "one"})
    with pytest.raises(InvalidInput, match="'a'"):
        collection.add([{"id": "a", "text": "two"}])
    assert collection.get("a")[0].text == "one"
    assert collection.upsert([Item(id="a", text="three")]) == 1
    assert collection.get("a")[0].text == "three"


def test_what_is_deleted_is_gone(collection: Any) -> None:
    collection.add(ITEMS)
    assert collection.delete(["shoe", "nobody"]) == 1
    assert collection.delete("hat") == 1
    assert collection.count() == 2
    assert "shoe" not in [hit.id for hit in collection.search("red shoe")]
    collection.compact()
    assert collection.count() == 2


def test_an_id_may_be_anything(collection: Any) -> None:
    collection.add([{"id": "other", "text": "green"}])
    assert collection.thumbnail("other") is None
    for id in ("/photos/1.jpg", "a b", "ä/../?#%", "..", ".", "%2F", "x\ny", "日本"):
        collection.add([{"id": id, "image": encoded(RED)}])
        assert collection.get(id)[0].id == id
        assert collection.search("red", limit=1)[0].id == id
        assert collection.thumbnail(id)[:2] == b"\xff\xd8"
        assert collection.delete(id) == 1


def test_info_tells_what_it_is(collection: Any) -> None:
    collection.add(ITEMS)
    info = collection.info()
    assert (info["count"], info["dim"], info["model"]) == (4, 64, "hashing:64")
    assert info["fingerprint"] == HashingEncoder(dim=64).fingerprint


REFUSED: list[tuple[Callable[[Any], object], type[Exception]]] = [
    (lambda c: c.search(), InvalidInput),
    (lambda c: c.search("x", limit=0), InvalidInput),
    (lambda c: c.search("x", top_k=1, k=2), InvalidInput),
    (lambda c: c.search("x", filter="price <"), InvalidInput),
    (lambda c: c.search("x", diversity=2), InvalidInput),
    (lambda c: c.search("x", rerank=5), InvalidInput),
    (lambda c: c.search("  "), InvalidInput),
    (lambda c: c.search(vector=[1.0, 2.0]), InvalidInput),
    (lambda c: c.search(vector=[float("nan")] * 64), InvalidInput),
    (lambda c: c.search(like="nobody"), NotFound),
    (lambda c: c.search(image="/no/such/file.png"), PictureError),
    (lambda c: c.search(image=b"no picture at all"), PictureError),
    (lambda c: c.search(image="https://example.org/a.png"), Exception),
    (lambda c: c.vectors(["hat", "nobody"]), NotFound),
    (lambda c: c.get([3]), InvalidInput),
    (lambda c: c.delete([None]), InvalidInput),
    (lambda c: c.facets("shop", limit=0), InvalidInput),
    (lambda c: c.upsert([{"text": "no id"}]), InvalidInput),
    (lambda c: c.upsert([{"id": "x"}]), InvalidInput),
    (lambda c: c.upsert([{"id": "x", "text": "  "}]), InvalidInput),
    (lambda c: c.upsert([{"id": "x", "text": "y", "metadata": {"a": {1, 2}}}]), InvalidInput),
    (lambda c: c.upsert([{"id": "x", "text": "y", "metadata": {"a": 1e999}}]), InvalidInput),
    (lambda c: c.upsert([{"id": "x", "image": b"GIF89a broken"}]), PictureError),
    (lambda c: c.upsert([{"id": "x" * 20_000, "text": "y"}]), InvalidInput),
    (lambda c: c.upsert(["x"]), InvalidInput),
]  # fmt: skip


def test_errors_are_of_the_same_class(collection: Any) -> None:
    collection.add(ITEMS)
    for ask, error in REFUSED:
        with pytest.raises(error) as caught:
            ask(collection)
        assert str(caught.value)
    assert collection.count() == 4


def test_vectors_are_of_one_shape_here_and_there(collection: Any) -> None:
    collection.add(ITEMS)
    none = collection.vectors([])
    assert none.shape == (0, 64) and none.dtype == np.float32
    row_M = np.arange(64.0) - 20
    expected = collection.search(vector=row_M)
    assert collection.search(vector=row_M[None]) == expected


def test_an_error_of_a_batch_names_its_item(collection: Any) -> None:
    with pytest.raises(PictureError, match="'broken'"):
        collection.upsert([{"id": "fine", "text": "y"}, {"id": "broken", "image": b"no picture"}])


def test_the_others_of_a_batch_are_stored_and_the_error_says_so(address: str) -> None:
    with connect(address, collection="partly") as remote:
        remote.create()
        with pytest.raises(PictureError, match="2 of this batch were refused, 8 were stored"):
            remote.upsert(
                {"id": f"{n}", "image": encoded(RED) if n % 5 else b"GIF89a broken"}
                for n in range(10)
            )
        assert remote.count() == 8


def test_collections_are_made_listed_and_dropped(address: str) -> None:
    with connect(address, collection="new") as remote:
        with pytest.raises(NotFound):
            remote.count()
        assert remote.create(model="vectors:mine:3", precision="fp16")["dim"] == 3
        with pytest.raises(InvalidInput, match="exists"):
            remote.create()
        assert remote.upsert([{"id": "v", "vector": np.eye(3)[1]}]) == 1
        assert remote.search(vector=[0, 1, 0])[0].score == 1
        assert "new" in remote.collections()
        remote.drop()
        assert "new" not in remote.collections()


def test_both_clients_have_the_methods_of_a_collection() -> None:
    public = {name for name in vars(RemoteCollection) if not name.startswith("_")}
    public -= {"to_async"}  # leads from the one to the other
    assert public == {name for name in vars(AsyncRemoteCollection) if not name.startswith("_")}
    for name in public - {"create", "drop", "collections"}:
        here = inspect.signature(getattr(Collection, name))
        there = inspect.signature(getattr(RemoteCollection, name))
        assert list(here.parameters) == list(there.parameters), name
        assert inspect.getdoc(getattr(RemoteCollection, name))
    assert {"search", "get", "vectors", "facets", "thumbnail", "info"} <= public


def test_nobody_there_is_an_error_that_says_so() -> None:
    with (
        connect("http://127.0.0.1:1", retries=0) as remote,
        pytest.raises(RemoteError, match="No answer") as caught,
    ):
        remote.count()
    assert caught.value.code == "no_reply"
