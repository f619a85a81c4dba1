"""Queries as a small algebra: a weighted sum of unit vectors of words, pictures, ids."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from triptych.encoders.base import real_numbers, unit_rows
from triptych.errors import InvalidInput
from triptych.types import ImageSource, Item, Matrix, Part, Query, Vector

Term: TypeAlias = "str | Part | ImageSource"
"""A string is words."""

_WEIGHT = re.compile(r"(\d+(?:\.\d+)?):(?=\D)")
_OPERATORS = {"+": 1.0, "-": -1.0}
_PATH_STARTS = ("./", "../", "/", "~")


def build_query(
    query: str | Query | Part | Sequence[Part] | None = None,
    *,
    image: ImageSource | Sequence[ImageSource] | None = None,
    minus: Term | Sequence[Term] = (),
    like: str | Sequence[str] = (),
    vector: Any | None = None,
) -> Query:
    """Return one Query of all that is given; a string is words, never syntax."""
    parts = [*_leading_parts(query)]
    parts += [Part(image=one) for one in _as_list(image)]
    parts += [Part(id=one) for one in _as_list(like)]
    if vector is not None:
        parts.append(Part(vector=vector))
    parts += [_negated(term) for term in _as_list(minus)]
    return Query(tuple(parts))


def parse_query(tokens: Iterable[str]) -> Query:
    """Return the Query that command-line arguments spell.

    `+` and `-` operate only as whole arguments, `N:` (not before a digit) is a weight, a path
    starts with `./`, `../`, `/`, `~` or `image:`, a stored id with `id:`, and `text:` escapes all.
    Neighbouring plain words make one phrase.
    """
    parts: list[Part] = []
    sign: float | None = None
    may_join = False
    for token in tokens:
        if token in _OPERATORS:
            if sign is not None:
                raise _dangling(token)
            sign, may_join = _OPERATORS[token], False
            continue
        part, plain = _parse_term(token, 1.0 if sign is None else sign)
        if plain and may_join and token == part.text:
            parts[-1] = Part(weight=parts[-1].weight, text=f"{parts[-1].text} {token}")
        else:
            parts.append(part)
        sign, may_join = None, plain
    if sign is not None:
        raise _dangling("+" if sign > 0 else "-")
    return Query(tuple(parts))


def query_words(query: Query) -> str:
    """Return the words that the query asks for; raises InvalidInput where there are none."""
    words = [part.text for part in query.parts if part.text is not None and part.weight > 0]
    if not words:
        raise InvalidInput("A hybrid search needs words in the query.", hint="Leave hybrid out.")
    return " ".join(words)


def query_vector(
    query: Query,
    *,
    embed: Callable[[Sequence[Item]], Matrix],
    stored: Callable[[Sequence[str]], Matrix],
) -> Vector:
    """Return the query's unit vector: the normalised sum of weight times each part's unit vector.

    `embed` turns items into unit rows, `stored` ids into the rows kept for them.
    """
    vectors: list[Vector | None] = [None] * len(query.parts)
    fresh = {at: _as_item(part, at) for at, part in enumerate(query.parts) if _embeds(part)}
    known = {at: part.id for at, part in enumerate(query.parts) if part.id is not None}
    if fresh:
        _place(vectors, fresh, embed(list(fresh.values())))
    if known:
        _place(vectors, known, stored(list(known.values())))
    for at, part in enumerate(query.parts):
        if part.vector is not None:
            vectors[at] = unit_rows(real_numbers(part.vector, "the query").reshape(1, -1))[0]
    return _weighted_sum(query, [vector for vector in vectors if vector is not None])


def _weighted_sum(query: Query, vectors: Sequence[Vector]) -> Vector:
    if len(vectors) == 1 and query.parts[0].weight > 0:
        return vectors[0]
    dims = {len(vector) for vector in vectors}
    if len(dims) > 1:
        raise InvalidInput(f"The parts of the query differ in dimension: {sorted(dims)}.")
    weights = np.array([part.weight for part in query.parts], dtype=np.float64)
    total = weights @ np.stack(vectors).astype(np.float64)
    if np.linalg.norm(total) < 1e-6 * np.abs(weights).sum():
        raise InvalidInput(
            "The parts of the query cancel each other out.", hint="Change a weight or a part."
        )
    unit: Vector = unit_rows(total[None])[0]
    return unit


def _place(vectors: list[Vector | None], where: Iterable[int], rows: Matrix) -> None:
    for at, row in zip(where, rows, strict=True):
        vectors[at] = row


def _embeds(part: Part) -> bool:
    return part.text is not None or part.image is not None


def _as_item(part: Part, at: int) -> Item:
    if part.text is not None and not part.text.strip():
        raise InvalidInput("The query's text is empty.", hint="Give at least one word.")
    return Item(id=f"query:{at}", text=part.text, image=part.image)


def _leading_parts(query: str | Query | Part | Sequence[Part] | None) -> Sequence[Part]:
    match query:
        case None:
            return ()
        case str():
            return (Part(text=query),)
        case Part():
            return (query,)
        case Query():
            return query.parts
        case list() | tuple() if all(isinstance(part, Part) for part in query):
            return query
    raise InvalidInput(
        f"A query is a string, a Part, a list of Parts or a Query, got {type(query).__name__}.",
        hint="Pass a picture as image=..., a stored id as like=..., a vector as vector=...",
    )


def _negated(term: Term) -> Part:
    if isinstance(term, str):
        return Part(weight=-1.0, text=term)
    if isinstance(term, Part):
        return Part(
            weight=-term.weight, text=term.text, image=term.image, id=term.id, vector=term.vector
        )
    return Part(weight=-1.0, image=term)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _parse_term(token: str, sign: float) -> tuple[Part, bool]:
    """Return the part that one argument spells, and whether it is plain words."""
    weight = sign
    if (match := _WEIGHT.match(token)) is not None:
        weight, token = sign * float(match[1]), token[match.end() :]
        if weight == 0:
            raise InvalidInput(f"The weight of {token!r} is 0.", hint="Leave the part out.")
    kind, colon, rest = token.partition(":")
    if colon and kind == "text":
        return Part(weight=weight, text=rest), False
    if colon and kind == "id":
        return Part(weight=weight, id=rest), False
    if colon and kind == "image":
        return Part(weight=weight, image=_image_argument(rest)), False
    if token.startswith(_PATH_STARTS):
        return Part(weight=weight, image=_image_argument(token)), False
    return Part(weight=weight, text=token), True


def _image_argument(argument: str) -> ImageSource:
    if argument.startswith(("data:", "http://", "https://")):
        return argument
    return Path(os.path.expanduser(argument))


def _dangling(operator: str) -> InvalidInput:
    return InvalidInput(
        f"Nothing follows the operator {operator!r}.",
        hint=f"Give a term after it, or write text:{operator} to search for the sign itself.",
    )
