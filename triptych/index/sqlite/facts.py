"""Which rows hold which value in which field: metadata turned over, so that SQLite can filter.

A fact is (field, value, row), kept in that order. A field here is a name together with a kind of
value, so that all values of one field compare as SQLite compares them: text by its UTF-8 bytes,
which is by code point; numbers exactly, whole or not. Everything is maintained inside the store's
transaction and can be worked out again from the items alone, as `check` and `rebuild` do. Those
of a few new items wait in a small table by row, one page instead of one for each field, until
there are enough of them to be worth a place in the large one.

What a filter means is said by `filters.matches`; here it is answered with sets of rows, of which
SQLite gives those of one field. Each function reads more than once: call it in a transaction.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any, Final, NamedTuple, TypeAlias

import apsw
import numpy as np

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
    joined,
)
from triptych.index.sqlite.leaves import Kind, Stored, bounds, restored, stored, stored_alike
from triptych.index.sqlite.records import pack
from triptych.index.sqlite.rowsets import ascending, common, union, without
from triptych.types import Metadata, Modality, Rows

FRESH: Final = """
CREATE TABLE fresh(
    row INTEGER NOT NULL, field INTEGER NOT NULL, value ANY NOT NULL,
    PRIMARY KEY(row, field, value)
) STRICT, WITHOUT ROWID;
"""
"""What format 2 lacks."""
SCHEMA: Final = f"""
CREATE TABLE fields(
    field INTEGER PRIMARY KEY, name ANY NOT NULL, kind INTEGER NOT NULL, UNIQUE(name, kind)
) STRICT;
CREATE TABLE facts(
    field INTEGER NOT NULL, value ANY NOT NULL, row INTEGER NOT NULL,
    PRIMARY KEY(field, value, row)
) STRICT, WITHOUT ROWID;
{FRESH}"""

Given: TypeAlias = tuple[int, Modality, Metadata]
"""Row, modality and metadata of an item."""
Test: TypeAlias = "Compare | In | Exists"

_BATCH: Final = 1_000
_FEW: Final = 64  # facts at once that are worth waiting
_MOST: Final = 256  # of those that wait: each test reads them all
_PILE: Final = 1_000_000
_PEEK: Final = 20_000
_PROBE: Final = 16  # looking a row up costs as much as counting and reading so many
_HAS: Final = {
    "=": "value = ?", "<": "value < ?", "<=": "value <= ?", ">": "value > ?", ">=": "value >= ?"
}  # fmt: skip
_HAS_ONE: Final = "value IN carray(?)"
_HAS_ANY: Final = "? IS NULL"


class Disagreement(NamedTuple):
    """Rows whose facts are not all there, and how many facts belong to no item as it is now."""

    rows: list[int]
    surplus: int


class _Found(NamedTuple):
    """A set of rows, ascending; `inverted`: all rows but these."""

    rows: Rows
    inverted: bool


class _Term(NamedTuple):
    """What SQLite is asked about one field."""

    field: int
    condition: str
    operand: Any


def insert(connection: apsw.Connection, items: Iterable[Given]) -> None:
    """Add the facts of new items."""
    facts = _numbered(connection, items, create=True)
    first = list(islice(facts, _FEW))
    if len(first) == _FEW:
        every = chain(first, facts)
        connection.executemany("INSERT INTO facts(field, value, row) VALUES (?, ?, ?)", every)
        return
    connection.executemany("INSERT INTO fresh(field, value, row) VALUES (?, ?, ?)", first)
    if connection.execute("SELECT count(*) FROM fresh").get > _MOST:
        order = "INSERT INTO facts SELECT field, value, row FROM fresh ORDER BY field, value, row"
        connection.execute(order)
        connection.execute("DELETE FROM fresh")


def drop(connection: apsw.Connection, items: Sequence[Given]) -> None:
    """Remove the facts of items, given as they were inserted; names that nobody has now go too."""
    facts = list(_numbered(connection, items, create=False))
    gone = "DELETE FROM facts WHERE field = ? AND value = ? AND row = ?"
    connection.executemany(gone, facts)
    connection.executemany("DELETE FROM fresh WHERE row = ?", [(row,) for row, _, _ in items])
    unused = (
        "DELETE FROM fields WHERE field = ?1 AND NOT EXISTS (SELECT 1 FROM facts WHERE field = ?1)"
        " AND NOT EXISTS (SELECT 1 FROM fresh WHERE field = ?1)"
    )
    connection.executemany(unused, [(field,) for field in {field for field, _, _ in facts}])


def drop_unread(connection: apsw.Connection, rows: Sequence[int]) -> None:
    """Remove the facts of items that nobody can read; they are found by value, so all are read."""
    for table in ("facts", "fresh"):
        gone = f"DELETE FROM {table} WHERE row = ?"  # noqa: S608
        connection.executemany(gone, [(row,) for row in rows])


def rebuild(connection: apsw.Connection, items: Iterable[Given]) -> None:
    """Replace all facts by those of `items`, which are all that there are."""
    for table in ("facts", "fresh", "fields"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608
    for batch in _batches(items):
        insert(connection, batch)


def check(connection: apsw.Connection, items: Iterable[Given]) -> Disagreement:
    """Compare the facts with those of `items`, which are all that there are."""
    tables = _tables(connection)
    probe = " UNION ALL ".join(
        f"SELECT 1 FROM {table} WHERE field = ?1 AND value = ?2 AND row = ?3"  # noqa: S608
        for table in tables
    )
    rows = set()
    present = 0
    for batch in _batches(items):
        for fact in _numbered(connection, batch, create=False):
            if connection.execute(probe, fact).get is None:
                rows.add(fact[-1])
            else:
                present += 1
    counts = (connection.execute(f"SELECT count(*) FROM {table}").get for table in tables)  # noqa: S608
    held = sum(int(one) for one in counts)
    return Disagreement(sorted(rows), held - present)


def rows_matching(
    connection: apsw.Connection, filter: Filter, *, everything: Rows | None = None
) -> Rows:
    """Return the rows of the items that pass, ascending.

    `everything`, all rows ascending, spares reading them where a filter excludes.
    """
    rows, inverted = _select(connection, filter, None)
    if not inverted:
        return rows
    return without(_all_rows(connection) if everything is None else everything, rows)


def count(connection: apsw.Connection, filter: Filter) -> int:
    """Return how many items pass."""
    rows, inverted = _select(connection, filter, None)
    return len(_all_rows(connection)) - len(rows) if inverted else len(rows)


def facets(
    connection: apsw.Connection, field: str, rows: Rows | None, limit: int
) -> list[tuple[Scalar, int]]:
    """Return the values of a field and how many of `rows` (None: of all) have each.

    The most frequent come first; equal ones by kind (null, false, true, numbers, text), then by
    value. An item with a list counts for each of its values.
    """
    if rows is not None and not len(rows):
        return []
    found: list[tuple[int, Kind, Stored]] = []
    every = " UNION ALL ".join(
        f"SELECT field, value, row FROM {table}"  # noqa: S608
        for table in _tables(connection)
    )
    for kind, number in _kinds(connection, field).items():
        if kind is not Kind.PRESENT:
            query = f"SELECT value, count(*) FROM ({every}) WHERE field = ?"  # noqa: S608
            query, values = _within(query, rows)
            query += " GROUP BY value ORDER BY count(*) DESC, value LIMIT ?"
            counted = connection.execute(query, (number, *values, limit))
            found += [(-times, kind, value) for value, times in counted]
    found.sort()
    return [(restored(kind, value), -times) for times, kind, value in found[:limit]]


def _numbered(
    connection: apsw.Connection, items: Iterable[Given], *, create: bool
) -> Iterator[tuple[int, Stored, int]]:
    """Yield (field, value, row), each once, in the order of the table: neighbours share a page."""
    columns: defaultdict[int, list[tuple[Stored, int]]] = defaultdict(list)
    found = list(_by_kind(items))
    fields = _fields(connection, [(name, kind) for name, kind, _, _ in found], create=create)
    for field, (_, _, values, rows) in zip(fields, found, strict=True):
        columns[field] += zip(values, rows, strict=True)
    for field in sorted(columns):
        for value, row in dict.fromkeys(sorted(columns[field])):  # most are in order by themselves
            yield field, value, row


def _by_kind(items: Iterable[Given]) -> Iterator[tuple[str, Kind, list[Stored], list[int]]]:
    """Yield names with a kind, what is stored there, and of which rows."""
    columns: defaultdict[tuple[str, type], tuple[list[Any], list[int]]]
    columns = defaultdict(lambda: ([], []))
    for row, modality, metadata in items:
        for name, leaf in fields_of(metadata, modality):
            leaves, rows = columns[name, type(leaf)]
            leaves.append(leaf)
            rows.append(row)
    for (name, form), (leaves, rows) in columns.items():
        alike = stored_alike(form, leaves)
        if alike is not None:
            yield name, *alike, rows
            continue
        for leaf, row in zip(leaves, rows, strict=True):
            kind, value = stored(leaf)
            yield name, kind, [value], [row]


def _batches(items: Iterable[Given]) -> Iterator[list[Given]]:
    rest = iter(items)
    while batch := list(islice(rest, _BATCH)):
        yield batch


def _fields(
    connection: apsw.Connection, names: Sequence[tuple[str, Kind]], *, create: bool
) -> list[int]:
    keys = [(pack(joined(name)), int(kind)) for name, kind in names]
    query = "SELECT name, kind, field FROM fields WHERE name = ? AND kind = ?"
    known = {(name, kind): field for name, kind, field in connection.executemany(query, keys)}
    for key in keys if create else ():
        if key not in known:
            insert = "INSERT INTO fields(name, kind) VALUES (?, ?) RETURNING field"
            known[key] = connection.execute(insert, key).get
    # unknown ones apart by kind, whose values can be compared
    return [known.get(key, -1 - key[1]) for key in keys]


def _kinds(connection: apsw.Connection, name: str) -> dict[Kind, int]:
    query = "SELECT kind, field FROM fields WHERE name = ? ORDER BY kind"
    found = connection.execute(query, (pack(joined(name)),))
    return {Kind(kind): field for kind, field in found}


def _select(connection: apsw.Connection, filter: Filter, within: Rows | None) -> _Found:
    """Return what passes; of rows that are not in `within` it may say anything."""
    match filter:
        case Not(child):
            rows, inverted = _select(connection, child, within)
            return _Found(rows, not inverted)
        case And(children):
            return _joint(connection, children, within, opposite=False)
        case Or(children):
            return _joint(connection, children, within, opposite=True)
        case test:
            if not _worth_probing(connection, test, within):
                within = None
            parts = [_fetch(connection, term, within) for term in _terms(connection, test)]
            return _Found(union(parts), False)


def _joint(
    connection: apsw.Connection,
    children: Sequence[Filter],
    within: Rows | None,
    *,
    opposite: bool,
) -> _Found:
    """Return what passes all, the most selective first; or, by De Morgan, what passes any."""
    kept: Rows | None = None
    excluded: list[Rows] = []
    pile = 0
    for child in _ordered(connection, children):
        rows, inverted = _select(connection, child, within if kept is None else kept)
        if inverted != opposite:
            excluded.append(rows)
            pile += len(rows)
            if pile > _PILE + len(excluded[0]):  # thousands of broad tests must not fill the memory
                excluded, pile = [union(excluded)], 0
        else:
            kept = rows if kept is None else common(kept, rows)
    if kept is None:
        return _Found(union(excluded), not opposite)
    return _Found(without(kept, union(excluded)), opposite)


def _ordered(connection: apsw.Connection, children: Sequence[Filter]) -> Sequence[Filter]:
    """Return the cheapest first, as far as a short look can tell."""
    limit = _PEEK // len(children)
    return sorted(children, key=lambda child: _weight(connection, child, limit))


def _worth_probing(connection: apsw.Connection, test: Test, within: Rows | None) -> bool:
    """Whether few rows are asked for and many have the one value that the table finds them by."""
    if within is None or not isinstance(test, Compare) or test.relation != "=":
        return within is not None and not len(within)
    limit = _PROBE * len(within)
    return _weight(connection, test, limit) >= limit


def _weight(connection: apsw.Connection, filter: Filter, limit: int) -> int:
    """Return how many facts must be read, but counted no further than `limit`."""
    match filter:
        case Not(child):
            return _weight(connection, child, limit)
        case And(children):
            return min(_weight(connection, child, limit) for child in children)
        case Or(children):
            return min(limit, sum(_weight(connection, child, limit) for child in children))
        case test:
            query = "SELECT count(*) FROM (SELECT 1 FROM facts WHERE field = ? AND {} LIMIT ?)"
            counts = (
                int(connection.execute(query.format(condition), (field, operand, limit)).get)
                for field, condition, operand in _terms(connection, test)
            )
            return min(limit, sum(counts))


def _terms(connection: apsw.Connection, test: Test) -> Iterator[_Term]:
    """Give what together holds for the rows that pass, of the kinds that the field has."""
    kinds = _kinds(connection, test.field)
    wanted: Iterable[tuple[Kind, str, Any]]
    match test:
        case Exists():
            wanted = [(kind, _HAS_ANY, None) for kind in kinds]
        case In():
            wanted = _listed(test)
        case Compare(_, "=", value):
            kind, operand = stored(value)
            wanted = [(kind, _HAS["="], operand)]
        case Compare(_, relation, value):
            wanted = [(kind, _HAS[relation], operand) for kind, operand in bounds(value)]
    for kind, condition, operand in wanted:
        if kind in kinds:
            yield _Term(kinds[kind], condition, operand)


def _listed(test: In) -> Iterator[tuple[Kind, str, Any]]:
    groups: dict[tuple[Kind, type], list[Any]] = {}
    for value in test.values:
        kind, operand = stored(value)
        groups.setdefault((kind, type(operand)), []).append(operand)
    for (kind, form), operands in groups.items():
        array = tuple(operands) if form is bytes else np.array(operands)
        yield kind, _HAS_ONE, apsw.carray(array)


def _fetch(connection: apsw.Connection, term: _Term, within: Rows | None) -> Rows:
    """Return rows ascending; one long text of them is read faster than a result for each."""
    if within is not None and not len(within):
        return within
    texts = []
    for table in _tables(connection):
        query = f"SELECT group_concat(row) FROM {table} WHERE field = ? AND {term.condition}"  # noqa: S608
        query, values = _within(query, within)
        texts.append(connection.execute(query, (term.field, term.operand, *values)).get)
    text = ",".join(filter(None, texts))
    return ascending(np.fromstring(text, dtype=np.int64, sep=","))


def _tables(connection: apsw.Connection) -> list[str]:
    """Return where facts are: the small table comes with the first write to an older store."""
    query = "SELECT name FROM sqlite_schema WHERE name IN ('facts', 'fresh') AND type = 'table'"
    tables = [name for (name,) in connection.execute(query)]
    if "fresh" in tables and not connection.execute("SELECT EXISTS (SELECT 1 FROM fresh)").get:
        tables.remove("fresh")
    return tables


def _within(query: str, rows: Rows | None) -> tuple[str, tuple[Any, ...]]:
    if rows is None:
        return query, ()
    return f"{query} AND row IN carray(?)", (apsw.carray(np.ascontiguousarray(rows)),)


def _all_rows(connection: apsw.Connection) -> Rows:
    return _select(connection, Exists(MODALITY), None).rows
