"""`python -m benchmarks headings [FOLDER ...]`: passages with the headings above them, and alone.

A folder of Markdown or HTML whose pages link to each other asks the questions itself: each sentence
that holds a link to another page, for the passages that the link leads to. What the sentence stands
in counts as not stored. `docs` is taken where none is named; Rust's books (`rustup doc --path`) are
such folders too.
"""

from __future__ import annotations

import random
import re
import sys
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from triptych.encoders.base import EmbeddingModel
from triptych.errors import TriptychError
from triptych.retrieval.collection import Collection
from triptych.retrieval.rag.citation import SUFFIXES, pages_of
from triptych.retrieval.rag.cut import Cut
from triptych.retrieval.rag.document import DocumentLimits, Page
from triptych.retrieval.rag.inside import linked_name
from triptych.retrieval.rag.retriever import Retriever
from triptych.settings import Settings
from triptych.types import Item

QUESTIONS = 400  # of a folder
DEPTH = 20
RESAMPLES = 2_000
WAYS = {"vectors": 0.0, "hybrid": 0.5}  # the share of the words
SENTENCE = re.compile(r"[.!?:;]\s+|\n\s*(?=[\n|*-])")
LINK = re.compile(r"\[([^\]]*)\](?:\([^)]*\)|\[[^\]]*\])")  # Markdown's, of which the words stay
SHORTEST = 25  # characters of a question
LIMITS = DocumentLimits()


@dataclass(frozen=True, slots=True)
class Place:
    path: str
    start: int
    end: int

    def holds(self, item: Item) -> bool:
        """Whether some of the item stands here."""
        said = item.metadata
        return (
            said["document"] == self.path and said["start"] < self.end and self.start < said["end"]
        )


@dataclass(frozen=True, slots=True)
class Question:
    words: str
    asker: Place
    answer: Place


def main() -> None:
    settings = Settings.from_env()
    model = settings.open_model("default", threads=settings.num_threads)
    for folder in sys.argv[1:] or ["docs"]:
        _measure(Path(folder).resolve(), model)


def _measure(root: Path, model: EmbeddingModel) -> None:
    files = sorted(path for path in root.rglob("*") if path.suffix in SUFFIXES)
    pages = {path: page for path in files for page in _pages(path)}
    items = [item for path in pages for item in _passages(path, root)]
    asked = list(_questions(pages, root))
    asked = random.Random(0).sample(asked, min(QUESTIONS, len(asked)))
    print(
        f"\n{root.name}: {len(pages)} pages, {len(items):,} passages, {len(asked)} questions: MRR"
    )
    alone = [replace(item, metadata={**item.metadata, "headed": False}) for item in items]
    ranks = {name: _ranks(given, asked, model) for name, given in (("", items), ("alone", alone))}
    for way in WAYS:
        gain_Q = ranks[""][way] - ranks["alone"][way]
        chance = np.random.default_rng(0).integers(len(asked), size=(RESAMPLES, len(asked)))
        low, high = np.percentile(gain_Q[chance].mean(axis=1), [2.5, 97.5])
        print(
            f"  {way:8} alone {ranks['alone'][way].mean():.3f}   with headings "
            f"{ranks[''][way].mean():.3f}   {gain_Q.mean():+.3f} (95 %: {low:+.3f} to {high:+.3f})"
        )


def _ranks(
    items: Sequence[Item], asked: Sequence[Question], model: EmbeddingModel
) -> dict[str, np.ndarray]:
    """Return of each way one over the rank of each question's answer, 0 below the depth."""
    by_id = {item.id: item for item in items}
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    with Collection.open(":memory:", embedder=model) as collection:
        collection.upsert(items)
        retriever = Retriever(collection)
        for one in asked:
            own = [item.id for item in items if one.asker.holds(item)]
            for way, words in WAYS.items():
                hits = retriever.retrieve(
                    one.words, limit=DEPTH, words=words, expand=0, without=own
                )
                right = (at for at, hit in enumerate(hits, 1) if one.answer.holds(by_id[hit.id]))
                found[way].append(1 / next(right, np.inf))
    return {way: np.array(shares) for way, shares in found.items()}


def _pages(path: Path) -> Iterator[Page]:
    try:
        yield from pages_of(path, path.read_bytes(), LIMITS, lambda note: None)
    except TriptychError as error:
        print(f"{path}: {error}", file=sys.stderr)


def _passages(path: Path, root: Path) -> Iterator[Item]:
    cut = Cut(path=path, root=root, data=path.read_bytes(), note=lambda note: None)
    return (item for item in cut.items() if item.image is None)


def _questions(pages: dict[Path, Page], root: Path) -> Iterator[Question]:
    places = dict(_places(pages))
    for path, page in pages.items():
        cuts = [0, *(match.end() for match in SENTENCE.finditer(page.text)), len(page.text)]
        for link in page.links:
            name = linked_name(link.target, beside=path, root=root)
            answer = places.get(name or "")
            if answer is None or answer.path == str(path):
                continue
            at = bisect_right(cuts, link.start)
            start, end = cuts[at - 1], cuts[min(at, len(cuts) - 1)]
            words = re.sub(r"[\[\]`*|#\n-]+", " ", LINK.sub(r"\1", page.text[start:end])).strip()
            if len(words) > SHORTEST:
                yield Question(words, Place(str(path), link.start, link.start + 1), answer)


def _places(pages: dict[Path, Page]) -> Iterator[tuple[str, Place]]:
    """Yield what links can name: pages, and the sections whose headings are anchors."""
    for path, page in pages.items():
        yield str(path), Place(str(path), 0, len(page.text))
        heads = {heading.start: heading for heading in page.headings}
        for anchor in page.anchors:
            head = heads.get(anchor.start)
            if head is not None:
                below = (
                    h.start for h in page.headings if h.start > head.start and h.level <= head.level
                )
                yield (
                    f"{path}#{anchor.name}",
                    Place(str(path), head.start, next(below, len(page.text))),
                )


if __name__ == "__main__":
    main()
