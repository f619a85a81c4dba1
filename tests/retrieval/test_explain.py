"""Explanations: shares, heat place by place and word by word, and who gets none and why."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tests.retrieval.fakes import BLUE, RED, picture
from triptych.cache.memory import MemoryCache
from triptych.encoders.hashing import HashingEncoder
from triptych.encoders.onnx import OnnxModel
from triptych.errors import InvalidInput, NotFound
from triptych.retrieval.answering.answer_cache import AnswerCache
from triptych.retrieval.collection import Collection
from triptych.retrieval.display import explain
from triptych.retrieval.display.heat import overlay, words_of
from triptych.types import Cube, Hit, Item, Matrix, Part, Query


class Spots(HashingEncoder):
    """Knows places: what a spot of a 2 x 3 grid loses is its number times the first axis."""

    has_places = True
    asked = 0

    def hidden_places(self, pictures: list[Image.Image]) -> list[Cube]:
        self.asked += len(pictures)
        lost_RCM = np.zeros((2, 3, self.dim), dtype=np.float32)
        lost_RCM[..., 0] = np.arange(6).reshape(2, 3)
        return [lost_RCM for _ in pictures]


@pytest.fixture
def collection() -> Iterator[Collection]:
    with Collection.open(":memory:", embedder=Spots(dim=64)) as here:
        here.add(
            [
                {"id": "red", "image": picture(RED)},
                {"id": "blue", "image": picture(BLUE)},
                {"id": "note", "text": "a red note"},
            ]
        )
        yield here


@pytest.fixture(scope="module")
def real() -> Iterator[Collection]:
    """A red square at the top right of one picture, a blue one at the bottom left of another."""
    with Collection.open(":memory:", embedder=OnnxModel.load()) as here:
        for id, colour, (top, left) in (("red", RED, (20, 200)), ("blue", BLUE, (200, 20))):
            pixels = np.full((300, 300, 3), 235, dtype=np.uint8)
            pixels[top : top + 80, left : left + 80] = colour
            here.add([{"id": id, "image": pixels}])
        yield here


def by_id(hits: list[Hit]) -> dict[str, Hit]:
    return {hit.id: hit for hit in hits}


def hottest(grid_RC: Matrix) -> tuple[int, int]:
    row, column = np.unravel_index(grid_RC.argmax(), grid_RC.shape)
    return int(row), int(column)


def test_heat_is_what_the_cosine_loses(collection: Collection) -> None:
    hit = by_id(collection.search("red thing", minus="blue", explain=True))["red"]
    assert hit.explanation is not None and hit.explanation.heat is not None
    embed = collection.embedder.embed
    red, blue = embed([Item(id="1", text="red thing"), Item(id="2", text="blue")])
    whole_M = (red - blue) / np.linalg.norm(red - blue)
    expected_RC = np.arange(6).reshape(2, 3) * whole_M[0]
    np.testing.assert_allclose(hit.explanation.heat.grid_RC, expected_RC, atol=1e-5)
    said = [(heat.word, heat.part, heat.start, heat.stop) for heat in hit.explanation.words]
    assert said == [("red", 0, 0, 3), ("thing", 0, 4, 9), ("blue", 1, 0, 4)]
    (word_M,) = embed([Item(id="3", text="thing")])
    expected_RC = np.arange(6).reshape(2, 3) * word_M[0]
    np.testing.assert_allclose(hit.explanation.words[1].grid_RC, expected_RC, atol=1e-5)
    assert sum(hit.explanation.shares) == pytest.approx(hit.score, abs=1e-5)
    assert {"embed", "index", "fetch", "explain"} <= set(hit.explanation.stages_ms)


def test_the_hits_are_those_without_explanation(collection: Collection) -> None:
    plain = collection.search("red", minus="blue")
    assert collection.search("red", minus="blue", explain=True) == plain
    assert all(hit.explanation is None for hit in plain)


def test_only_those_asked_for_are_explained(collection: Collection) -> None:
    model = collection.embedder
    assert isinstance(model, Spots)
    hits = by_id(collection.search("red", explain=["blue", "nobody"]))
    assert hits["blue"].explanation is not None
    assert hits["red"].explanation is hits["note"].explanation is None
    assert model.asked == 1
    assert collection.search("red", explain=[])[0].explanation is None
    assert by_id(collection.search("red", explain="red"))["red"].explanation is not None


@pytest.mark.parametrize("wrong", [3, [3], None, 1.5])
def test_what_is_to_be_explained_is_said_by_id(collection: Collection, wrong: object) -> None:
    with pytest.raises(InvalidInput, match="got"):
        collection.search("red", explain=wrong)  # type: ignore[arg-type]


def test_without_heat_a_sentence_says_why(collection: Collection) -> None:
    note = by_id(collection.search("red", explain=True))["note"].explanation
    assert note is not None and note.heat is None and note.words == ()
    assert note.note == "The hit has no picture."
    with Collection.open(":memory:", embedder=HashingEncoder(dim=64)) as plain:
        plain.add([{"id": "red", "image": picture(RED)}])
        (hit,) = plain.search("red", explain=True)
        assert hit.explanation is not None and hit.explanation.heat is None
        assert "hashing:64" in (hit.explanation.note or "")
        assert plain.search("red", explain=["red"])[0].explanation is not None


def test_only_so_many_pictures_are_drawn(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "MOST_HEATS", 1)
    found = [hit.explanation for hit in collection.search("red", explain=True)]
    drawn = [one for one in found if one is not None and one.heat is not None]
    assert len(drawn) == 1
    assert sum("by its id" in (one.note or "") for one in found if one is not None) == 1


def test_a_query_without_words_has_heat_too(collection: Collection) -> None:
    for asked in ({"image": picture(RED)}, {"like": "blue"}, {"vector": np.ones(64)}):
        hit = by_id(collection.search(explain=True, **asked))["red"]  # type: ignore[arg-type]
        assert hit.explanation is not None and hit.explanation.heat is not None
        assert hit.explanation.words == ()


def test_what_is_explained_is_not_remembered(collection: Collection) -> None:
    AnswerCache(collection, cache=MemoryCache(2**20)).attach()
    first = collection.search("red")
    assert collection.search("red", explain=True)[0].explanation is not None
    assert collection.search("red") == first
    assert all(hit.explanation is None for hit in collection.search("red"))


def test_a_hit_that_is_deleted_meanwhile_is_searched_again(
    collection: Collection, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = collection.vectors

    def overtaken(ids: list[str]) -> Matrix:
        monkeypatch.setattr(collection, "vectors", vectors)
        collection.delete("red")
        raise NotFound("There is no item 'red' in this collection.")

    monkeypatch.setattr(collection, "vectors", overtaken)
    hits = collection.search("red", explain=True)
    assert "red" not in by_id(hits)
    assert all(hit.explanation is not None for hit in hits)


def test_the_default_models_heat_lies_on_the_thing(real: Collection) -> None:
    corners = {"red": ((0, 1, 2), (4, 5, 6)), "blue": ((4, 5, 6), (0, 1, 2))}
    # of "a square" the blue one's heat lies beside it since triptych-joint-v5
    for id, words in (("red", "a square"), ("red", "a red square"), ("blue", "a blue square")):
        rows, columns = corners[id]
        explanation = by_id(real.search(words, explain=True))[id].explanation
        assert explanation is not None and explanation.heat is not None
        row, column = hottest(explanation.heat.grid_RC)
        assert row in rows and column in columns


def test_the_png_is_opaque_where_it_is_hot() -> None:
    grid_RC = np.array([[-1.0, 0.0, 0.0], [0.0, 0.2, 0.4]], dtype=np.float32)
    data = overlay(grid_RC)
    alpha = np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))[..., 3]
    assert alpha.shape == (16, 24)
    assert hottest(alpha) >= (8, 16)
    assert alpha[:6, :6].max() == 0 < alpha[12, 12] < alpha[12, 20]  # smooth towards warm ones
    nothing = Image.open(io.BytesIO(overlay(np.zeros_like(grid_RC)))).convert("RGBA")
    assert not np.asarray(nothing)[..., 3].any()


def test_a_png_is_small() -> None:
    grid_RC = np.random.default_rng(0).random((7, 7)).astype(np.float32)
    assert len(overlay(grid_RC)) < 2000


def test_words_are_what_unicode_takes_for_words() -> None:
    words = words_of([Part(text="The dog's -- œuvre, well-made!"), Part(id="x"), Part(text="狗 2")])
    assert [word.text for word in words] == ["The", "dog's", "œuvre", "well-made", "狗", "2"]
    assert [word.part for word in words] == [0, 0, 0, 0, 2, 2]
    assert len(words_of(Query((Part(text="a " * 500),)).parts)) == 16
