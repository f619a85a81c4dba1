"""What eight bits cost the picture tower, before the biases make up for shifts and after.

The tower as MobileNet comes, in float: the shipped one is rounded already. Its graphs are computed
as they are written, by no kernel that might round otherwise. Last the shipped model's own vectors,
by this processor's kernels for eight bits: they have to agree with what is written, too.
B batch, C channels, N pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.common import DATA
from triptych.encoders.base import unit_rows
from triptych.encoders.onnx import DEFAULT_FOLDER
from triptych.encoders.runtime import onnxruntime, open_session
from triptych.encoders.towers.mobilenet import MobileNet
from triptych.model import JointModel
from triptych.pairs import Row
from triptych.training.data import picture_sets, read_rows
from triptych.training.export import rounding
from triptych.training.export.picture import picture_model
from triptych.training.features import pixel_batches
from triptych.training.recipes import DUAL
from triptych.types import Matrix

FITTED, JUDGED = 8, 10  # pictures of each set


def main() -> None:
    fitted, judged = _pixels("train", each=FITTED), _pixels("dev", each=JUDGED)
    trunk = MobileNet.read(DATA / "mobilenet_edgetpu.safetensors").eval()
    full = rounding.measured(trunk, fitted)
    exact_NC = _features(trunk, judged, to=None)
    print(f"1 - cosine, {len(exact_NC)} dev pictures: mean and greatest")
    for name, to in (
        ("its own biases", replace(full, biases={})),
        ("corrected biases", full),
    ):
        _print(name, _features(trunk, judged, to=to), exact_NC)
    shipped = DEFAULT_FOLDER / "image.onnx"
    served = _outputs(open_session(shipped, threads=1), judged, "vectors")
    _print("shipped, as it runs", served, _run(shipped, judged, "vectors"))


def _print(name: str, found_NC: Matrix, exact_NC: Matrix) -> None:
    off_N = 1 - (unit_rows(found_NC) * unit_rows(exact_NC)).sum(axis=1)
    print(f"  {name:20}{off_N.mean():10.4f}{off_N.max():10.4f}", flush=True)


def _features(
    trunk: MobileNet, pixels: Sequence[Tensor], *, to: rounding.Rounding | None
) -> Matrix:
    """Return the mean of the last map of each picture."""
    graph = picture_model(JointModel(DUAL, picture=trunk), rounding=to)
    return _run(graph.SerializeToString(), pixels, "read").mean(axis=1)


def _run(graph: bytes | Path, pixels: Sequence[Tensor], output: str) -> NDArray[np.float32]:
    """Return what the graph gives, computed as it is written."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        graph if isinstance(graph, bytes) else str(graph),
        options,
        providers=["CPUExecutionProvider"],
    )
    return _outputs(session, pixels, output)


def _outputs(session: Any, pixels: Sequence[Tensor], output: str) -> NDArray[np.float32]:
    return np.concatenate([session.run([output], {"pictures": _bytes(one)})[0] for one in pixels])


def _bytes(pixels_BCHW: Tensor) -> NDArray[np.uint8]:
    bytes_BHWC = ((pixels_BCHW + 1) * 127.5).round().permute(0, 2, 3, 1)
    return bytes_BHWC.numpy().astype(np.uint8)


def _pixels(split: str, *, each: int) -> list[Tensor]:
    """Return batches of pictures in -1..1, some of every set."""
    rows: list[Row] = []
    for path in picture_sets(DATA).values():
        found = read_rows(path, splits=[split])
        rows += found[:: max(len(found) // each, 1)][:each]
    return list(pixel_batches(rows))


if __name__ == "__main__":
    main()
