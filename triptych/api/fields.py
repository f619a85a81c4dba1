"""What is wrong with the fields of a body, in words of ours: pydantic's name its classes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from triptych.errors import InvalidInput

Place: TypeAlias = tuple[str | int, ...]
"""The keys and indices that lead to a value."""
Wrong: TypeAlias = Mapping[str, Any]
"""One error as pydantic describes it."""

_TOLD = 3  # places; the others are counted
_LONGEST = 80  # characters of a name that was sent

# by pydantic's types of error: what a value was to be ...
_KINDS = {
    "string_type": "text",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
}
# ... and what is wrong with one of the right kind
_SAID = {
    "missing": "is missing",
    "extra_forbidden": "is not known",
    "string_too_short": "is empty",
    "string_too_long": "is too long, expected at most {max_length:,} characters",
    "string_pattern_mismatch": "does not match {pattern}",
    "too_short": "is empty",
    "too_long": "is too long, expected at most {max_length:,} values",
    "greater_than": "is too small, expected more than {gt:,g}",
    "greater_than_equal": "is too small, expected at least {ge:,g}",
    "less_than": "is too large, expected less than {lt:,g}",
    "less_than_equal": "is too large, expected at most {le:,g}",
    "literal_error": "is not known, expected {expected}",
}


def invalid(errors: Iterable[Wrong], *, body: Any, known: Collection[str] = ()) -> InvalidInput:
    """Return one error of all that pydantic found in `body`, an object of the keys `known`.

    Nothing is repeated of what was sent but the names of fields.
    """
    found: dict[Place, list[Wrong]] = {}
    for error in errors:
        found.setdefault(_place(error, body), []).append(error)
    # what may have one of several forms is refused once for each; the one that was meant is
    # that whose error lies deepest
    inner = {place[:end] for place in found for end in range(len(place))}
    said = [_told(place, wrong) for place, wrong in found.items() if place not in inner]
    more = f" (and {len(said) - _TOLD} more)" if len(said) > _TOLD else ""
    strange = any(len(at) == 1 and one[0]["type"] == "extra_forbidden" for at, one in found.items())
    hint = f"Known are {', '.join(known)}." if known and strange else "See: GET /openapi.json"
    return InvalidInput(f"{'; '.join(said[:_TOLD])}{more}.", hint=hint)


def _place(error: Wrong, body: Any) -> Place:
    """Return where it is without what pydantic puts between: the forms that a value may have."""
    place: list[str | int] = []
    for step in error["loc"]:
        steps = range(len(body)) if isinstance(body, list) else body
        if isinstance(steps, range | dict) and step in steps:
            place.append(step)
            body = body[step]
    if error["type"] == "missing":
        place.append(error["loc"][-1])
    return tuple(place)


def _told(place: Place, wrong: Sequence[Wrong]) -> str:
    name = ".".join(str(step)[:_LONGEST] for step in place) or "The body"
    other = next((one for one in wrong if one["type"] not in _KINDS), None)
    if other is None:
        kinds = dict.fromkeys(_KINDS[one["type"]] for one in wrong)
        return f"{name} is {_kind(wrong[0]['input'])}, expected {' or '.join(kinds)}"
    said = _SAID.get(other["type"], "cannot be used")
    return f"{name} {said.format(**other.get('ctx', {}))}"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "an object"
