"""Our own side, under the same questions as the peers."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

import triptych
from benchmarks.common import WORK
from benchmarks.peers.corpus import DIM, GROUPS, Floats, K, Positions, metadata
from triptych.index.faiss import FaissAnn
from triptych.index.rowfile import RowFile
from triptych.index.segments import Base, Knobs, SegmentedIndex

MODEL = f"vectors:bench:{DIM}"
_CHUNK = 4096


class OurIndex:
    """The index of a collection: a graph over a mapped row file, every answer scored exactly."""

    knobs = (8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256)

    def build(self, vectors_NM: Floats) -> None:
        folder = WORK / "index"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        chunks = (
            (np.arange(start, start + len(some_NM)), some_NM)
            for start in range(0, len(vectors_NM), _CHUNK)
            for some_NM in [vectors_NM[start : start + _CHUNK]]
        )
        RowFile.write(folder / "rows", chunks, dim=DIM, precision="fp32")
        self._rows = RowFile.open(folder / "rows")
        self._ann = FaissAnn.build("hnsw", self._rows, threads=2, cancelled=lambda: False)

    def tune(self, knob: int) -> None:
        base = Base("hnsw", self._rows, self._ann, Knobs(effort=knob, refine=1))
        self._index = SegmentedIndex(DIM, base)

    def search(self, vector_M: Floats) -> Positions:
        return self._index.search(vector_M[None], K)[0][0]


class OurStore:
    """A collection as a caller uses it: vectors and metadata in, hits with metadata out."""

    knobs = (None,)

    def open(self, folder: Path) -> None:
        self._collection = triptych.open(folder, model=MODEL)

    def add(self, ids: Sequence[int], vectors_NM: Floats) -> None:
        self._collection.upsert(
            {"id": str(id), "vector": vector_M, "metadata": self.metadata(id)}
            for id, vector_M in zip(ids, vectors_NM, strict=True)
        )

    def settle(self) -> None:
        self._collection.optimize()

    def tune(self, knob: None) -> None:
        pass

    def search(self, vector_M: Floats, only: dict[str, int] | None = None) -> list[int]:
        return [
            int(hit.id) for hit in self._collection.search(vector=vector_M, limit=K, filter=only)
        ]

    def delete(self, ids: Sequence[int]) -> None:
        self._collection.delete(map(str, ids))

    def compact(self) -> None:
        self._collection.compact()

    def close(self) -> None:
        self._collection.close()

    def describe(self) -> dict[str, object]:
        """Return the index's kind, and the recall that was measured when it was chosen."""
        info = self._collection.info()
        return {"kind": info["index"], "recall": info.get("recall@10")}

    def metadata(self, at: int) -> dict[str, object]:
        """Return what is stored of item `at`."""
        return metadata(at)


class OurMillion(OurStore):
    """A collection that is granted little memory, with a field of 1,000 values."""

    def open(self, folder: Path) -> None:
        self._collection = triptych.open(folder, model=MODEL, recall=0.97, memory="400MB")

    def metadata(self, at: int) -> dict[str, object]:
        return {**metadata(at), "shelf": at % GROUPS["shelf"]}
