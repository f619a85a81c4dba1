"""Questions as JSON: to be counted, kept in a file, and asked again.

Only those of words and ids are; a picture or a vector is too much to keep of what somebody asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from triptych.types import Part, Query

OPTIONS = (
    "limit",
    "offset",
    "filter",
    "threshold",
    "hybrid",
    "rerank",
    "diversity",
    "group_by",
    "group_size",
)
"""The options of a search that are asked for, in this order; the filter as JSON."""

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def question_of(asked: Query, options: Mapping[str, Any]) -> str | None:
    """Return the question in its one spelling, None for one that holds a picture or a vector."""
    if any(part.image is not None or part.vector is not None for part in asked.parts):
        return None
    parts = [[float(part.weight), part.text, part.id] for part in asked.parts]
    said = {"parts": parts, **{name: options[name] for name in OPTIONS}}
    return _ENCODER.encode(said)


def asked_of(question: str) -> tuple[Query, dict[str, Any]]:
    """Return what `question_of` was told; raises ValueError, TypeError, KeyError for no question.

    The filter, like all else, as `Collection.search` takes it.
    """
    said = json.loads(question)
    parts = [Part(weight=weight, text=text, id=id) for weight, text, id in said["parts"]]
    options = {name: said[name] for name in OPTIONS}
    if options["filter"] is not None:
        options["filter"] = json.loads(options["filter"])
    return Query(tuple(parts)), options


def ids_in(question: str) -> list[str]:
    """Return the ids of items that the question names; raises as `asked_of` does."""
    return [part.id for part in asked_of(question)[0].parts if part.id is not None]
