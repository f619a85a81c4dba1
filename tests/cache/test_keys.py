"""Keys: unambiguous, of hashes alone, and nothing shared that differs."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from triptych.cache.keys import answer_prefix, digest, embedding_prefix, encode, scope

LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text("ab1:;", max_size=4)
    | st.binary(max_size=6)
)
VALUES = st.recursive(
    LEAVES,
    lambda one: st.lists(one, max_size=3) | st.dictionaries(st.text(max_size=3), one, max_size=3),
    max_leaves=8,
)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of equal types all through."""
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, float):
        return one == other and math.copysign(1, one) == math.copysign(1, other)
    return bool(one == other)


@settings(max_examples=60)
@given(VALUES, VALUES)
def test_two_values_have_one_encoding_only_if_they_are_the_same(one: Any, other: Any) -> None:
    assert (encode(one) == encode(other)) == same(one, other)
    assert encode([one, other]) == encode((one, other))


@given(st.lists(st.floats(), max_size=40))
def test_a_vector_is_encoded_as_its_numbers_one_by_one(numbers: list[float]) -> None:
    one_by_one = b"".join(encode(number) for number in numbers)
    assert encode(numbers) == b"l%d:%b" % (len(numbers), one_by_one)
    assert encode([*numbers, 1]) == b"l%d:%b" % (len(numbers) + 1, one_by_one + encode(1))


CONFUSABLE = [
    None, True, False, 0, 1, 1.0, 0.0, -0.0, "", "1", b"1", "n", "t", "i1;", [], [[]], [[], []],
    ["ab"], ["a", "b"], ["a", ["b"]], [["a"], "b"], {}, {"a": 1}, {"a": "1"}, [["a", 1]], "s1:a",
    ["", ""], [""], "\ud800", "?", "\0", np.array([1.0]), np.array([1.0], "f4"), np.array([[1.0]]),
    np.array([1, 0]), np.array([[1], [0]]),
]  # fmt: skip


def test_what_is_easily_confused_is_told_apart() -> None:
    for one, other in itertools.combinations(CONFUSABLE, 2):
        assert encode(one) != encode(other), (one, other)
        assert digest("search", one) != digest("search", other)


def test_what_comes_in_another_form_is_the_same() -> None:
    assert encode(np.str_("x")) == encode("x")
    assert encode(memoryview(b"x")) == encode(bytearray(b"x")) == encode(b"x")
    assert encode({"b": 1, "a": 2}) == encode({"a": 2, "b": 1})
    fortran = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    assert encode(fortran) == encode(np.arange(6.0).reshape(2, 3))
    for no_value in (object(), {1, 2}, np.array([object()]), 1j, [object()]):
        with pytest.raises(TypeError):
            encode(no_value)


def test_keys_are_hashes_of_one_length() -> None:
    odd = ["a:b", "", "*", "\r\n", "ü" * 1000]
    for one, other in itertools.pairwise(odd):
        for prefix in (embedding_prefix(one), answer_prefix(one, other)):
            assert re.fullmatch(rb"tr1:[ae]:[0-9a-f]{20}:", prefix)
    assert len({embedding_prefix(tenant) for tenant in odd}) == len(odd)
    # where one name ends and the other begins counts
    assert answer_prefix("a", "bc") != answer_prefix("ab", "c")
    assert scope("a") != scope("a", "")


def test_the_layout_is_what_other_releases_read() -> None:
    """Changing a literal here means changing the version."""
    assert embedding_prefix("default") == b"tr1:e:1105478064838e1d82b4:"
    assert digest("x", 1, None, 0.5) == b"afdbb6c77aab382acbfdd0c7e666e5a612afe328"
