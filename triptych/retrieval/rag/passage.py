"""What a retriever finds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from triptych.retrieval.rag.citation import Citation
from triptych.types import Hit, Metadata


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A piece of text or a picture, its score a cosine, and where it stands."""

    id: str
    kind: Literal["passage", "picture"]
    text: str  # of a picture its caption
    score: float
    metadata: Metadata
    uri: str | None
    found: str  # the ways to it: "hnsw+words", "link"
    citation: Citation | None  # None for an item that is of no document

    @classmethod
    def of(cls, hit: Hit, *, found: str | None = None) -> Passage:
        """Return what a hit of a collection is to a retriever."""
        return cls(
            id=hit.id,
            kind="picture" if is_picture(hit) else "passage",
            text=hit.text or "",
            score=hit.score,
            metadata=hit.metadata,
            uri=hit.uri,
            found=found or hit.found,
            citation=Citation.of(hit.metadata),
        )


def is_picture(hit: Hit) -> bool:
    """Whether a picture is in it."""
    return hit.modality in ("image", "both")


def in_one_list(words: Sequence[Hit], pictures: Sequence[Hit], *, gap: float = 0.0) -> list[Hit]:
    """Return two lists as one, each in its own order, that holds both where both answer.

    How many of each come first is decided by cosines alone: the n-th of a list stands for its n-th
    largest cosine, pictures' raised by `gap`. So BM25 puts the passages in order without pushing
    the pictures out, which have few words to match or none.
    """
    merged: list[tuple[float, int, Hit]] = []
    for kind, (hits, raised) in enumerate(((words, 0.0), (pictures, gap))):
        cosines = sorted((hit.score for hit in hits), reverse=True)
        merged += [(-cosine - raised, kind, hit) for cosine, hit in zip(cosines, hits, strict=True)]
    merged.sort(key=lambda one: one[:2])  # stable: each list keeps its order
    return [hit for _, _, hit in merged]
