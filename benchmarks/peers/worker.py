"""One contestant in a process of its own: reads requests from stdin, answers on stdout, as JSON.

python -m benchmarks.peers.worker CONTESTANT COUNT
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import seconds
from benchmarks.peers.corpus import Corpus, only, recall

PLACES = {
    "hnswlib": "benchmarks.peers.libraries:Hnswlib",
    "usearch": "benchmarks.peers.libraries:Usearch",
    "faiss": "benchmarks.peers.libraries:FaissHnsw",
    "chromadb": "benchmarks.peers.embedded:Chroma",
    "lancedb": "benchmarks.peers.embedded:Lance",
    "lancedb-hnsw": "benchmarks.peers.embedded:LanceIndexed",
    "qdrant-client": "benchmarks.peers.embedded:Qdrant",
    "milvus-lite": "benchmarks.peers.embedded:Milvus",
    "triptych": "benchmarks.peers.ours:OurStore",
    "triptych-million": "benchmarks.peers.ours:OurMillion",
    "triptych-index": "benchmarks.peers.ours:OurIndex",
}


class Worker:
    """What may be asked; every answer holds only what JSON can."""

    def __init__(self, name: str, count: int) -> None:
        module, _, made = PLACES[name].partition(":")
        self.contestant: Any = getattr(importlib.import_module(module), made)()
        self.corpus = Corpus(count)

    def build(self) -> float:
        """Index the whole corpus; return seconds."""
        vectors_NM = np.array(self.corpus.vectors_NM)
        return seconds(lambda: self.contestant.build(vectors_NM))

    def open(self, folder: str) -> float:
        """Open the store; return seconds."""
        return seconds(lambda: self.contestant.open(Path(folder)))

    def add(self, start: int, count: int, batch: int) -> list[float]:
        """Add items `start`.. in batches; return the seconds of each.

        Beyond the corpus, items get vectors of its beginning.
        """
        took = []
        for first in range(start, start + count, batch):
            ids = range(first, min(first + batch, start + count))
            vectors_NM = self.corpus.part(ids.start, ids.stop)
            took.append(seconds(lambda i=ids, v=vectors_NM: self.contestant.add(i, v)))
        return took

    def settle(self) -> float:
        """Do what one does after loading; return seconds."""
        return seconds(self.contestant.settle)

    def tune(self, target: float, queries: int) -> dict[str, Any]:
        """Take the first knob whose recall@10 on the first queries is enough, else the last."""
        for knob in self.contestant.knobs:
            self.contestant.tune(knob)
            found = self.search(0, queries)["found"]
            got = recall(found, self.corpus.truth_QK[:queries])
            if got >= target:
                break
        return {"knob": str(knob), "recall": got}

    def search(self, start: int, count: int, field: str | None = None) -> dict[str, Any]:
        """Ask queries one by one; return the answers and the seconds of each.

        A `field` restricts each query to a value of it.
        """
        found, took = [], []
        for at in range(start, start + count):
            vector_M = self.corpus.queries_QM[at]
            restricted = (only(at, field),) if field else ()
            begun = time.perf_counter()
            answer = self.contestant.search(vector_M, *restricted)
            took.append(time.perf_counter() - begun)
            found.append([int(id) for id in answer])
        return {"found": found, "took": took}

    def fresh(self, start: int, count: int) -> int:
        """Add items one by one; return how many are found at once by their own vectors."""
        found = 0
        for at in range(start, start + count):
            vectors_NM = self.corpus.part(at, at + 1)
            self.contestant.add([at], vectors_NM)
            found += at in self.contestant.search(vectors_NM[0])
        return found

    def delete(self, start: int, stop: int, step: int) -> float:
        """Delete the items of a range; return seconds."""
        return seconds(lambda: self.contestant.delete(range(start, stop, step)))

    def compact(self) -> float:
        """Give space back; return seconds."""
        return seconds(self.contestant.compact)

    def describe(self) -> dict[str, Any]:
        """Return what the contestant says of itself."""
        return self.contestant.describe()

    def peak(self) -> int:
        """Return the most bytes of memory that this process ever held."""
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def close(self) -> float:
        """Close the store; return seconds."""
        return seconds(self.contestant.close)


def serve(worker: Worker, requests: Iterable[str], answers: Any) -> None:
    """Answer each line in turn."""
    for line in requests:
        request = json.loads(line)
        answer = getattr(worker, request.pop("do"))(**request)
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints must not pass for an answer
    worker = Worker(sys.argv[1], int(sys.argv[2]))
    worker.corpus.queries_QM  # noqa: B018  made before anything is timed
    answers.write(json.dumps("ready") + "\n")
    answers.flush()
    serve(worker, sys.stdin, answers)


if __name__ == "__main__":
    main()
