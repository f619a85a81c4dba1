"""Filters: what they mean, how they are written, and what is refused."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.errors import InvalidInput
from triptych.filter_text import MAX_DEPTH
from triptych.filters import (
    MAX_NODES,
    MAX_VALUES,
    And,
    Compare,
    Exists,
    Filter,
    In,
    Not,
    Or,
    fields_of,
    matches,
    parse_filter,
    to_json,
)

ITEM = {
    "year": 2020,
    "score": 4.5,
    "lang": "de",
    "tags": ["x", "z", ["deep", 7]],
    "draft": False,
    "gone": None,
    "none": [],
    "mixed": [1, "1", True, None],
    "author": {"name": "Ada", "born": 1815, "friends": [{"name": "Bob"}, {"name": "Eve"}]},
    "author.name": "literal",
    "$price": 3,
    "__proto__": "p",
    "": "empty",
    "_modality": "not seen",
    "zero": -0.0,
    "big": 2**63,
    "vast": 10**300,
    "low": -(2**64),
}


def passes(given: Any, item: dict[str, Any] = ITEM) -> bool:
    tree = parse_filter(given)
    assert tree is not None
    return matches(tree, item, "text")


@pytest.mark.parametrize(
    "text",
    [
        "year = 2020",
        "year == 2020.0",
        "year != 2021",
        "year >= 2020 AND year <= 2020 and not year > 2020 and NOT year < 2020",
        "score > 4 and score < 5",
        'lang >= "d" and lang < "df" and lang != "DE"',
        'tags = "x" and tags = "deep" and tags = 7 and not tags = "y"',
        'tags in ["y", "z"] and tags not in ["y"]',
        "tags != 8",
        "draft = false and not draft = 0 and not draft = null",
        "gone = null and exists(gone) and not gone = false",
        "exists(none) and not none = null",
        "nothing != 1 and nothing not in [1, null] and not nothing = null and not exists(nothing)",
        "not nothing < 1 and not nothing >= 1",
        'mixed = 1 and mixed = "1" and mixed = true and mixed = null and not mixed = false',
        'not year = "2020" and not year > "2" and not lang > 1 and not draft < 1',
        'author.name = "Ada" and author.name = "literal"',
        'author.friends.name in ["Eve"] and author.born < 1900',
        "exists(author) and exists(author.friends) and author != 1",
        "'$price' = 3 and exists(\"$price\")",
        '__proto__ = "p" and "" = "empty"',
        '_modality = "text" and _modality in ["image", "text"] and not _modality = "both"',
        "zero = 0 and zero = -0.0 and not zero < 0",
        "big = 9223372036854775808 and big > 9223372036854775807 and not big > 9223372036854775808",
        "vast > 1e299 and low < -18446744073709551615 and low = -18446744073709551616",
        "year = 1 or lang = 'de' and year = 2020 or year = 2",
        "not (year = 1 or year = 2020) or lang in ('de',)".replace(",)", ")"),
        "tags not in []",
        "not tags in []",
        "lang = \"d\\u0065\" and lang = '\\u0064e'",
    ],
)
def test_what_matches(text: str) -> None:
    assert passes(text)


def test_integers_compare_exactly() -> None:
    item = {"n": 2**53 + 1}
    assert not passes({"n": float(2**53)}, item)
    assert passes({"n": {"$gt": float(2**53)}}, item)
    assert passes({"n": 2**53 + 1}, item)
    assert not passes({"n": {"$lt": float(2**53 + 2), "$gt": 2**53 + 1}}, item)


def test_text_compares_by_code_point() -> None:
    assert passes({"t": {"$gt": "\uffff"}}, {"t": "\U0001f600"})  # UTF-16 would disagree
    assert passes({"t": {"$gt": "\ud7ff"}}, {"t": "\ud800"})
    assert not passes({"t": "é"}, {"t": "e\u0301"})


def test_a_field_is_seen_as_json_gives_it_back() -> None:
    given = {"t": (1, 2), "m": {1: "a", False: "b", None: "c", 0.5: "d"}}
    assert sorted(fields_of(given, "text"), key=str) == sorted(
        fields_of(json.loads(json.dumps(given)), "text"), key=str
    )


def test_too_deep_metadata_are_there_but_not_seen() -> None:
    deep: Any = "treasure"
    for _ in range(1_000):
        deep = {"a": deep}
    found = fields_of(deep, "text")
    assert len(found) == 1 + MAX_DEPTH
    assert found[-1] == (".".join("a" * MAX_DEPTH), ())


def test_too_deep_lists_are_there_but_not_seen() -> None:
    deep: Any = ["treasure"]
    for _ in range(MAX_DEPTH - 2):
        deep = [deep]
    assert fields_of({"a": deep}, "text")[1:] == [("a", "treasure")]
    assert fields_of({"a": [deep]}, "text")[1:] == [("a", ())]


def test_numbers_have_one_form() -> None:
    assert to_json(Compare("a", "=", 2.0)) == '{"a":{"$eq":2}}'
    assert to_json(Compare("a", "=", -0.0)) == '{"a":{"$eq":0}}'
    assert to_json(Compare("a", "=", 1e300)) == '{"a":{"$eq":1e+300}}'


@pytest.mark.parametrize(
    ("written", "tree"),
    [
        ({"lang": "de"}, Compare("lang", "=", "de")),
        ({"a": 1, "b": None}, And((Compare("a", "=", 1), Compare("b", "=", None)))),
        ({"a": {"$gt": 1, "$lte": 5}}, And((Compare("a", ">", 1), Compare("a", "<=", 5)))),
        ({"a": {"$ne": 1}}, Not(Compare("a", "=", 1))),
        ({"a": {"$nin": [2, 1, 2.0]}}, Not(In("a", (1, 2)))),
        ({"a": {"$exists": False}}, Not(Exists("a"))),
        ({"a": {"$not": {"$lt": 1, "$ne": 2}}},
         Not(And((Compare("a", "<", 1), Not(Compare("a", "=", 2)))))),
        ({"$or": [{"a": 1}, {"$and": [{"b": 2}]}]},
         Or((Compare("a", "=", 1), And((Compare("b", "=", 2),))))),
        ({"$not": {"a": 1}}, Not(Compare("a", "=", 1))),
        ({"$$price": {"$gte": 1}}, Compare("$price", ">=", 1)),
        ('{"a": {"$in": ["b"]}}', In("a", ("b",))),
        ("a = 1 and b = 2 or not c = 3",
         Or((And((Compare("a", "=", 1), Compare("b", "=", 2))), Not(Compare("c", "=", 3))))),
        ("((a = 1))", Compare("a", "=", 1)),
        ("exists = 1 and exists(exists)", And((Compare("exists", "=", 1), Exists("exists")))),
    ],
)  # fmt: skip
def test_forms_and_trees(written: Any, tree: Filter) -> None:
    assert parse_filter(written) == tree
    assert parse_filter(to_json(tree)) == tree
    assert parse_filter(json.loads(to_json(tree))) == tree
    assert parse_filter(tree) is tree


@pytest.mark.parametrize("nothing", [None, {}, "{}"])
def test_nothing_filters_nothing(nothing: Any) -> None:
    assert parse_filter(nothing) is None


def test_trees_differ_where_their_meaning_does() -> None:
    one, true, text = (Compare("a", "=", value) for value in (1, True, "1"))
    assert len({one, true, text, Compare("a", "=", 1.0), Compare("b", "=", 1)}) == 4
    assert In("a", (1, True, 1.0)) == In("a", (True, 1)) != In("a", (1,))


LITERALS = [
    "x' OR '1'='1", "'; DROP TABLE facts; --", '" or 1==1', "$where", "{'$gt': ''}", "%", "_",
    "*", "a\x00b", "“quoted”", "../../etc", "\\", "__proto__", "\ud800", "NULL", "\n",
]  # fmt: skip


@pytest.mark.parametrize("odd", LITERALS)
def test_odd_values_and_names_are_literal(odd: str) -> None:
    for form in (
        {"f": odd},
        f"f = {json.dumps(odd)}",
        {("$" + odd if odd.startswith("$") else odd): 1},
        f"{json.dumps(odd)} = 1",
    ):
        assert passes(form, {"f": odd, odd: 1})
        assert not passes(form, {"f": "f", "other": 1})


BAD: list[tuple[Any, str]] = [
    ("", r"character 1, .*got the end, expected the name of a field"),
    ("year >", r"character 7, .*got the end, expected a number"),
    ("year > true", r"character 8, .*got 'true', expected a number or a quoted text after >"),
    ("a = 1 and lang = de", r"character 18, .*got 'de'.*Text goes in quotes: \"de\"\."),
    ('a = "x', r"character 5, .*never closed"),
    ("a = “x”", r"character 5, .*straight quotes"),
    ("5 < a", r"character 1, .*got '5', expected the name"),
    ("a = 1 b", r'character 7, .*got \'b\', expected "and", "or" or the end'),
    ("a like 'x'", r"character 3, .*got 'like', expected one of = !="),
    ("a not like 'x'", r'character 7, .*got \'like\', expected "in"'),
    ("a in 'x'", r"character 6, .*expected a list such as"),
    ("a in [1 2]", r'character 9, .*expected "," or "]"'),
    ("(a = 1", r'character 7, .*expected and, or or "\)"'),
    ("exists(a", r'character 9, .*expected "\)"'),
    ("a = 2020-01-01", r"character 5, .*dates go in quotes"),
    ("a = 007", r"character 5, .*not a number"),
    ("a ~ 1", r"character 3, .*'~' has no meaning"),
    ("a = '\\q'", r"character 6, .*\\q is not an escape"),
    ("a = 1e999", r"'a' got inf, expected .*finite"),
    ("a = " + "9" * 5_000, r"character 5, .*too long"),
    ("(" * 40 + "a=1", r"character 33, .*more than 32 deep"),
    ("not " * 100_000 + "a=1", r"more than 32 deep"),
    ("_modality = 'txt'", r"_modality got 'txt', expected one of text, image"),
    ('{"a":', r"no JSON at character 6: Expecting value"),
    ('{"a": 1} x', r"no JSON at character 10: Extra data"),
    ('{"a": NaN}', r"NaN"),
    ('{"a": 1e999}', r"got inf"),
    ('{"a": 1, "a": 2}', r"names 'a' twice"),
    ('{"a": ' + "9" * 5_000 + "}", r"4,000 digits"),
    ('{"a":' * 100_000, r"more than 32 deep"),
    ({"$nor": []}, r"operator '\$nor', known are \$and \$or \$not; in a field \$eq"),
    ({"$where": "1"}, r"operator '\$where'"),
    ({"a": {"$regex": "(a+)+$"}}, r"operator '\$regex' on 'a', known are \$eq \$ne"),
    ({"a": {"b": 1}}, r'A field inside is "a\.b"'),
    ({"a": {1: 2}}, r"operator 1 on 'a'"),
    ({"a": [1]}, r"takes \$in"),
    ({"a": {}}, r"expected an operator"),
    ({"a": {"$gt": None}}, r"compares by > with None, expected a number or a text"),
    ({"a": {"$lte": False}}, r"compares by <= with False"),
    ({"a": {"$in": "xyz"}}, r"\$in on 'a' got 'xyz', expected a list"),
    ({"a": {"$in": [[1]]}}, r"'a' got \[1\]"),
    ({"a": {"$exists": 1}}, r"\$exists on 'a' got 1, expected a boolean"),
    ({"a": {"$not": {}}}, r"expected an operator"),
    ({"a": math.nan}, r"got nan"),
    ({"a": {"$gt": -math.inf}}, r"got -inf"),
    ({"a": 10**5_000}, r"a number of 16,610 bits"),
    ({"a": b"x"}, r"got b'x'"),
    ({"_modality": 1}, r"_modality got 1"),
    ({"$and": []}, r"\$and got \[\], expected a list of filters"),
    ({"$or": {"a": 1}}, r"\$or got"),
    ({"$or": [{"a": 1}, 5]}, r"Got 5 for a filter"),
    ({"$not": {}}, r"Got {} inside a filter"),
    ({1: 2}, r"Got 1 for the name of a field"),
    (5, r"Got 5 for a filter, expected an object or a string"),
    (["a"], r"Got \['a'\] for a filter"),
    (And(()), r"And\(filters=\(\)\)"),
    (Not("a"), r"Got 'a' in a filter"),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("written", "message"), BAD, ids=[message for _, message in BAD])
def test_what_is_refused_and_how(written: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        parse_filter(written)
    assert len(str(caught.value)) < 400


def test_a_field_that_is_tested_by_not_needs_operators() -> None:
    assert parse_filter({"a": {"$not": 5}}) == Not(Compare("a", "=", 5))


def test_relations_are_a_closed_set() -> None:
    with pytest.raises(InvalidInput, match="relation '; --'"):
        Compare("a", "; --", 1)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="name of a field"):
        Exists(5)  # type: ignore[arg-type]


def nested(levels: int) -> dict[str, Any]:
    found: dict[str, Any] = {"a": 1}
    for _ in range(levels - 1):
        found = {"$not": found}
    return found


def test_the_caps_are_where_they_are_said_to_be() -> None:
    assert parse_filter(nested(MAX_DEPTH)) is not None
    many = [{"a": n} for n in range(MAX_NODES)]
    assert parse_filter({"$or": many[1:]}) is not None
    assert parse_filter({"a": {"$in": list(range(MAX_VALUES))}}) is not None
    for too_much in (nested(MAX_DEPTH + 1), {"$or": many}, nested(100_000)):
        with pytest.raises(InvalidInput, match=r"at most 32 levels and 10,000 nodes"):
            parse_filter(too_much)
    with pytest.raises(InvalidInput, match=r"lists 100,001 values, expected at most 100,000"):
        parse_filter({"a": {"$in": list(range(MAX_VALUES + 1))}})
    with pytest.raises(InvalidInput, match="too big"):
        parse_filter(" or ".join("a = 1" for _ in range(MAX_NODES)))
    both: Filter = Compare("a", "=", 1)
    for _ in range(30):  # 2 ** 30 nodes, in little memory
        both = And((both, both))
    with pytest.raises(InvalidInput, match="too big"):
        parse_filter(both)


texts = st.text(max_size=5) | st.sampled_from(LITERALS)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
relations = st.sampled_from(["<", "<=", ">", ">="])
leaves: st.SearchStrategy[Filter] = st.one_of(
    st.builds(Compare, texts, st.just("="), scalars),
    st.builds(Compare, texts, relations, numbers | texts),
    st.builds(In, texts, st.lists(scalars, max_size=3).map(tuple)),
    st.builds(Exists, texts),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=1, max_size=3).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=8,
)


def written(tree: Filter) -> str:
    """Return a tree in the string form."""
    match tree:
        case And(children) | Or(children):
            word = " and " if isinstance(tree, And) else " OR "
            return word.join(f"({written(child)})" for child in children)
        case Not(child):
            return f"not({written(child)})"
        case Exists(field):
            return f"exists({json.dumps(field)})"
        case In(field, values):
            return f"{json.dumps(field)} in {json.dumps(values)}"
        case Compare(field, relation, value):
            return f"{json.dumps(field)}{relation}{json.dumps(value, ensure_ascii=False)}"


def without_single(tree: Filter) -> Filter:
    """Return what the string form can say: `and` of one is that one."""
    match tree:
        case And(children) | Or(children):
            inner = tuple(map(without_single, children))
            return inner[0] if len(inner) == 1 else type(tree)(inner)
        case Not(child):
            return Not(without_single(child))
        case leaf:
            return leaf


@given(trees)
def test_json_and_string_forms_come_back(tree: Filter) -> None:
    assert parse_filter(to_json(tree)) == tree
    assert parse_filter(written(tree)) == without_single(tree)


@given(st.text(alphabet="abex()[]\"'\\ =<>!,.-019{}:$\u201c", max_size=30) | st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        tree = parse_filter(text)
    except InvalidInput:
        return
    if tree is not None:
        assert parse_filter(to_json(tree)) == tree
        matches(tree, ITEM, "image")


values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
)


@given(st.dictionaries(texts, values, max_size=4) | values)
def test_any_json_is_read_or_refused(given: Any) -> None:
    try:
        tree = parse_filter(given)
    except InvalidInput:
        return
    assert tree is None or parse_filter(to_json(tree)) == tree


def test_both_columns_of_the_document_are_the_same_filter() -> None:
    text = Path(__file__).parent.parent.joinpath("docs/filters.md").read_text("utf-8")
    rows = re.findall(r"^\| `(.*)` \| `(.*)` \|$", text, flags=re.MULTILINE)
    assert len(rows) >= 13
    for short, as_json in rows:
        assert parse_filter(short) == parse_filter(as_json), short
