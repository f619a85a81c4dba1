"""What a filter is, what it means, and its JSON form.

A filter is a tree: `Compare`, `In` and `Exists` look at one field, `And`, `Or` and `Not` join
them. `parse_filter` reads one from JSON in the style of Mongo or from a string (`filter_text`);
`matches` is the definition of what it means:

- A field is named by the path that leads to it: `author.name` in `{"author": {"name": "Ada"}}`.
- A list matches where any of its elements does; lists in lists count as one list.
- Numbers compare with numbers, exactly, whole or not; text with text, by code point; true, false
  and null are only equal or unequal. 1 is not true and not "1". Across kinds nothing matches, and
  that is no error. Objects have no value: name a field inside.
- `$ne`, `$nin` and `$not` are the opposite of `$eq`, `$in` and what they stand before, so they
  match where the field is not there at all. null equals null only where the field is there.
- `_modality` is the item's own: text, image, both or vector.
"""

from __future__ import annotations

import dataclasses
import json
import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, TypeAlias, get_args

from triptych.errors import InvalidInput
from triptych.filter_text import MAX_DEPTH, parse_text
from triptych.types import Metadata, Modality

Scalar: TypeAlias = str | int | float | bool | None
Leaf: TypeAlias = Scalar | tuple[()]
"""A value that can be compared; or (), an object or an empty list: there, but no value."""
Relation: TypeAlias = Literal["=", "<", "<=", ">", ">="]

MODALITY: Final = "_modality"
MAX_NODES: Final = 10_000
MAX_VALUES: Final = 100_000

_MAX_BITS = 14_000  # Python prints 4,300 digits at most
_SCALARS = frozenset((str, int, float, bool, type(None)))
_RELATIONS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip
_OPERATORS: Final[dict[str, Relation]] = {
    "$eq": "=", "$lt": "<", "$lte": "<=", "$gt": ">", "$gte": ">="
}  # fmt: skip
_SIGNS: Final = {sign: name for name, sign in _OPERATORS.items()}
_OF_A_FIELD: Final = "$eq $ne $in $nin $gt $gte $lt $lte $exists $not"


class Key(NamedTuple):
    """A value together with its kind: keys are equal where the values are, in a filter's eyes."""

    kind: Literal["null", "bool", "number", "text", "present"]
    value: Any


class _Node:  # nodes are equal where their JSON is: to Python, 1 and true are the same
    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and to_json(self) == to_json(other)  # type: ignore[arg-type]

    def __hash__(self) -> int:
        return hash(to_json(self))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True, eq=False)
class Compare(_Node):
    """The field has a value that stands in this relation to `value`."""

    field: str
    relation: Relation
    value: Scalar

    def __post_init__(self) -> None:
        if self.relation not in _RELATIONS:
            raise InvalidInput(f"Got the relation {self.relation!r}, expected = < <= > or >=.")
        value = _literal(self.field, self.value)
        if self.relation != "=" and key_of(value).kind not in {"number", "text"}:
            raise InvalidInput(
                f"The filter on {self.field!r} compares by {self.relation} with "
                f"{_shown(self.value)}, expected a number or a text."
            )
        object.__setattr__(self, "field", _name(self.field))
        object.__setattr__(self, "value", value)


@dataclass(frozen=True, slots=True, eq=False)
class In(_Node):
    """The field has one of the values, kept sorted and each once."""

    field: str
    values: tuple[Scalar, ...]
    keys: frozenset[Key] = dataclasses.field(init=False, repr=False)

    def __post_init__(self) -> None:
        if len(self.values) > MAX_VALUES:
            raise InvalidInput(
                f"The filter on {self.field!r} lists {len(self.values):,} values, "
                f"expected at most {MAX_VALUES:,}."
            )
        keys = frozenset(key_of(_literal(self.field, value)) for value in self.values)
        object.__setattr__(self, "field", _name(self.field))
        object.__setattr__(self, "keys", keys)
        object.__setattr__(self, "values", tuple(key.value for key in sorted(keys)))


@dataclass(frozen=True, slots=True, eq=False)
class Exists(_Node):
    """The field is there, whatever it holds."""

    field: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "field", _name(self.field))


