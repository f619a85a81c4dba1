"""A table in four bits."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from triptych.encoders.runtime import onnxruntime
from triptych.training.export.graph import Graph
from triptych.training.export.nibbles import BLOCK, in_nibbles, of_nibbles


def table(rows: int = 50, *, width: int = 96) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(rows, width)).astype(np.float32)


def test_a_number_is_kept_within_half_a_step() -> None:
    table_VD = table()
    pairs_VP, scale_VB = in_nibbles(table_VD)
    assert pairs_VP.shape == (50, 48) and scale_VB.shape == (50, 96 // BLOCK)
    off_VBK = np.abs(of_nibbles(pairs_VP, scale_VB) - table_VD).reshape(50, -1, BLOCK)
    inside_VBK = np.abs(table_VD).reshape(50, -1, BLOCK) <= 7.5 * scale_VB[:, :, None]
    half_VB1 = scale_VB[:, :, None].astype(np.float32) / 2
    assert (
        off_VBK[inside_VBK] <= np.broadcast_to(half_VB1, off_VBK.shape)[inside_VBK] + 1e-6
    ).all()
    assert inside_VBK.mean() > 0.97


def test_the_scale_loses_less_than_the_widest_would() -> None:
    table_VD = table()
    widest_VB1 = np.abs(table_VD.reshape(50, -1, BLOCK)).max(axis=2, keepdims=True) / 7
    plain_VD = (np.rint(table_VD.reshape(50, -1, BLOCK) / widest_VB1) * widest_VB1).reshape(50, 96)
    ours = np.square(of_nibbles(*in_nibbles(table_VD)) - table_VD).mean()
    assert ours < np.square(plain_VD - table_VD).mean()


def test_a_row_of_zeros_stays_one() -> None:
    assert not of_nibbles(*in_nibbles(np.zeros((2, 64), dtype=np.float32))).any()


def test_what_is_kept_is_kept_again() -> None:
    kept = of_nibbles(*in_nibbles(table()))
    assert of_nibbles(*in_nibbles(kept)) == pytest.approx(kept, rel=2e-3, abs=1e-6)


def test_the_runtime_reads_the_same_rows() -> None:
    table_VD, graph = table(), Graph(quantised=True)
    rows = graph.embedding("ids", table_VD=table_VD)
    ids = helper.make_tensor_value_info("ids", TensorProto.INT64, ["batch", "tokens"])
    model = graph.model(inputs=[ids], outputs={"rows": (rows, ["batch", "tokens", 96])})
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run(None, {"ids": np.array([[0, 49], [7, 7]])})
    expected = of_nibbles(*in_nibbles(table_VD))[[[0, 49], [7, 7]]]
    assert found == pytest.approx(expected, rel=1e-3, abs=1e-6)  # its product is in float16
