"""A small writer of ONNX graphs: nodes in order, constants, and weights in eight or four bits.

The graphs are written by hand, not traced: so each operator is chosen, and none quantises a whole
batch with one scale, which would let a neighbour change a vector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from triptych.moe.serving import ONNX_RUNTIME
from triptych.training.export.nibbles import BLOCK, in_nibbles

OPSET = 21


class Graph:
    """Collects nodes; every method returns the name of its output."""

    def __init__(self, *, quantised: bool) -> None:
        self.quantised = quantised
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output."""
        return self.split(kind, *inputs, outputs=1, **attributes)[0]

    def split(self, kind: str, *inputs: str, outputs: int, **attributes: Any) -> list[str]:
        """Add a node with several outputs."""
        names = [f"{kind}_{len(self._nodes)}_{i}" for i in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, **attributes))
        return names

    def constant(self, array: NDArray[Any]) -> str:
        """Store an array."""
        name = f"constant_{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def number(self, value: float) -> str:
        return self.constant(np.asarray(value, dtype=np.float32))

    def linear(
        self, x: str, *, weight_NK: NDArray[np.float32], bias_N: NDArray[np.float32] | None = None
    ) -> str:
        """x @ weight.T + bias; a quantised weight takes eight bits, `x` stays float."""
        if self.quantised:
            weight_KN = self._weight_in_bytes(weight_NK)
        else:
            weight_KN = self.constant(weight_NK.T)
        y = self.op("MatMul", x, weight_KN)
        return y if bias_N is None else self.op("Add", y, self.constant(bias_N))

    def _weight_in_bytes(self, weight_NK: NDArray[np.float32]) -> str:
        """Return weight_KN, stored in eight bits with a scale per output.

        ONNX Runtime multiplies it out once, at load; two operators, for each one more would hold
        a copy of all weights meanwhile. Its own operator for such weights (MatMulNBits) is faster,
        but rounds activations too: then a difference of 1e-7 grows into whole steps, and a text
        embeds differently on another kernel (cosine 0.999).
        """
        scale_1N = np.maximum(np.abs(weight_NK).max(axis=1)[None] / 127, 1e-12).astype(np.float32)
        bytes_KN = np.rint(weight_NK.T / scale_1N).astype(np.int8)
        floats = self.op("Cast", self.constant(bytes_KN), to=TensorProto.FLOAT)
        return self.op("Mul", floats, self.constant(scale_1N))

    def table(self, table_VD: NDArray[np.float32]) -> str:
        """A whole table; in eight bits with a scale per row."""
        if not self.quantised:
            return self.constant(table_VD)
        bytes_VD, scale_V1 = _rows_in_bytes(table_VD)
        floats = self.op("Cast", self.constant(bytes_VD), to=TensorProto.FLOAT)
        return self.op("Mul", floats, self.constant(scale_V1))

    def embedding(self, ids: str, *, table_VD: NDArray[np.float32]) -> str:
        """Rows of a table; in four bits with a scale for each BLOCK of a row."""
        if not self.quantised:
            return self.op("Gather", self.constant(table_VD), ids)
        pairs_VP, scale_VB = in_nibbles(table_VD)
        rows = self.op(
            "GatherBlockQuantized",
            self.constant(pairs_VP),
            ids,
            self.constant(scale_VB),
            domain=ONNX_RUNTIME,
            bits=4,
            block_size=BLOCK,
            gather_axis=0,
            quantize_axis=1,
        )
        return self.op("Cast", rows, to=TensorProto.FLOAT)

    def norm(
        self, x: str, *, weight_D: NDArray[np.float32], bias_D: NDArray[np.float32], epsilon: float
    ) -> str:
        return self.op(
            "LayerNormalization",
            x,
            self.constant(weight_D),
            self.constant(bias_D),
            axis=-1,
            epsilon=epsilon,
        )

    def unit(self, x: str) -> str:
        """Rows scaled to unit length."""
        return self.op(
            "Div", x, self.op("ReduceL2", x, self.constant(np.asarray([-1])), keepdims=1)
        )

    def model(
        self,
        *,
        inputs: list[onnx.ValueInfoProto],
        outputs: Mapping[str, tuple[str, Sequence[str | int]]],
    ) -> onnx.ModelProto:
        """The finished model; `outputs` gives each a name, what it is, and its shape."""
        infos = []
        for name, (tensor, shape) in outputs.items():
            self._nodes.append(helper.make_node("Identity", [tensor], [name]))
            infos.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        graph = helper.make_graph(self._nodes, "triptych", inputs, infos, self._constants)
        domains = [helper.make_opsetid("", OPSET), helper.make_opsetid(ONNX_RUNTIME, 1)]
        return helper.make_model(
            graph, opset_imports=domains, ir_version=10, producer_name="triptych"
        )


def _rows_in_bytes(
    table_VD: NDArray[np.float32],
) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    scale_V1 = np.maximum(np.abs(table_VD).max(axis=1, keepdims=True) / 127, 1e-12)
    scale_V1 = scale_V1.astype(np.float32)
    return np.rint(table_VD / scale_V1).astype(np.int8), scale_V1
