"""A model behind a cache is the same model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conformance.encoder_suite import items
from tests.retrieval.fakes import BLUE, GREEN, RED, CountingModel, encoded, paint, picture
from triptych.cache.base import Cache
from triptych.cache.memory import MemoryCache
from triptych.embedder import Embedder, pin
from triptych.encoders.base import EmbeddingModel
from triptych.encoders.hashing import HashingEncoder
from triptych.encoders.onnx import OnnxModel
from triptych.encoders.vectors import CallerVectors
from triptych.errors import PictureError
from triptych.retrieval.collection import Collection
from triptych.types import Item


@pytest.fixture
def cache() -> Cache:
    return MemoryCache(10**7)


def test_it_has_what_the_model_has(cache: Cache) -> None:
    model = HashingEncoder(dim=64)
    embedder = Embedder(model, cache=cache)
    assert isinstance(embedder, EmbeddingModel)
    for name in ("name", "fingerprint", "dim", "languages", "picture_size"):
        assert getattr(embedder, name) == getattr(model, name)
    with pytest.raises(AttributeError):
        embedder.folder  # noqa: B018


@pytest.mark.parametrize("name", ["hashing", "default"])
def test_vectors_are_the_same_bits(name: str, cache: Cache) -> None:
    model = HashingEncoder() if name == "hashing" else OnnxModel.from_name("")
    embedder = Embedder(model, cache=cache)
    asked = items(9)
    expected = model.embed(asked)
    warm = asked[3:6]
    embedder.embed(warm)
    for _ in range(2):
        got = embedder.embed(asked)
        assert got.dtype == np.float32
        # the default model's experts multiply the tokens of all that are asked in one product
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6 if name == "default" else 0)
    kept = got.tobytes()
    got[:] = 0.0  # it is the caller's own
    assert embedder.embed(asked).tobytes() == kept
    assert embedder.embed([]).shape == (0, model.dim)


def test_each_content_is_embedded_once(cache: Cache, tmp_path: Path) -> None:
    model = CountingModel()
    embedder = Embedder(model, cache=cache)
    path = paint(tmp_path / "red.png", RED)
    one = [
        Item(id="text", text="red"),
        Item(id="same text", text="red"),
        Item(id="path", image=path),
        Item(id="bytes", image=encoded(RED)),
        Item(id="both", text="red", image=path),
    ]
    embedder.embed(one)
    assert model.embedded == ["text", "path", "both"]
    embedder.embed(one[::-1])
    assert len(model.embedded) == 3
    paint(path, GREEN)  # the name is not the content
    embedder.embed(one)
    assert model.embedded[3:] == ["path", "both"]


def test_another_tenant_or_model_shares_nothing(cache: Cache) -> None:
    model = CountingModel()
    item = [Item(id="x", text="red")]
    for tenant in ("a", "b", "a"):
        Embedder(model, cache=cache, tenant=tenant).embed(item)
    assert len(model.embedded) == 2
    other = CountingModel(dim=64)
    assert Embedder(other, cache=cache, tenant="a").embed(item).shape == (1, 64)


def test_contents_that_look_alike_are_told_apart(tmp_path: Path) -> None:
    grey = np.full((4, 6), 128, dtype=np.uint8)
    sources = [
        grey,
        grey.T,
        Image.fromarray(grey).resize((12, 2)),
        encoded(RED),
        encoded(RED, format="BMP"),
        encoded(BLUE),
    ]
    assert len({pin(source).content for source in sources}) == len(sources)
    same = [grey, Image.fromarray(grey), Image.fromarray(grey).convert("RGB")]
    assert len({pin(source).content for source in same}) == 1
    turned = picture(RED)
    turned.getexif()[0x0112] = 6
    assert pin(turned).content != pin(picture(RED)).content


@pytest.mark.parametrize("value", [b"", b"\0" * 128, b"\xff" * 128, b"\x01" * 127, b"\0" * 256])
def test_a_value_that_is_no_vector_is_not_used(value: bytes, cache: Cache) -> None:
    model = CountingModel()
    embedder = Embedder(model, cache=cache)
    item = [Item(id="x", text="red")]
    expected = embedder.embed(item)
    (key,) = cache._held  # type: ignore[attr-defined]
    cache.put_many([(key, value)])
    assert embedder.embed(item).tobytes() == expected.tobytes()
    assert len(model.embedded) == 2


def test_errors_are_the_models_own_and_name_the_source(cache: Cache, tmp_path: Path) -> None:
    model = HashingEncoder()
    embedder = Embedder(model, cache=cache)
    broken = tmp_path / "broken.png"
    broken.write_bytes(encoded(RED)[:60])
    for image in (broken, tmp_path / "missing.png", b"no picture", "http://example.org/x.png"):
        wrong = [Item(id="good", text="red"), Item(id="bad", image=image)]
        with pytest.raises(PictureError) as expected:
            model.embed(wrong)
        with pytest.raises(PictureError) as got:
            embedder.embed(wrong)
        assert (got.value.code, str(got.value)) == (expected.value.code, str(expected.value))


def test_vectors_of_the_caller_pass(cache: Cache) -> None:
    embedder = Embedder(CallerVectors("mine", 2), cache=cache)
    assert embedder.embed([Item(id="x", vector=[3, 4])]).tolist() == [
        [0.6000000238418579, 0.800000011920929]
    ]


def test_many_who_want_the_same_cost_one(cache: Cache) -> None:
    model = CountingModel()
    embedder = Embedder(model, cache=cache)
    begin = threading.Barrier(16)
    asked = [
        [Item(id="x", text="red"), Item(id=str(at % 2), text=f"green {at % 2}")] for at in range(16)
    ]

    def work(at: int) -> None:
        begin.wait()
        embedder.embed(asked[at])

    threads = [threading.Thread(target=work, args=(at,)) for at in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(model.embedded) == ["0", "1", "x"]


class JustMissed(MemoryCache):
    """Somebody else lands between a look into the cache and what follows from it."""

    def __init__(self, landed: Callable[[], object]) -> None:
        super().__init__(10**7)
        self._landed: Callable[[], object] | None = landed

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        values = super().get_many(keys)
        landed, self._landed = self._landed, None
        if landed is not None:
            landed()
        return values


def test_what_lands_between_look_and_leap_is_not_embedded_again() -> None:
    model = CountingModel()
    first = Item(id="first", text="red")
    cache = JustMissed(lambda: embedder.embed([first]))
    embedder = Embedder(model, cache=cache)
    got = embedder.embed([Item(id="second", text="red"), Item(id="third", text="green")])
    assert model.embedded == ["first", "third"]
    assert got.tolist() == model.embed([first, Item(id="third", text="green")]).tolist()


def test_a_collection_reranks_by_the_token_states_of_the_model_behind(cache: Cache) -> None:
    embedder = Embedder(HashingEncoder(dim=64), cache=cache)
    with Collection.open(":memory:", embedder=embedder, tokens=True) as collection:
        collection.add([{"id": "1", "text": "red bicycle"}, {"id": "2", "text": "blue car"}])
        assert collection.search("red bicycle", rerank=2)[0].id == "1"