@dataclass(frozen=True, slots=True, eq=False)
class And(_Node):
    """All of them match."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Or(_Node):
    """At least one of them matches."""

    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Not(_Node):
    """It does not match."""

    filter: Filter


Filter: TypeAlias = Compare | In | Exists | And | Or | Not


def parse_filter(given: Filter | Mapping[str, Any] | str | None) -> Filter | None:
    """Return the tree of a filter in any form; None and {} filter nothing.

    Raises InvalidInput that names the field, the operator or the place in the string, and beyond
    32 levels, 10,000 nodes or 100,000 values in one list.
    """
    given = parse_text(given) if isinstance(given, str) else given
    if given is None or (isinstance(given, Mapping) and not given):
        return None
    found = given if isinstance(given, _Node) else _Reader().filter(given, 1)
    _measure(found)
    return found


def to_json(filter: Filter) -> str:
    """Return the one JSON form of this tree, fit for a cache key; `parse_filter` reads it back."""
    return json.dumps(_plain(filter), separators=(",", ":"), allow_nan=False)


def matches(filter: Filter, metadata: Metadata, modality: Modality) -> bool:
    """Whether an item passes; what SQLite and every other back-end must agree with."""
    keys: dict[str, list[Key]] = {}
    for name, leaf in fields_of(metadata, modality):
        keys.setdefault(name, []).append(key_of(leaf))
    return _holds(filter, keys)


def fields_of(metadata: Metadata, modality: Modality) -> list[tuple[str, Leaf]]:
    """Return every field and value that a filter can see in an item; a list gives each element.

    What lies deeper than 32 levels is there, but out of a filter's sight. A key `_modality` in the
    metadata is not seen. What JSON would change (a tuple, a key that is a number) is seen as JSON
    gives it back.
    """
    found: list[tuple[str, Leaf]] = [(MODALITY, modality)]
    try:
        for name, value in metadata.items():
            if name != MODALITY:
                _walk("" + name, value, 1, found)  # a TypeError where it is no string
    except TypeError:
        return fields_of(json.loads(json.dumps(dict(metadata))), modality)
    return found


def key_of(leaf: Leaf) -> Key:
    """Return what a value is compared by."""
    if isinstance(leaf, str):
        return Key("text", leaf)
    if isinstance(leaf, bool):
        return Key("bool", leaf)
    if isinstance(leaf, int | float):
        return Key("number", leaf)
    return Key("null", None) if leaf is None else Key("present", leaf)


def joined(text: str) -> str:
    """Return text as JSON gives it back: two halves of a surrogate pair are one character."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
    return text


def whole(number: float) -> int | float:
    """Return a whole number as int, so that 2 and 2.0 are written alike."""
    return int(number) if number.is_integer() and abs(number) < 2**63 else number


def _holds(filter: Filter, keys: Mapping[str, list[Key]]) -> bool:
    match filter:
        case Compare(field, relation, value):
            wanted, relates = key_of(value), _RELATIONS[relation]
            found = keys.get(field, ())
            return any(
                key.kind == wanted.kind and relates(key.value, wanted.value) for key in found
            )
        case In(field):
            return not filter.keys.isdisjoint(keys.get(field, ()))
        case Exists(field):
            return field in keys
        case And(filters):
            return all(_holds(child, keys) for child in filters)
        case Or(filters):
            return any(_holds(child, keys) for child in filters)
        case Not(child):
            return not _holds(child, keys)


class _Reader:
    """Reads the JSON form, counting nodes so that a huge one is refused before it is built."""

    def __init__(self) -> None:
        self._nodes = 0

    def filter(self, given: Any, depth: int) -> Filter:
        """Read an object: several keys must all match."""
        self._count(depth)
        if not isinstance(given, Mapping):
            raise InvalidInput(
                f"Got {_shown(given)} for a filter, expected an object or a string.",
                hint='For example {"year": {"$gte": 2020}} or "year >= 2020".',
            )
        if not given:
            raise InvalidInput("Got {} inside a filter, expected at least one field.")
        parts: list[Filter] = []
        for key, value in given.items():
            if not isinstance(key, str):
                raise InvalidInput(f"Got {_shown(key)} for the name of a field, expected a string.")
            if key.startswith("$") and not key.startswith("$$"):
                parts.append(self._joint(key, value, depth))
            else:
                parts += self._tests(key.removeprefix("$"), value, depth)
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _joint(self, name: str, value: Any, depth: int) -> Filter:
        if name == "$not":
            return Not(self.filter(value, depth + 1))
        if name not in {"$and", "$or"}:
            raise InvalidInput(
                f"Got the operator {name!r}, known are $and $or $not; in a field {_OF_A_FIELD}.",
                hint="The name of a field that starts with $ takes a second $.",
            )
        if not isinstance(value, list | tuple) or not value:
            raise InvalidInput(f"{name} got {_shown(value)}, expected a list of filters.")
        filters = tuple(self.filter(child, depth + 1) for child in value)
        return And(filters) if name == "$and" else Or(filters)

    def _tests(self, name: str, value: Any, depth: int) -> list[Filter]:
        if not isinstance(value, Mapping):
            return [self._test(name, "$eq", value, depth)]
        if not value:
            raise InvalidInput(f"The filter on {name!r} is {{}}, expected an operator.")
        return [self._test(name, sign, operand, depth) for sign, operand in value.items()]

    def _test(self, name: str, sign: Any, value: Any, depth: int) -> Filter:
        self._count(depth)
        if sign in ("$in", "$nin"):
            if not isinstance(value, list | tuple | set | frozenset):
                raise InvalidInput(f"{sign} on {name!r} got {_shown(value)}, expected a list.")
            return In(name, tuple(value)) if sign == "$in" else Not(In(name, tuple(value)))
        if sign == "$exists":
            if not isinstance(value, bool):
                raise InvalidInput(f"$exists on {name!r} got {_shown(value)}, expected a boolean.")
            return Exists(name) if value else Not(Exists(name))
        if sign == "$not":
            tests = self._tests(name, value, self._count(depth + 1))
            return Not(tests[0] if len(tests) == 1 else And(tuple(tests)))
        if sign == "$ne":
            return Not(Compare(name, "=", value))
        if sign not in _OPERATORS:
            known = f"known are {_OF_A_FIELD}"
            hint = None if str(sign).startswith("$") else f'A field inside is "{name}.{sign}".'
            raise InvalidInput(f"Got the operator {sign!r} on {name!r}, {known}.", hint=hint)
        return Compare(name, _OPERATORS[sign], value)

    def _count(self, depth: int) -> int:
        self._nodes += 1
        if depth > MAX_DEPTH or self._nodes > 2 * MAX_NODES:
            raise _too_big()
        return depth


