"""The query language of the command line, line by line, and the sum behind it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.errors import InvalidInput
from triptych.retrieval.query import build_query, parse_query, query_vector
from triptych.types import Item, Part, Query

HOME = Path.home()


def spelled(query: Query) -> list[tuple[float, str, object]]:
    kinds = ("text", "image", "id", "vector")
    return [
        (part.weight, kind, value)
        for part in query.parts
        for kind in kinds
        if (value := getattr(part, kind)) is not None
    ]


def text(value: str, weight: float = 1.0) -> tuple[float, str, str]:
    return (weight, "text", value)


def image(value: str, weight: float = 1.0) -> tuple[float, str, object]:
    return (weight, "image", Path(value))


def stored(value: str, weight: float = 1.0) -> tuple[float, str, str]:
    return (weight, "id", value)


TABLE = [
    # words
    ("dog", [text("dog")]),
    (["a", "dog", "on", "a", "beach"], [text("a dog on a beach")]),
    (["a dog on a beach"], [text("a dog on a beach")]),
    (["red shoe", "+", "heels"], [text("red shoe"), text("heels")]),
    (["red shoe", "-", "heels"], [text("red shoe"), text("heels", -1)]),
    (["-", "high", "heels"], [text("high heels", -1)]),
    (["+", "dog"], [text("dog")]),
    (["犬", "と", "海"], [text("犬 と 海")]),
    # + and - operate only as whole arguments
    (["well-known"], [text("well-known")]),
    (["c++"], [text("c++")]),
    (["a+b", "-", "c-d"], [text("a+b"), text("c-d", -1)]),
    (["+1"], [text("+1")]),
    # weights
    (["2:snow"], [text("snow", 2)]),
    (["0.5:snow"], [text("snow", 0.5)]),
    (["2:deep", "snow"], [text("deep snow", 2)]),
    (["-", "2:snow"], [text("snow", -2)]),
    (["dog", "+", "2:snow"], [text("dog"), text("snow", 2)]),
    (["dog", "2:snow"], [text("dog"), text("snow", 2)]),
    # not weights
    (["16:9"], [text("16:9")]),
    (["10:30", "train"], [text("10:30 train")]),
    (["2:"], [text("2:")]),
    (["a:b"], [text("a:b")]),
    ([":x"], [text(":x")]),
    (["1.2.3:x"], [text("1.2.3:x")]),
    # pictures
    (["./a.jpg"], [image("a.jpg")]),
    (["../a.jpg"], [image("../a.jpg")]),
    (["/tmp/a.jpg"], [image("/tmp/a.jpg")]),
    (["~/a.jpg"], [image(str(HOME / "a.jpg"))]),
    (["image:a.jpg"], [image("a.jpg")]),
    (["image:~/a.jpg"], [image(str(HOME / "a.jpg"))]),
    (["a.jpg"], [text("a.jpg")]),
    (["2:./a.jpg"], [image("a.jpg", 2)]),
    (["red shoe", "+", "./photo.jpg", "-", "heels"], [text("red shoe"), image("photo.jpg"), text("heels", -1)]),
    (["./racing car.jpg", "-", "2:sports car", "+", "2:snow"], [image("racing car.jpg"), text("sports car", -2), text("snow", 2)]),
    (["image:https://example.org/a.png"], [(1.0, "image", "https://example.org/a.png")]),
    (["image:data:image/png;base64,AA=="], [(1.0, "image", "data:image/png;base64,AA==")]),
    # stored ids
    (["id:/photos/1.jpg"], [stored("/photos/1.jpg")]),
    (["id:a:b"], [stored("a:b")]),
    (["3:id:7"], [stored("7", 3)]),
    (["id:7", "-", "0.5:id:8"], [stored("7"), stored("8", -0.5)]),
    # text: escapes all
    (["text:+"], [text("+")]),
    (["text:-"], [text("-")]),
    (["text:./a.jpg"], [text("./a.jpg")]),
    (["text:id:7"], [text("id:7")]),
    (["text:2:snow"], [text("2:snow")]),
    (["2:text:3:x"], [text("3:x", 2)]),
    (["text:--limit"], [text("--limit")]),
    (["text:a", "b"], [text("a"), text("b")]),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "expected"), TABLE, ids=[str(row[0]) for row in TABLE])
def test_what_arguments_spell(arguments: str | list[str], expected: list[object]) -> None:
    tokens = [arguments] if isinstance(arguments, str) else arguments
    assert spelled(parse_query(tokens)) == expected


@pytest.mark.parametrize(
    ("tokens", "sentence"),
    [
        ([], "query is empty"),
        (["dog", "+"], "Nothing follows the operator '\\+'"),
        (["dog", "-"], "Nothing follows the operator '-'"),
        (["+", "-", "dog"], "Nothing follows"),
        (["0:snow"], "weight of 'snow' is 0"),
    ],
)
def test_what_cannot_be_spelled(tokens: list[str], sentence: str) -> None:
    with pytest.raises(InvalidInput, match=sentence):
        parse_query(tokens)


def test_python_arguments_become_parts() -> None:
    query = build_query("red shoe", image="a.jpg", minus=["heels", Part(id="7")], like="8")
    assert spelled(query) == [
        text("red shoe"),
        (1.0, "image", "a.jpg"),
        stored("8"),
        text("heels", -1),
        stored("7", -1),
    ]


def test_a_python_string_is_never_syntax() -> None:
    assert spelled(build_query("- 2:x")) == [text("- 2:x")]


def test_a_list_that_is_no_query_says_so() -> None:
    with pytest.raises(InvalidInput, match="A query is a string"):
        build_query(["words", "in a list"])  # type: ignore[list-item]


AXES = {"x": [1.0, 0.0, 0.0], "y": [0.0, 1.0, 0.0], "z": [0.0, 0.0, 1.0]}


def embed(items: list[Item]) -> np.ndarray:
    return np.array([AXES[item.text or ""] for item in items], dtype=np.float32)


def stored_rows(ids: list[str]) -> np.ndarray:
    return np.array([AXES[one] for one in ids], dtype=np.float32)


def vector_of(query: Query) -> np.ndarray:
    return query_vector(query, embed=embed, stored=stored_rows)


def test_the_sum_is_weighted_and_normalised() -> None:
    query = build_query([Part(text="x", weight=3), Part(id="y", weight=-4)])
    assert vector_of(query) == pytest.approx([0.6, -0.8, 0.0])


def test_a_callers_vector_is_made_unit_first() -> None:
    query = build_query("x", vector=[0, 100, 0])
    assert vector_of(query) == pytest.approx([0.5**0.5, 0.5**0.5, 0])


def test_parts_that_cancel_are_an_error() -> None:
    with pytest.raises(InvalidInput, match="cancel"):
        vector_of(build_query("x", minus="x"))


def test_blank_words_are_an_empty_query() -> None:
    with pytest.raises(InvalidInput, match="empty"):
        vector_of(build_query("  "))


@pytest.mark.parametrize("vector", [[0, 0, 0], [float("nan"), 0, 1], [float("inf"), 0, 1]])
def test_a_vector_without_direction_is_refused(vector: list[float]) -> None:
    with pytest.raises(InvalidInput):
        vector_of(build_query(vector=vector))


@given(st.lists(st.tuples(st.sampled_from("xyz"), st.floats(0.1, 10)), min_size=1, max_size=6))
def test_order_and_scale_do_not_matter(terms: list[tuple[str, float]]) -> None:
    parts = [Part(text=axis, weight=weight) for axis, weight in terms]
    doubled = [Part(text=axis, weight=2 * weight) for axis, weight in reversed(terms)]
    assert vector_of(build_query(parts)) == pytest.approx(vector_of(build_query(doubled)), abs=1e-5)
