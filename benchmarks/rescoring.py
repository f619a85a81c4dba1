"""Why 10 x limit candidates are scored exactly: recall@10 by factor, and the milliseconds of each.

100,000 vectors of low intrinsic dimension; codes decide who is a candidate, the row file
decides the order by whole vectors.
"""

from __future__ import annotations

import shutil
import statistics

import numpy as np

from benchmarks.common import WORK, seconds
from benchmarks.peers.corpus import DIM, Corpus, K, recall
from triptych.index.faiss import FaissAnn
from triptych.index.rowfile import RowFile
from triptych.index.segments import Base, Knobs, SegmentedIndex

COUNT = 100_000
ASKED = 300
FACTORS = (1, 2, 5, 10, 20)
KINDS = {"hnsw_sq8": 128, "ivf_sq8": 64, "ivf_rabitq": 128}  # efforts at which reach is no matter


def main(count: int = COUNT) -> None:
    corpus = Corpus(count)
    queries_QM, truth_QK = corpus.queries_QM[:ASKED], corpus.truth_QK[:ASKED]
    folder = WORK / "rescoring"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    parts = ((np.arange(at, at + len(some)), some) for at, some in corpus.mixture.chunks(count))
    RowFile.write(folder / "rows", parts, dim=DIM, precision="fp32")
    rows = RowFile.open(folder / "rows")
    print(
        f"{count:,} x {DIM}, limit {K}: recall@{K} (p50 ms) by candidates scored exactly, x limit"
    )
    print(f"{'':12}" + "".join(f"{'x ' + str(factor):>16}" for factor in FACTORS))
    for kind, effort in KINDS.items():
        ann = FaissAnn.build(kind, rows, threads=1, cancelled=lambda: False)
        cells = []
        for factor in FACTORS:
            base = Base(kind, rows, ann, Knobs(effort=effort, refine=factor))
            index = SegmentedIndex(DIM, base)
            found = [index.search(query_M[None], K)[0][0].tolist() for query_M in queries_QM]
            took = [
                seconds(lambda index=index, query_M=query_M: index.search(query_M[None], K))
                for query_M in queries_QM
            ]
            cells.append(f"{recall(found, truth_QK):10.3f} ({statistics.median(took) * 1e3:.2f})")
        print(f"{kind:12}" + "".join(f"{cell:>16}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()
