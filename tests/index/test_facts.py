"""Facts: what SQLite answers is what `matches` says, after any inserts and drops."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any
from unittest import mock

import apsw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triptych.filters import (
    MODALITY,
    And,
    Compare,
    Exists,
    Filter,
    In,
    Not,
    Or,
    Scalar,
    fields_of,
    key_of,
    matches,
    parse_filter,
)
from triptych.index.sqlite import facts, rowsets
from triptych.index.sqlite.facts import Given
from triptych.types import Modality

ODD = [
    "x' OR '1'='1",
    "; DROP TABLE facts; --",
    "$where",
    "__proto__",
    "a.b",
    "\ud83d",
    "\udc0d",
    "",
]
names = st.sampled_from(["a", "b", "a.b", "b.a", "a.a", MODALITY, *ODD])
numbers = st.sampled_from([
    0, 1, 1.0, -0.0, 2, 2.5, -3, 2**53 + 1, float(2**53), 2**63 - 1, 2**63, 2.0**63, -(2**63),
    -(2**63) - 1, 2**64 + 1, -(2.0**70), 10**30, 1e300, -1e300, 5e-324,
])  # fmt: skip
texts = st.sampled_from(
    [
        "1",
        "true",
        "null",
        "é",
        "e\u0301",
        "\uffff",
        "\U0001f600",
        "“q”",
        "\ud83d\udc0d",
        "z" * 10_000,
        *ODD,
    ]
)
scalars = st.none() | st.booleans() | numbers | texts
documents = st.dictionaries(
    names,
    st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=2),
        max_leaves=4,
    ),
    max_size=4,
)
modalities: st.SearchStrategy[Modality] = st.sampled_from(["text", "image", "both", "vector"])
items = st.lists(st.tuples(modalities, documents), max_size=8)

fields = names.filter(lambda name: name != MODALITY)
leaves: st.SearchStrategy[Filter] = st.one_of(
    st.builds(Compare, fields, st.just("="), scalars),
    st.builds(Compare, fields, st.sampled_from(["<", "<=", ">", ">="]), numbers | texts),
    st.builds(Compare, st.just(MODALITY), st.just("="), modalities),
    st.builds(In, fields, st.lists(scalars, max_size=5).map(tuple)),
    st.builds(Exists, names),
)
filters = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.builds(And, st.lists(inner, min_size=1, max_size=4).map(tuple)),
        st.builds(Or, st.lists(inner, min_size=1, max_size=4).map(tuple)),
        st.builds(Not, inner),
    ),
    max_leaves=6,
)


def database() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    connection.execute(facts.SCHEMA)
    return connection


def numbered(given: list[tuple[Modality, dict[str, Any]]]) -> list[Given]:
    return [(3 * at + 1, modality, metadata) for at, (modality, metadata) in enumerate(given)]


def as_stored(metadata: Any) -> Any:
    return json.loads(json.dumps(metadata))


def oracle(filter: Filter, stored: list[Given]) -> list[int]:
    return [row for row, kind, given in stored if matches(filter, as_stored(given), kind)]


def filled(*documents: dict[str, Any]) -> apsw.Connection:
    connection = database()
    facts.insert(connection, numbered([("text", document) for document in documents]))
    return connection


@pytest.fixture(params=[16, 0], ids=["reads", "probes"], autouse=True)
def _ways(request: pytest.FixtureRequest) -> Iterator[None]:
    pile = 3 if request.param else facts._PILE
    with mock.patch.object(facts, "_PROBE", request.param), mock.patch.object(facts, "_PILE", pile):
        yield


@pytest.fixture(params=[(0, 0), (64, 256), (64, 6)], ids=["filed", "fresh", "both"], autouse=True)
def _places(request: pytest.FixtureRequest) -> Iterator[None]:
    few, most = request.param
    with mock.patch.object(facts, "_FEW", few), mock.patch.object(facts, "_MOST", most):
        yield


@given(items, st.lists(filters, min_size=1, max_size=4))
def test_sql_agrees_with_the_definition(
    given: list[tuple[Modality, dict[str, Any]]], asked: list[Filter]
) -> None:
    stored = numbered(given)
    connection = database()
    for item in stored:
        facts.insert(connection, [item])
    rows = np.array([row for row, _, _ in stored], dtype=np.int64)
    for filter in asked:
        wanted = oracle(filter, stored)
        found = facts.rows_matching(connection, filter)
        assert found.dtype == np.int64
        assert found.tolist() == wanted
        assert facts.rows_matching(connection, filter, everything=rows).tolist() == wanted
        assert facts.count(connection, filter) == len(wanted)


@given(items, st.sets(st.integers(0, 7)), st.data())
def test_what_is_dropped_leaves_nothing(
    given: list[tuple[Modality, dict[str, Any]]], gone: set[int], data: st.DataObject
) -> None:
    stored = numbered(given)
    connection = database()
    for item in stored:
        facts.insert(connection, [item])
    # the store drops by what it reads back
    dropped = [(row, kind, as_stored(m)) for row, kind, m in stored if row // 3 in gone]
    left = [item for item in stored if item[0] // 3 not in gone]
    facts.drop(connection, dropped)
    assert facts.check(connection, left) == ([], 0)
    used = (
        "SELECT count(*) FROM fields "
        "WHERE field NOT IN (SELECT field FROM facts UNION ALL SELECT field FROM fresh)"
    )
    assert connection.execute(used).get == 0
    filter = data.draw(filters)
    assert facts.rows_matching(connection, filter).tolist() == oracle(filter, left)


@given(items, names, st.sets(st.integers(0, 7)) | st.none(), st.integers(1, 6))
def test_facets_count_items(
    given: list[tuple[Modality, dict[str, Any]]],
    field: str,
    chosen: set[int] | None,
    limit: int,
) -> None:
    stored = numbered(given)
    connection = database()
    for item in stored:
        facts.insert(connection, [item])
    rows = None if chosen is None else np.array(sorted(3 * at + 1 for at in chosen), dtype=np.int64)
    counts: Counter[Any] = Counter()
    for row, modality, metadata in stored:
        if rows is None or row in rows:
            found = {
                key_of(leaf)
                for name, leaf in fields_of(as_stored(metadata), modality)
                if name == field and leaf != ()
            }
            counts.update(found)
    order = ["null", "bool", "number", "text"]

    def place(pair: tuple[Any, int]) -> Any:
        key, times = pair
        huge = key.kind == "number" and not -(2**63) <= key.value < 2**63
        return (-times, order.index(key.kind), huge, key.value)

    wanted = [(key.value, times) for key, times in sorted(counts.items(), key=place)[:limit]]
    got = facts.facets(connection, field, rows, limit)
    assert [(key_of(value), times) for value, times in got] == [
        (key_of(value), times) for value, times in wanted
    ]


def test_facets_keep_their_types() -> None:
    connection = filled(
        {"v": 1}, {"v": 1.0}, {"v": True}, {"v": "1"}, {"v": None}, {"v": 2.5}, {"v": [2.5, 2.5, "1"]},
        {"v": 2**63}, {"v": -(2**70)}, {"v": {}}, {"v": []}, {"v": "\ud800é"}, {"w": 3},
    )  # fmt: skip
    found = facts.facets(connection, "v", None, 20)
    assert found == [
        (1, 2), (2.5, 2), ("1", 2), (None, 1), (True, 1), (-(2**70), 1), (2**63, 1), ("\ud800é", 1)
    ]  # fmt: skip
    assert [type(value) for value, _ in found[:5]] == [int, float, str, type(None), bool]
    assert facts.facets(connection, MODALITY, None, 5) == [("text", 13)]
    assert facts.facets(connection, "nothing", None, 5) == []
    assert facts.facets(connection, "v", np.empty(0, dtype=np.int64), 5) == []


TRICKY: list[dict[Any, Any]] = [
    {"v": 1}, {"v": True}, {"v": "1"}, {"v": 1.0}, {"v": -0.0}, {"v": 0}, {"v": False}, {"v": None}, {"v": ""},
    {"v": []}, {"v": [[]]}, {"v": {}}, {"v": [[[2, ["3"]]]]}, {}, {"v": [None, 2**63]}, {"v": 2**63 - 1},
    {"v": 2.0**63}, {"v": -(2**63)}, {"v": -(2**63) - 1}, {"v": "“1”"}, {"v": "x" * 10_000},
    {"v": "x" * 10_000 + "y"}, {"v": 2**53 + 1}, {"v": 2.0**53}, {"v": "a\x00b"}, {"v": "a"}, {"v": "\ud800"},
    {"v": "\ud83d\udc0d"}, {"v": {"v": [{"v": 1}, {"v": 2}]}}, {"v.v": 9}, {MODALITY: "image"}, {"v": (1, 2)},
    {1: "one"}, {"v": {2: "two"}},
]  # fmt: skip
TESTS: list[Scalar] = [
    1, True, "1", 0, False, None, "", 2, "3", 2**63, 2**63 - 1, -(2**63), -(2**63) - 1, "“1”", "x" * 10_000,
    2**53, 2**53 + 1, 2**53 + 2, "a\x00b", "a", "\ud800", "\ud83d\udc0d", "\U0001f40d", 1e300, -1e300, 2**64, 1.5,
]  # fmt: skip


@pytest.mark.parametrize("value", TESTS, ids=lambda value: ascii(value)[:20])
def test_tricky_values(value: Scalar) -> None:
    connection = filled(*TRICKY)
    stored = numbered([("text", document) for document in TRICKY])
    signs = ["$eq", "$ne", "$in", "$nin"]
    if value is not None and not isinstance(value, bool):
        signs += ["$lt", "$lte", "$gt", "$gte"]
    for field in ("v", "v.v", "v.v.v", "1", "v.2", "w"):
        for sign in signs:
            operand = [value, "two", None] if sign in {"$in", "$nin"} else value
            for form in ({field: {sign: operand}}, {field: {"$not": {sign: operand}}}):
                filter = parse_filter(form)
                assert filter is not None
                found = facts.rows_matching(connection, filter).tolist()
                assert found == oracle(filter, stored), form


@pytest.mark.parametrize("odd", ODD)
def test_nothing_is_injected(odd: str) -> None:
    connection = filled({"f": odd}, {odd: 1}, {"f": "other"}, {"g": odd})
    for form, rows in (({"f": odd}, [1]), ({"$" * odd.startswith("$") + odd: 1}, [4])):
        filter = parse_filter(form)
        assert filter is not None
        assert facts.rows_matching(connection, filter).tolist() == rows
    assert facts.facets(connection, odd, None, 5) == [(1, 1)]
    assert facts.facets(connection, "g", None, 5) == [(odd, 1)]


def test_many_values_and_many_nodes() -> None:
    connection = filled(*({"n": n, "s": str(n), "x": n + 0.5} for n in range(2_000)))
    wide: list[Any] = [
        *range(0, 60_000, 2),
        *map(str, range(20_000)),
        *(n + 0.5 for n in range(9_999)),
    ]
    filter = parse_filter({"n": {"$in": wide}, "s": {"$nin": wide[30_001:]}, "x": {"$in": wide}})
    assert filter is not None
    assert facts.rows_matching(connection, filter).tolist() == [1]
    branches = [{"n": {"$gte": n, "$lt": n + 1}} for n in range(0, 2_000, 2)]
    some = parse_filter({"$or": branches})
    assert some is not None
    assert len(facts.rows_matching(connection, some)) == 1_000


def test_a_selective_test_does_not_read_the_broad_one() -> None:
    connection = filled(*({"n": n, "all": "same"} for n in range(30_000)))
    filter = parse_filter('all = "same" and n in [5, 6, 7] and not all = "other"')
    assert filter is not None
    with mock.patch.object(facts, "_fetch", side_effect=facts._fetch) as fetched:
        assert facts.rows_matching(connection, filter).tolist() == [16, 19, 22]
    seen = [len(call.args[2]) if call.args[2] is not None else -1 for call in fetched.mock_calls]
    assert seen[0] == -1
    assert 3 in seen


def test_check_finds_what_is_lost_and_what_is_left() -> None:
    stored = numbered([("text", {"a": n, "tags": ["x", "x", n]}) for n in range(5)])
    connection = database()
    facts.insert(connection, stored)
    assert facts.check(connection, stored) == ([], 0)
    assert facts.check(connection, stored[1:]) == ([], 4)
    for table in ("facts", "fresh"):
        connection.execute(f"DELETE FROM {table} WHERE row IN (4, 7)")
    assert facts.check(connection, stored) == ([4, 7], 0)
    connection.execute("INSERT INTO facts VALUES (1, x'00', 99)")
    assert facts.check(connection, stored) == ([4, 7], 1)
    facts.rebuild(connection, stored)
    assert facts.check(connection, stored) == ([], 0)


def test_few_facts_wait_in_one_table_and_many_go_to_the_other() -> None:
    with mock.patch.object(facts, "_FEW", 64), mock.patch.object(facts, "_MOST", 256):
        connection = database()
        held = []
        for row in range(200):
            facts.insert(connection, [(row, "text", {"n": row})])
            held.append(connection.execute("SELECT count(*) FROM fresh").get)
        facts.insert(connection, [(row, "text", {"n": row}) for row in range(200, 300)])
        assert held[:128] == [2 * (row + 1) for row in range(128)]
        assert held[128] == 0
        assert connection.execute("SELECT count(*) FROM fresh").get == held[-1]
        assert facts.facets(connection, "n", None, 3) == [(0, 1), (1, 1), (2, 1)]


def test_a_name_that_goes_leaves_no_trace() -> None:
    connection = database()
    connection.execute("PRAGMA secure_delete = ON")
    facts.insert(connection, [(1, "text", {"secret-name": "secret-value"}), (2, "text", {})])
    facts.drop(connection, [(1, "text", {"secret-name": "secret-value"})])
    raw = connection.serialize("main")
    assert b"secret" not in raw
    assert facts.rows_matching(connection, Exists(MODALITY)).tolist() == [2]


@given(st.lists(st.sets(st.integers(-5, 30)), min_size=2, max_size=4))
def test_sets_of_rows(given: list[set[int]]) -> None:
    parts = [np.array(sorted(part), dtype=np.int64) for part in given]
    a, b, *_ = parts
    assert rowsets.union(parts).tolist() == sorted(set().union(*given))
    assert rowsets.common(a, b).tolist() == sorted(given[0] & given[1])
    assert rowsets.without(a, b).tolist() == sorted(given[0] - given[1])
    assert rowsets.ascending(np.concatenate(parts)).tolist() == sorted(set().union(*given))
    assert rowsets.among(a[::-1], b).tolist() == [row in given[1] for row in a[::-1]]
