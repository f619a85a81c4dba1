"""Late interaction: the measure, what is kept for it, and the order it gives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.retrieval.fakes import BLUE, DIM, GREEN, RED, CountingModel, encoded, unit_vectors
from triptych.encoders.base import LateInteraction
from triptych.encoders.hashing import HashingEncoder
from triptych.encoders.vectors import CallerVectors
from triptych.errors import CollectionDamaged, InvalidInput, ModelMismatch, NotAvailable
from triptych.index.sqlite.pages import CHECKED
from triptych.index.sqlite.tokens import from_bytes, in_bytes
from triptych.retrieval.collection import Collection
from triptych.retrieval.folder import STORE, open_store
from triptych.retrieval.late import max_similarities, query_tokens, stored_tokens
from triptych.retrieval.maintenance.portable import export_collection, import_collection
from triptych.retrieval.maintenance.repair import repair
from triptych.retrieval.maintenance.verify import verify
from triptych.types import Item, Matrix, Part, Query

WORDS = [
    "red",
    "green",
    "blue",
    "car",
    "dog",
    "boat",
    "rain",
    "snow",
    "field",
    "night",
    "old",
    "new",
    "tall",
]


def texts(num: int) -> list[dict[str, Any]]:
    draw = np.random.default_rng(3)
    return [{"id": f"{at:03}", "text": " ".join(draw.choice(WORDS, 6))} for at in range(num)]


def opened(path: Any = ":memory:", *, tokens: bool = True) -> Collection:
    return Collection.open(path, embedder=HashingEncoder(dim=DIM), tokens=tokens)


@pytest.fixture(scope="module")
def collection() -> Iterator[Collection]:
    with opened() as collection:
        collection.add(one | {"metadata": {"n": at % 4}} for at, one in enumerate(texts(300)))
        yield collection


def slow_score(tokens_QW: Matrix, states_TW: Matrix) -> float:
    """The definition, one product at a time."""
    total = 0.0
    for token_W in tokens_QW:
        total += max(float(np.dot(token_W, state_W)) for state_W in states_TW)
    return total


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 7), st.integers(0, 2**20)
)
def test_the_measure_is_its_definition(lengths: list[int], num: int, seed: int) -> None:
    tokens_QW = unit_vectors(num, seed=seed) / num
    states = [unit_vectors(length, seed=seed + at) for at, length in enumerate(lengths, 1)]
    scores_K = max_similarities(tokens_QW, states)
    expected = [slow_score(tokens_QW, one_TW) for one_TW in states]
    np.testing.assert_allclose(scores_K, expected, atol=2e-6)
    alone = [max_similarities(tokens_QW, [one_TW])[0] for one_TW in states]
    np.testing.assert_allclose(scores_K, alone, atol=2e-6)


@given(st.integers(1, 40), st.sampled_from([1, 3, 32, 768]), st.integers(0, 2**20))
def test_eight_bits_are_near_and_each_row_by_itself(num: int, width: int, seed: int) -> None:
    states_TW = unit_vectors(num, dim=width, seed=seed)
    tokens_TW = in_bytes(states_TW)
    back_TW = from_bytes(tokens_TW)
    assert (tokens_TW.dtype, tokens_TW.shape) == (np.int8, (num, width))
    greatest_T1 = np.abs(states_TW).max(axis=1, keepdims=True)
    # half a step of rounding, and what scaling to unit length moves besides
    assert (np.abs(back_TW - states_TW) <= greatest_T1 / 254 * (1 + np.sqrt(width))).all()
    assert ((back_TW * states_TW).sum(axis=1) > 0.999).all()
    np.testing.assert_allclose(np.linalg.norm(back_TW, axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(in_bytes(states_TW[:1]), tokens_TW[:1])


def test_a_model_gives_states_alone_as_in_a_batch() -> None:
    model = HashingEncoder(dim=DIM)
    items = [
        Item(id="t", text="a red car"),
        Item(id="p", image=encoded(RED)),
        Item(id="b", text="a boat", image=encoded(BLUE)),
    ]
    assert isinstance(model, LateInteraction)
    together = model.token_states(items)
    assert [one_TW.shape for one_TW in together] == [(3, DIM), (16, DIM), (18, DIM)]
    for item, one_TW in zip(items, together, strict=True):
        np.testing.assert_allclose(model.token_states([item])[0], one_TW, atol=1e-5)


def test_the_order_is_the_measures_and_scores_stay_cosines(collection: Collection) -> None:
    model = HashingEncoder(dim=DIM)
    plain = collection.search("red boat at night", limit=60)
    ranked = collection.search("red boat at night", limit=60, rerank=50)
    assert {hit.id: hit.score for hit in ranked} == {hit.id: hit.score for hit in plain}
    tokens_QW = query_tokens(Query((Part(text="red boat at night"),)), model)
    items = [Item(id=hit.id, text=hit.text) for hit in plain[:50]]
    stored = [from_bytes(one) for one in stored_tokens(model, items, DIM) if one is not None]
    scores = {
        hit.id: round(slow_score(tokens_QW, one_TW), 4)
        for hit, one_TW in zip(plain, stored, strict=False)
    }
    given_scores = [scores[hit.id] for hit in ranked[:50]]
    assert given_scores == sorted(given_scores, reverse=True)
    assert [hit.id for hit in ranked[:50]] != [hit.id for hit in plain[:50]]
    assert [hit.id for hit in ranked[50:]] == [hit.id for hit in plain[50:]]
    assert [hit.found for hit in ranked] == ["flat+rerank"] * 50 + ["flat"] * 10
    assert {hit.found for hit in plain} == {"flat"}


@pytest.mark.parametrize("rerank", [1, 5, 50, 10_000])
@pytest.mark.parametrize(
    "more", [{}, {"threshold": 0.1}, {"hybrid": True}, {"filter": "n < 9"}, {"diversity": 0.3}]
)
def test_pages_join_without_a_seam(rerank: int, more: dict[str, Any]) -> None:
    with opened() as collection:
        collection.add([item | {"metadata": {"n": at % 20}} for at, item in enumerate(texts(120))])
        asked: dict[str, Any] = {"rerank": rerank, **more}
        pages = [collection.search("old dog", limit=7, offset=at, **asked) for at in (0, 7, 14)]
        whole = collection.search("old dog", limit=21, **asked)
        assert [hit.id for page in pages for hit in page] == [hit.id for hit in whole]


def test_it_goes_with_diversity_and_groups(collection: Collection) -> None:
    asked: dict[str, Any] = {"limit": 10, "rerank": 20}
    various = collection.search("old dog", diversity=0.8, **asked)
    nearest = collection.search("old dog", **asked)
    assert various[0].id == nearest[0].id
    assert {hit.id for hit in various} != {hit.id for hit in nearest}
    assert {hit.found for hit in various} == {"flat+rerank"}
    firsts = {}
    for hit in nearest:
        firsts.setdefault(hit.metadata["n"], hit.id)
    grouped = collection.search("old dog", group_by="n", **asked)
    assert [hit.id for hit in grouped][: len(firsts)] == list(firsts.values())


def test_a_picture_and_weights_count() -> None:
    with opened() as collection:
        collection.add({"id": str(colour), "image": encoded(colour)} for colour in (RED, GREEN))
        query = [Part(text="red"), Part(text="green", weight=9.0)]
        assert collection.search(query, rerank=9)[0].id == str(GREEN)
        assert collection.search(image=encoded(RED), rerank=9)[0].id == str(RED)


@pytest.mark.parametrize("asked", [{"like": "000"}, {"minus": "dog"}, {"vector": [1.0] * DIM}])
def test_only_words_and_pictures_have_tokens(collection: Collection, asked: Any) -> None:
    with pytest.raises(InvalidInput, match="tokens of words and pictures"):
        collection.search("old", rerank=5, **asked)


def test_without_tokens_it_is_refused_with_the_way_out() -> None:
    with opened(tokens=False) as collection:
        collection.add(texts(3))
        assert "token_width" not in collection.info()
        with pytest.raises(InvalidInput, match="no token states") as error:
            collection.search("dog", rerank=10)
        assert "tokens=True" in str(error.value.hint)
    with pytest.raises(NotAvailable, match="gives no token states"):
        Collection.open(":memory:", embedder=CallerVectors.from_name("mine:4"), tokens=True)
    with pytest.raises(InvalidInput), opened() as collection:
        collection.search("dog", rerank=-1)


def test_reopened_it_keeps_what_it_is(tmp_path: Path) -> None:
    with opened(tmp_path) as collection:
        collection.add(texts(20))
        expected = [hit.id for hit in collection.search("red car", rerank=20)]
    with opened(tmp_path, tokens=False) as again:
        assert [hit.id for hit in again.search("red car", rerank=20)] == expected
        info = again.info()
        assert (info["token_width"], info["with_tokens"]) == (DIM, 20)
        assert info["token_bytes"] == 20 * 6 * DIM


def test_they_travel_in_an_archive(tmp_path: Path) -> None:
    with opened(tmp_path / "one") as collection:
        collection.add(texts(20))
        expected = [(hit.id, hit.score) for hit in collection.search("red car", rerank=20)]
    store = open_store(tmp_path / "one")
    export_collection(store, tmp_path / "file")
    store.close()
    archive = import_collection(tmp_path / "file", tmp_path / "other")
    assert archive.token_width == DIM
    with opened(tmp_path / "other", tokens=False) as again:
        assert [(hit.id, hit.score) for hit in again.search("red car", rerank=20)] == expected
        info = again.info()
        assert (info["token_width"], info["with_tokens"]) == (DIM, 20)
        assert info["token_bytes"] == 20 * 6 * DIM
    assert verify(tmp_path / "other").ok


def test_damaged_ones_are_not_exported(tmp_path: Path) -> None:
    with opened(tmp_path / "one") as collection:
        collection.add(texts(3))
        with collection._store._changing() as connection:
            connection.execute("UPDATE tokens SET states = zeroblob(length(states)) WHERE row = 2")
    store = open_store(tmp_path / "one")
    with pytest.raises(CollectionDamaged, match="token states of '001'"):
        export_collection(store, tmp_path / "file")
    store.close()
    assert not (tmp_path / "file").exists()


def test_a_second_process_hands_its_tokens_over(tmp_path: Path) -> None:
    with opened(tmp_path) as writer, opened(tmp_path) as other:
        writer.add(texts(5))
        other.add([{"id": "new", "text": "a red car", "image": encoded(RED)}])
        assert writer.info()["with_tokens"] == 6
        assert other.search("red car", rerank=9)[0].id == "new"


def test_they_go_with_the_item(tmp_path: Path) -> None:
    items = texts(40)
    with opened(tmp_path) as collection:
        collection.add(items)
        model = HashingEncoder(dim=DIM)
        gone = [Item(id=one["id"], text=one["text"]) for one in items[:2]]
        needles = [one.tobytes() for one in stored_tokens(model, gone, DIM) if one is not None]
        collection.upsert([{"id": "000", "text": "something else"}])
        collection.delete("001")
        assert collection.info()["with_tokens"] == 39
        collection.compact()
    found = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert not any(re.search(re.escape(needle), found) for needle in needles)


def damage(folder: Path, statement: str) -> None:
    connection = apsw.Connection(str(folder / STORE), vfs=CHECKED)
    connection.execute(statement)
    connection.close()


def test_damage_is_noticed_and_mended(tmp_path: Path) -> None:
    with opened(tmp_path) as collection:
        collection.add(texts(30))
        first, second = (hit.id for hit in collection.search("old dog", limit=2, rerank=30))
    row = f"(SELECT row FROM items WHERE id = '{first}')"
    damage(tmp_path, f"UPDATE tokens SET states = zeroblob({6 * DIM}) WHERE row = {row}")
    with opened(tmp_path) as collection:
        hits = collection.search("old dog", rerank=30)
        assert hits[0].id == second and first not in {hit.id for hit in hits}
        assert collection.info()["damaged"] == [first]
    found = verify(tmp_path)
    assert [(one.part, one.id) for one in found.findings] == [("tokens", first)]
    assert repair(found).without_tokens == [first]
    assert verify(tmp_path).ok
    with opened(tmp_path) as collection:
        assert collection.info()["with_tokens"] == 29
        hits = collection.search("old dog", limit=30, rerank=30)
        # found again, behind those that can be compared
        assert (hits[-1].id, hits[-1].found) == (first, "flat")


def test_a_model_cannot_be_changed_under_them(tmp_path: Path) -> None:
    with opened(tmp_path) as collection:
        collection.add(texts(2))
    with pytest.raises(ModelMismatch):
        Collection.open(tmp_path, embedder=CountingModel(dim=16))
