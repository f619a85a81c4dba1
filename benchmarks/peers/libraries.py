"""Search libraries: vectors in, positions out. Built with both cores, searched with one thread."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from benchmarks.peers.corpus import DIM, Floats, K, Positions

EFS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
LINKS, EFFORT = 32, 100  # of every graph: M and efConstruction


class Library(Protocol):
    """Built once, then asked one query at a time; `knobs` ascend in effort."""

    knobs: tuple[object, ...]

    def build(self, vectors_NM: Floats) -> None:
        """Index the vectors under 0..N-1."""

    def tune(self, knob: object) -> None:
        """Take one of `knobs` for the searches that follow."""

    def search(self, vector_M: Floats) -> Positions:
        """Return the best ten."""


class Hnswlib:
    """hnswlib as its documentation uses it."""

    knobs = EFS

    def build(self, vectors_NM: Floats) -> None:
        import hnswlib

        self._index = hnswlib.Index("ip", DIM)
        self._index.init_index(len(vectors_NM), ef_construction=EFFORT, M=LINKS)
        self._index.set_num_threads(2)
        self._index.add_items(vectors_NM)

    def tune(self, knob: int) -> None:
        self._index.set_ef(knob)

    def search(self, vector_M: Floats) -> Positions:
        return self._index.knn_query(vector_M, K, num_threads=1)[0][0]


class Usearch:
    """usearch with vectors in bfloat16, its fastest at this recall."""

    knobs = EFS

    def build(self, vectors_NM: Floats) -> None:
        from usearch.index import Index

        self._index = Index(
            ndim=DIM, metric="ip", dtype="bf16", connectivity=LINKS, expansion_add=EFFORT
        )
        self._index.add(np.arange(len(vectors_NM)), vectors_NM, threads=2)

    def tune(self, knob: int) -> None:
        self._index.expansion_search = knob

    def search(self, vector_M: Floats) -> Positions:
        return self._index.search(vector_M, K, threads=1).keys


class FaissHnsw:
    """FAISS's own graph, used bare."""

    knobs = EFS

    def build(self, vectors_NM: Floats) -> None:
        import faiss

        faiss.omp_set_num_threads(2)
        self._index = faiss.IndexHNSWFlat(DIM, LINKS, faiss.METRIC_INNER_PRODUCT)
        self._index.hnsw.efConstruction = EFFORT
        self._index.add(vectors_NM)
        faiss.omp_set_num_threads(1)

    def tune(self, knob: int) -> None:
        self._index.hnsw.efSearch = knob

    def search(self, vector_M: Floats) -> Positions:
        return self._index.search(vector_M[None], K)[1][0]
