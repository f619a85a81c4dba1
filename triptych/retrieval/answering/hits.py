"""Hits as bytes, and back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from triptych.types import Hit

_FIELDS = ("id", "score", "metadata", "uri", "text", "modality", "found", "words")
(
    _set_id,
    _set_score,
    _set_metadata,
    _set_uri,
    _set_text,
    _set_modality,
    _set_found,
    _set_words,
    _set_explanation,
) = (Hit.__dict__[name].__set__ for name in (*_FIELDS, "explanation"))

_OVERHEAD = 600  # bytes that Python spends on a hit beside its text and metadata, measured
_LEAF = 100  # ... and on a value of the metadata


def pack_hits(hits: Sequence[Hit]) -> bytes:
    """Return the hits as JSON: a list of lists of their fields."""
    rows = [
        (h.id, h.score, dict(h.metadata), h.uri, h.text, h.modality, h.found, h.words) for h in hits
    ]
    return json.dumps(rows, separators=(",", ":")).encode("ascii")


def unpack_hits(body: bytes) -> tuple[Hit, ...] | None:
    """Return the same hits, None where the bytes are no hits."""
    try:
        rows = json.loads(body)
        if not isinstance(rows, list):
            return None
        return tuple(_hit(*row) for row in rows)
    except (ValueError, TypeError):
        return None


def copied(hits: Sequence[Hit], *, deep: bool) -> list[Hit]:
    """Return hits of which the caller may change the metadata; `deep` where it holds containers."""
    copy = _deep if deep else dict
    return [_copy(hit, copy(hit.metadata)) for hit in hits]


def is_deep(hits: Sequence[Hit]) -> bool:
    """Whether any metadata holds a list or a dictionary."""
    return any(isinstance(one, dict | list) for hit in hits for one in hit.metadata.values())


def weight(hits: Sequence[Hit]) -> int:
    """Return about how many bytes these hits take in memory."""
    return sum(
        _OVERHEAD + len(hit.text or "") + len(hit.uri or "") + _weight(hit.metadata) for hit in hits
    )


def _hit(
    id: str,
    score: float,
    metadata: dict[str, Any],
    uri: str | None,
    text: str | None,
    modality: Any,
    found: str,
    words: float | None,
) -> Hit:
    if not isinstance(id, str) or not isinstance(score, float) or not isinstance(metadata, dict):
        raise TypeError("no hit")
    return Hit(
        id=id,
        score=score,
        metadata=metadata,
        uri=uri,
        text=text,
        modality=modality,
        found=found,
        words=words,
    )


def _copy(hit: Hit, metadata: dict[str, Any]) -> Hit:
    # Hit(...) sets each field of a frozen class by name: that alone would be most of the time that
    # a known answer takes
    new = object.__new__(Hit)
    _set_id(new, hit.id)
    _set_score(new, hit.score)
    _set_metadata(new, metadata)
    _set_uri(new, hit.uri)
    _set_text(new, hit.text)
    _set_modality(new, hit.modality)
    _set_found(new, hit.found)
    _set_words(new, hit.words)
    _set_explanation(new, None)  # what is explained is never remembered
    return new


def _deep(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _deep(one) for key, one in value.items()}
    return [_deep(one) for one in value] if isinstance(value, list) else value


def _weight(value: Any) -> int:
    if isinstance(value, dict):
        return sum(_LEAF + len(key) + _weight(one) for key, one in value.items())
    if isinstance(value, list):
        return sum(_LEAF + _weight(one) for one in value)
    return len(value) if isinstance(value, str) else 0
