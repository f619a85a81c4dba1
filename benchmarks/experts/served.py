"""Ways to serve the experts without torch: two operators of ONNX Runtime, and a loop in numpy.

Width 384, hidden 64, 128 experts; weights of eight bits on disk, one thread. The gates are given:
what is compared is the experts. N tokens, D width, H hidden, E experts, K the cap.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks.common import WORK, memory
from benchmarks.experts.layer_time import cpu_seconds, session_of
from triptych.encoders.runtime import onnxruntime
from triptych.moe.layer import MoE, MoEConfig

CONFIG = MoEConfig(width=384, hidden=64)
SIZES = {"1": 1, "a text, 14": 14, "a picture, 49": 49, "32 texts": 448, "32 pictures": 1568}
Floats = NDArray[np.float32]


class InBytes:
    """Weights (E, outputs, inputs) in eight bits with a scale per output."""

    def __init__(self, weight_EXY: Floats) -> None:
        self.scale_EX = (np.abs(weight_EXY).max(axis=2) / 127).astype(np.float32)
        self.bytes_EXY = np.rint(weight_EXY / self.scale_EX[:, :, None]).astype(np.int8)

    def floats(self) -> Floats:
        return self.bytes_EXY * self.scale_EX[:, :, None]


def operator(kind: str, widen: InBytes, narrow: InBytes) -> bytes:
    """A graph of tokens and log gates to the experts' sum."""
    nodes, constants = [], []

    def constant(name: str, array: NDArray[Any]) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    inputs = ["tokens", "gates"]
    for name, part in (("widen", widen), ("narrow", narrow)):
        if kind == "QMoE":
            inputs.append(constant(name, (part.bytes_EXY.astype(np.int16) + 128).astype(np.uint8)))
            inputs += [constant(f"{name}_scale", part.scale_EX), ""]
        else:  # multiplied out at load
            constant(f"{name}_bytes", part.bytes_EXY)
            constant(f"{name}_scale", part.scale_EX[:, :, None])
            nodes.append(
                helper.make_node("Cast", [f"{name}_bytes"], [f"{name}_cast"], to=TensorProto.FLOAT)
            )
            nodes.append(helper.make_node("Mul", [f"{name}_cast", f"{name}_scale"], [name]))
            inputs += [name, ""]
    more = {"expert_weight_bits": 8} if kind == "QMoE" else {}
    nodes.append(
        helper.make_node(
            kind,
            inputs[:-1],
            ["out"],
            domain="com.microsoft",
            k=CONFIG.cap,
            activation_type="gelu",
            normalize_routing_weights=0,
            **more,
        )
    )
    values = [("tokens", CONFIG.width), ("gates", CONFIG.num_experts), ("out", CONFIG.width)]
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", dim]) for name, dim in values
    ]
    graph = helper.make_graph(nodes, kind, infos[:2], infos[2:], constants)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    return bytes(model.SerializeToString())


def numpy_loop(tokens_ND: Floats, gates_NE: Floats, widen: Floats, narrow: Floats) -> Floats:
    """Between two graphs: each chosen expert once, for all its tokens."""
    out_ND = np.zeros_like(tokens_ND)
    for expert in np.flatnonzero(gates_NE.any(axis=0)):
        rows = np.flatnonzero(gates_NE[:, expert])
        x = tokens_ND[rows] @ widen[expert].T
        bent = 0.5 * x * (1 + np.tanh(np.float32(0.7978845608) * (x + np.float32(0.044715) * x**3)))
        out_ND[rows] += gates_NE[rows, expert, None] * (bent @ narrow[expert].T)
    return out_ND


def open_session(model: bytes | str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    return onnxruntime.InferenceSession(model, options)


@torch.inference_mode()
def main() -> None:
    torch.manual_seed(0)
    moe = MoE(CONFIG).eval()
    weights = moe.weights()
    widen = InBytes(weights.widen_EDH.transpose(0, 2, 1))
    narrow = InBytes(weights.narrow_EHD.transpose(0, 2, 1))
    sessions = {}
    for kind in ("QMoE", "MoE"):
        data = operator(kind, widen, narrow)
        WORK.mkdir(parents=True, exist_ok=True)
        path = WORK / f"{kind}.onnx"
        path.write_bytes(data)
        sessions[kind] = open_session(data)
        print(f"{kind:8} {len(data) / 1e6:.2f} MB on disk, {_cold(path)}")
    whole = session_of(moe, quantised=True)
    floats = widen.floats(), narrow.floats()
    for name, num in SIZES.items():
        _compare(name, num, moe, sessions, floats, whole)


def _compare(
    name: str,
    num: int,
    moe: MoE,
    sessions: dict[str, onnxruntime.InferenceSession],
    floats: tuple[Floats, Floats],
    whole: onnxruntime.InferenceSession,
) -> None:
    tokens_ND = torch.randn(num, CONFIG.width)
    found = moe.router(tokens_ND)
    gates = torch.zeros(num, CONFIG.num_experts).scatter(
        1, found.ids_NK, found.gates_NK * found.chosen_NK
    )
    tokens, gates_NE = tokens_ND.numpy(), gates.numpy()
    logs_NE = gates.log().clamp_min(-1e30).numpy()
    feed = {"tokens": tokens, "gates": logs_NE}
    all_of_it = {"tokens": tokens[None], "mask": np.ones((1, num), dtype=bool)}
    work: dict[str, Callable[[], Any]] = {
        kind: (lambda session=session: session.run(None, feed)[0])
        for kind, session in sessions.items()
    }
    work["numpy loop"] = lambda: numpy_loop(tokens, gates_NE, *floats)
    work["QMoE with its routing"] = lambda: whole.run(None, all_of_it)[0]
    truth = work["numpy loop"]()
    worst = max(float(np.abs(work[kind]() - truth).max()) for kind in sessions)
    junk = torch.zeros(24 * 2**20)  # 96 MB: what a whole model's other weights do to the caches
    times: dict[str, list[list[float]]] = {kind: [[], []] for kind in work}
    for _ in range(25 if num < 400 else 7):
        for kind, run in work.items():
            junk.sum()
            times[kind][0].append(cpu_seconds(run))
            times[kind][1].append(cpu_seconds(run))
    shown = ", ".join(
        f"{kind} {1e3 * statistics.median(warm):.2f} ({1e3 * statistics.median(cold):.2f})"
        for kind, (cold, warm) in times.items()
    )
    print(f"{name:13} ms warm (weights not in cache): {shown}; they differ by {worst:.0e}")


def _cold(path: Path) -> str:
    """Open the file in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.experts.served", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def open_cold(path: str) -> None:
    before, start = memory(), time.process_time()
    session = open_session(path)
    taken = time.process_time() - start
    feed = {
        "tokens": np.zeros((14, CONFIG.width), np.float32),
        "gates": np.zeros((14, CONFIG.num_experts), np.float32),
    }
    session.run(None, feed)
    print(f"opens in {1e3 * taken:.0f} ms, {(memory() - before) / 1e6:.0f} MB resident")


if __name__ == "__main__":
    open_cold(sys.argv[1])