def _measure(filter: Filter) -> None:
    """Raise InvalidInput unless it is a tree of nodes within the limits."""
    level: list[Any] = [filter]
    depth = nodes = 0
    while level:
        depth, nodes = depth + 1, nodes + len(level)
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise _too_big()
        below: list[Any] = []
        for node in level:
            if isinstance(node, And | Or) and node.filters:
                below += node.filters
            elif isinstance(node, Not):
                below.append(node.filter)
            elif not isinstance(node, Compare | In | Exists):
                known = "Compare, In, Exists, Not, or And and Or of at least one"
                raise InvalidInput(f"Got {_shown(node)} in a filter, expected {known}.")
        level = below


def _too_big() -> InvalidInput:
    return InvalidInput(
        f"The filter is too big, expected at most {MAX_DEPTH} levels and {MAX_NODES:,} nodes.",
        hint="Many values of one field go in one $in.",
    )


def _plain(filter: Filter) -> dict[str, Any]:
    match filter:
        case And(filters) | Or(filters):
            name = "$and" if isinstance(filter, And) else "$or"
            return {name: [_plain(child) for child in filters]}
        case Not(child):
            return {"$not": _plain(child)}
        case Compare(_, relation, value):
            test: dict[str, Any] = {_SIGNS[relation]: value}
        case In(_, values):
            test = {"$in": list(values)}
        case Exists():
            test = {"$exists": True}
    return {f"${filter.field}" if filter.field.startswith("$") else filter.field: test}


def _literal(name: str, value: Any) -> Scalar:
    """Return a value in its one form; raises InvalidInput where it is none."""
    known = get_args(Modality)
    if name == MODALITY and not (isinstance(value, str) and value in known):
        raise InvalidInput(f"{MODALITY} got {_shown(value)}, expected one of {', '.join(known)}.")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return joined(value)
    if isinstance(value, int) and value.bit_length() <= _MAX_BITS:
        return int(value)
    if isinstance(value, float) and math.isfinite(value):
        return whole(float(value))
    hint = "A list of values takes $in." if isinstance(value, list | tuple) else None
    raise InvalidInput(
        f"The filter on {name!r} got {_shown(value)}, "
        "expected a text, a finite number of at most 4,000 digits, true, false or null.",
        hint=hint,
    )


def _name(given: Any) -> str:
    if not isinstance(given, str):
        raise InvalidInput(f"Got {_shown(given)} for the name of a field, expected a string.")
    return joined(given)


def _shown(value: Any) -> str:
    try:
        text = repr(value)
    except ValueError:  # an int of too many digits
        text = f"a number of {value.bit_length():,} bits"
    return text if len(text) <= 60 else f"{text[:60]}…"


def _walk(name: str, value: Any, depth: int, found: list[tuple[str, Leaf]]) -> None:
    kind = type(value)
    if kind in _SCALARS:
        found.append((name, value))
        return
    if kind is not dict and kind is not list:
        raise TypeError(kind)
    if kind is dict or not value or depth == MAX_DEPTH:
        found.append((name, ()))
    if depth == MAX_DEPTH:
        return
    if kind is list:
        for child in value:
            _walk(name, child, depth + 1, found)
    else:
        for key, child in value.items():
            _walk(f"{name}." + key, child, depth + 1, found)
