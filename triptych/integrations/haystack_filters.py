"""Haystack's filters in Triptych's language."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any, Final

from haystack import Document
from haystack.errors import FilterError

_LOGIC: Final = {"AND": "$and", "OR": "$or", "NOT": "$not"}
_ORDER: Final = {">": "$gt", ">=": "$gte", "<": "$lt", "<=": "$lte"}
_BESIDES_META: Final = {field.name for field in fields(Document)} - {"meta"}
_NEVER: Final[dict[str, Any]] = {"_modality": {"$in": []}}


def to_filter(filters: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return the same filter; raises FilterError for one that is malformed."""
    return _node(filters) if filters else None


def _node(given: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(given, Mapping) or "operator" not in given:
        raise FilterError(f"A filter has an operator, got {given!r}.")
    if "field" in given:
        return _comparison(given)
    if "conditions" not in given:
        raise FilterError(f"A filter has a field or conditions, got {given!r}.")
    if given["operator"] not in _LOGIC:
        raise FilterError(f"Got {given['operator']!r}, expected one of {', '.join(_LOGIC)}.")
    nodes = [_node(condition) for condition in given["conditions"]]
    if given["operator"] == "NOT":
        return {"$not": {"$and": nodes}}
    return {_LOGIC[given["operator"]]: nodes}


def _comparison(given: Mapping[str, Any]) -> dict[str, Any]:
    if "value" not in given:
        raise FilterError(f"A comparison has a value, got {given!r}.")
    field = _field(str(given["field"]))
    sign, value = given["operator"], given["value"]
    if sign in _ORDER:
        return _ordered(field, sign, value)
    meaning = _MEANING.get(sign)
    if meaning is None:
        raise FilterError(f"Got the operator {sign!r}, expected {', '.join(_MEANING)} or an order.")
    return meaning(field, value)


def _field(name: str) -> str:
    """Return the metadata's field; raises FilterError for what a document has besides them."""
    if name in _BESIDES_META:
        raise FilterError(
            f"Got the field {name!r}, expected one of the metadata: meta.{name} if it is there."
        )
    return name.removeprefix("meta.")


def _ordered(field: str, sign: str, value: Any) -> dict[str, Any]:
    if value is None:
        return _NEVER
    if isinstance(value, str):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            raise FilterError(f"{sign} compares numbers and ISO dates, got {value!r}.") from None
    elif not isinstance(value, int | float):
        raise FilterError(f"{sign} compares numbers and ISO dates, got {value!r}.")
    return {field: {_ORDER[sign]: value}}


def _equal(field: str, value: Any) -> dict[str, Any]:
    if value is None:  # to Haystack a field that is not there is None
        return {"$or": [{field: {"$exists": False}}, {field: None}]}
    if isinstance(value, list | tuple):
        return {"$and": [{field: one} for one in value]} if value else _NEVER
    return {field: {"$eq": value}}


def _among(field: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, list):
        raise FilterError(f"in and not in take a list, got {value!r}.")
    return {field: {"$in": value}}


_MEANING: Final[dict[str, Callable[[str, Any], dict[str, Any]]]] = {
    "==": _equal,
    "!=": lambda field, value: {"$not": _equal(field, value)},
    "in": _among,
    "not in": lambda field, value: {"$not": _among(field, value)},
}
