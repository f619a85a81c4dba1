"""A filter in a string: JSON, or the short form `year >= 2020 and not tags in ["x", "y"]`.

    filter     = and-terms joined by "or"
    and-terms  = terms joined by "and"
    term       = "not" term | "(" filter ")" | "exists" "(" name ")" | name test
    test       = ("=" | "==" | "!=" | "<" | "<=" | ">" | ">=") value | ["not"] "in" "[" values "]"
    name       = word | quoted
    value      = number | quoted | "true" | "false" | "null"

Quotes are double or single and take JSON's escapes; keywords may be in capitals.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, NoReturn

from triptych.errors import InvalidInput

MAX_DEPTH: Final = 32
"""How deep a filter may be nested, in any form."""

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.-]))
    | (?P<word>[^\W\d][\w-]*(?:\.[\w-]+)*)
    | (?P<quoted>"[^"\\]*(?:\\.[^"\\]*)*"|'[^'\\]*(?:\\.[^'\\]*)*')
    | (?P<symbol>==|!=|<=|>=|[=<>()\[\],])
    | (?P<end>\Z)
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"} | dict(
    zip("\"'\\/", "\"'\\/", strict=True)
)
_OPERATORS: Final = {
    "=": "$eq", "==": "$eq", "!=": "$ne", "<": "$lt", "<=": "$lte", ">": "$gt", ">=": "$gte"
}  # fmt: skip
_CONSTANTS: Final = {"true": True, "false": False, "null": None}


class _Token(NamedTuple):
    kind: str
    text: str
    at: int

    @property
    def keyword(self) -> str:
        return self.text.lower() if self.kind == "word" else self.text * (self.kind == "symbol")


def parse_text(text: str) -> Any:
    """Return the JSON form of a filter; raises InvalidInput that shows the place."""
    return _loaded(text) if text.lstrip().startswith("{") else _Parser(text).filter()


def _loaded(text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_object, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        place = f"character {error.pos + 1}"
        raise InvalidInput(f"The filter is no JSON at {place}: {error.msg}.") from None
    except RecursionError:
        raise InvalidInput(f"The filter is nested more than {MAX_DEPTH} deep.") from None
    except ValueError as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput("The filter has a number of over 4,000 digits.") from None


def _object(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise InvalidInput(f"The filter names {key!r} twice in one object.", hint="Use $and.")
        found[key] = value
    return found


def _no_constant(name: str) -> Any:
    raise InvalidInput(f"The filter has {name}, which is not a number that can be compared.")


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._depth = 0
        self._next = self._read(0)

    def filter(self) -> dict[str, Any]:
        found = self._any()
        if self._next.kind != "end":
            self._refuse('"and", "or" or the end')
        return found

    def _any(self) -> dict[str, Any]:
        terms = [self._all()]
        while self._accept("or"):
            terms.append(self._all())
        return terms[0] if len(terms) == 1 else {"$or": terms}

    def _all(self) -> dict[str, Any]:
        terms = [self._term()]
        while self._accept("and"):
            terms.append(self._term())
        return terms[0] if len(terms) == 1 else {"$and": terms}

    def _term(self) -> dict[str, Any]:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._error(self._next.at, f"it is nested more than {MAX_DEPTH} deep.")
        if self._accept("not"):
            found: dict[str, Any] = {"$not": self._term()}
        elif self._accept("("):
            found = self._any()
            self._expect(")", 'and, or or ")"')
        else:
            found = self._test()
        self._depth -= 1
        return found

    def _test(self) -> dict[str, Any]:
        name = self._name()
        word = name.keyword
        if word == "exists" and self._accept("("):
            field = self._field(self._name())
            self._expect(")", '")"')
            return {field: {"$exists": True}}
        field = self._field(name)
        if self._accept("not"):
            self._expect("in", '"in"')
            return {field: {"$nin": self._values()}}
        if self._accept("in"):
            return {field: {"$in": self._values()}}
        operator = self._take()
        if operator.keyword not in _OPERATORS:
            self._refuse("one of = != < <= > >= in, or not in", operator)
        return {field: {_OPERATORS[operator.keyword]: self._operand(operator.text)}}

    def _operand(self, operator: str) -> Any:
        token = self._next
        value = self._value()
        if operator[0] in "<>" and (value is None or isinstance(value, bool)):
            self._refuse(f"a number or a quoted text after {operator}", token)
        return value

    def _values(self) -> list[Any]:
        opened = self._take()
        if opened.keyword not in {"[", "("}:
            self._refuse('a list such as ["x", "y"]', opened)
        closing = "]" if opened.text == "[" else ")"
        values: list[Any] = []
        if not self._accept(closing):
            values.append(self._value())
            while self._accept(","):
                values.append(self._value())
            self._expect(closing, f'"," or "{closing}"')
        return values

    def _value(self) -> Any:
        token = self._take()
        if token.kind == "quoted":
            return self._unquoted(token)
        if token.kind == "number":
            return self._number(token)
        if token.keyword in _CONSTANTS:
            return _CONSTANTS[token.keyword]
        hint = f'Text goes in quotes: "{token.text}".' if token.kind == "word" else None
        self._refuse("a number, a quoted text, true, false or null", token, hint)

    def _name(self) -> _Token:
        token = self._take()
        if token.kind not in {"word", "quoted"} or token.keyword in {"and", "or", "in"}:
            hint = "A field whose name is odd goes in quotes." if token.kind != "end" else None
            self._refuse("the name of a field", token, hint)
        return token

    def _field(self, token: _Token) -> str:
        name = self._unquoted(token) if token.kind == "quoted" else token.text
        return f"${name}" if name.startswith("$") else name

    def _number(self, token: _Token) -> int | float:
        try:
            return float(token.text) if set(token.text) & set(".eE") else int(token.text)
        except ValueError:
            raise self._error(token.at, "the number is too long.") from None

    def _unquoted(self, token: _Token) -> str:
        def character(match: re.Match[str]) -> str:
            code = match[1]
            if len(code) > 1:
                return chr(int(code[1:], 16))
            if code not in _ESCAPES:
                at = token.at + 1 + match.start()
                raise self._error(at, f"\\{code} is not an escape.", "A backslash is written \\\\.")
            return _ESCAPES[code]

        return _ESCAPE.sub(character, token.text[1:-1])

    def _accept(self, keyword: str) -> bool:
        if self._next.keyword != keyword:
            return False
        self._take()
        return True

    def _expect(self, keyword: str, shown: str) -> None:
        if not self._accept(keyword):
            self._refuse(shown)

    def _take(self) -> _Token:
        token = self._next
        if token.kind != "end":
            self._next = self._read(token.at + len(token.text))
        return token

    def _read(self, at: int) -> _Token:
        match = _TOKEN.match(self._text, at)
        if match is None or match.lastgroup is None:
            raise self._unreadable(at)
        return _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup))

    def _unreadable(self, at: int) -> InvalidInput:
        at += len(self._text[at:]) - len(self._text[at:].lstrip())
        first = self._text[at]
        if first in "\"'":
            return self._error(at, f"the quote {first} is never closed.")
        if first in "“”„‘’‚«»`":
            return self._error(at, f"{first} is not a quote here.", "Use straight quotes.")
        if first.isdecimal() or first == "-":
            return self._error(at, "this is not a number.", "Text and dates go in quotes.")
        return self._error(at, f"{first!r} has no meaning here.", "Odd names go in quotes.")

    def _refuse(
        self, expected: str, got: _Token | None = None, hint: str | None = None
    ) -> NoReturn:
        token = got or self._next
        shown = "the end" if token.kind == "end" else _short(token.text)
        raise self._error(token.at, f"got {shown}, expected {expected}.", hint)

    def _error(self, at: int, message: str, hint: str | None = None) -> InvalidInput:
        before, after = self._text[max(0, at - 20) : at], self._text[at : at + 20]
        place = f"The filter cannot be read at character {at + 1}, {before!r} ▸ {after!r}:"
        return InvalidInput(f"{place} {message}", hint=hint)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:40]}…")
