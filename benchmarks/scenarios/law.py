"""German statutes: find a section by its words, and the sections that it cites.

For the citations a random 20 % of all are hidden, and are the answers. The query is a section's own
heading and text, from which every "§ 7 Abs. 2" is struck out, as it would spell the answer. The
section itself counts as not stored: it is not found, and neither what it cites nor what cites it is
followed. So all that helps are the citations of other sections, less those that are hidden.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from benchmarks.common import DATA, WORK
from triptych.encoders.base import EmbeddingModel
from triptych.retrieval.collection import Collection
from triptych.retrieval.rag.retriever import Retriever
from triptych.settings import Settings
from triptych.types import Item, Matrix

HIDDEN = 0.2
SEEDS = 5
QUERIES = 300  # of each seed
DEPTH = 10
WAYS = {"BM25": 1.0, "vectors": 0.0, "hybrid": 0.5}  # the share of the words
REFERENCE = re.compile(
    r"(?:§§?|Art(?:ikels?|\.)|Abs(?:atz(?:es)?|ätzen?|\.)|S(?:atz(?:es)?|ätzen?)|Nummern?|Nr\.)"
    r"\s*\d+\w?(?:\s*(?:,|und|oder|bis|sowie)\s*\d+\w?)*"
)
NUMBER = re.compile(r"^(?:§+|Art\S*|Anlage)\s*\S+\s*")


@dataclass(frozen=True, slots=True)
class Section:
    id: str
    heading: str  # without its number
    text: str
    cites: tuple[str, ...]
    is_new: bool = False  # to the model, which was trained on heading and text of the others

    @property
    def query(self) -> str:
        """What the section says, with no reference to another."""
        return f"{self.heading}\n{REFERENCE.sub('§', self.text)}"


def main() -> None:
    sections = read_sections(DATA / "law.parquet")
    settings = Settings.from_env()
    model = Remembered(settings.open_model("default", threads=settings.num_threads))
    cited = sum(len(section.cites) for section in sections)
    print(f"{len(sections):,} sections of German statutes, {cited:,} citations among them")
    _find(sections, model)
    _cited(sections, model)


def read_sections(path: Path) -> list[Section]:
    """Return all sections; citations of what is not among them are left out."""
    rows = pq.read_table(path, columns=["id", "split", "texts", "attributes"]).to_pylist()
    known = {row["id"] for row in rows}
    return [
        Section(
            id=row["id"],
            heading=NUMBER.sub("", row["texts"][0]),
            text=row["texts"][1],
            cites=tuple(c for c in json.loads(row["attributes"])["cites"] if c in known),
            is_new=row["split"] == "dev",
        )
        for row in rows
    ]


def hide(sections: Sequence[Section], seed: int) -> dict[str, set[str]]:
    """Return a random fifth of all citations: the cited sections by the citing one."""
    chance = random.Random(seed)
    hidden: dict[str, set[str]] = {}
    for section in sections:
        for cited in section.cites:
            if chance.random() < HIDDEN:
                hidden.setdefault(section.id, set()).add(cited)
    return hidden


def recall(found: Sequence[str], answers: set[str]) -> float:
    """Return the share of the answers that are found."""
    return len(answers & set(found)) / len(answers)


def _find(sections: Sequence[Section], model: EmbeddingModel) -> None:
    """Find sections that the model has not seen by their headings, which are not indexed."""
    with _collection(sections, model, hidden={}) as collection:
        retriever = Retriever(collection)
        asked = [section for section in sections if section.is_new and section.heading.strip()]
        print(
            f"\na section by its heading, {len(asked)} headings, percent within the first {DEPTH}:"
        )
        for name, words in WAYS.items():
            shares = []
            for expand in (0.0, None):
                hits = [_ids(retriever, one.heading, words, expand) for one in asked]
                pairs = zip(hits, asked, strict=True)
                shares.append(statistics.mean(recall(found, {one.id}) for found, one in pairs))
            print(f"  {name:10}{100 * shares[0]:8.1f}{100 * shares[1]:8.1f} with citations")


def _cited(sections: Sequence[Section], model: Remembered) -> None:
    """Find hidden citations, with and without following the rest."""
    runs: dict[str, list[float]] = {}
    for seed in range(SEEDS):
        hidden = hide(sections, seed)
        asking = [section for section in sections if section.id in hidden]
        asked = random.Random(seed).sample(asking, min(QUERIES, len(asking)))
        with _collection(sections, model, hidden=hidden) as collection:
            retriever = Retriever(collection)
            for name, words in WAYS.items():
                for label, expand in ((name, 0.0), (f"{name} + citations", None)):
                    shares = [
                        recall(_ids(retriever, s.query, words, expand, s.id), hidden[s.id])
                        for s in asked
                    ]
                    runs.setdefault(label, []).append(statistics.mean(shares))
        now = ", ".join(f"{name} {100 * shares[-1]:.1f}" for name, shares in runs.items())
        print(f"\nseed {seed}: {now}", file=sys.stderr)
        model.save()
    _report(runs)


def _ids(
    retriever: Retriever, query: str, words: float, expand: float | None, without: str = ""
) -> list[str]:
    found = retriever.retrieve(query, limit=DEPTH, words=words, expand=expand, without=[without])
    return [passage.id for passage in found]


def _report(runs: dict[str, list[float]]) -> None:
    print(
        f"\nhidden citations, {SEEDS} seeds of {QUERIES} sections: recall@{DEPTH}, percent\n"
        f"  {'':22}{'mean':>6}{'spread':>9}{'over vectors alone':>21}"
    )
    alone = runs["vectors"]
    for name, shares in runs.items():
        gains = [share / base - 1 for share, base in zip(shares, alone, strict=True)]
        print(
            f"  {name:22}{100 * statistics.mean(shares):6.1f}{100 * statistics.stdev(shares):9.1f}"
            f"{100 * statistics.mean(gains):+15.0f} % +- {100 * statistics.stdev(gains):.0f}"
        )
    print(
        "the seeds claim: recall +25 %, of statutes and cases. Simulated here: what is asked (a\n"
        "section's own text stands for a case) and what is missing (a random fifth of citations)."
    )


def _collection(
    sections: Sequence[Section], model: EmbeddingModel, *, hidden: dict[str, set[str]]
) -> Collection:
    collection = Collection.open(":memory:", embedder=model)
    collection.upsert(
        {
            "id": section.id,
            "text": section.text,
            "metadata": {
                "names": [section.id],
                "links": [c for c in section.cites if c not in hidden.get(section.id, ())],
            },
        }
        for section in sections
        if section.text.strip()
    )
    return collection


class Remembered:
    """A model that keeps the vectors of texts in a file: half an hour's work, once."""

    def __init__(self, model: EmbeddingModel) -> None:
        self._model = model
        self.name, self.dim, self.fingerprint = model.name, model.dim, model.fingerprint
        self.languages = model.languages
        self._path = WORK / f"law-{model.fingerprint[:16]}.npz"
        self._known: dict[str, np.ndarray] = {}
        if self._path.exists():
            with np.load(self._path, allow_pickle=False) as kept:
                self._known = dict(zip(kept["texts"].tolist(), kept["vectors"], strict=True))

    def embed(self, items: Sequence[Item]) -> Matrix:
        """Return what the model does."""
        names = [sha256((item.text or "").encode()).hexdigest() for item in items]
        new = {n: item for n, item in zip(names, items, strict=True) if n not in self._known}
        if new:
            self._known |= zip(new, self._model.embed(list(new.values())), strict=True)
            print(f"\r{len(self._known):,} texts embedded", end="", file=sys.stderr, flush=True)
        return np.stack([self._known[name] for name in names])

    def save(self) -> None:
        """Keep what was embedded."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        vectors = np.stack(list(self._known.values()))
        np.savez(self._path, texts=np.array(list(self._known)), vectors=vectors)


if __name__ == "__main__":
    main()
