"""The layer in torch: routing's share, the roofline, growth with the number of experts.

All on one thread, in its own CPU time: other processes of this machine do not count, though they
do slow its memory. What is compared takes turns, and a round's ratio is taken within the round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import count
from typing import NamedTuple

import numpy as np
import torch
from onnx import TensorProto, helper
from torch import Tensor

from benchmarks.common import median_ratio
from triptych.encoders.runtime import onnxruntime
from triptych.moe.experts import product_by_onednn
from triptych.moe.layer import MoE, MoEConfig
from triptych.moe.serving import write_moe
from triptych.training.export.graph import Graph

CONFIG = MoEConfig(width=512, hidden=256)
SIZES = (1, 16, 64, 1024)
COPIES = 3  # of the weights, used in turn


def cpu_seconds(work: Callable[[], object]) -> float:
    """Return the CPU time of one call, on this thread."""
    start = time.thread_time()
    work()
    return time.thread_time() - start


def batch(num: int, width: int = 512) -> tuple[Tensor, Tensor]:
    return torch.randn(1, num, width), torch.ones(1, num, dtype=torch.bool)


def session_of(moe: MoE, *, quantised: bool) -> onnxruntime.InferenceSession:
    """The layer as it is served, routing and all."""
    graph = Graph(quantised=quantised)
    shape = ["b", "t", moe.config.width]
    inputs = [
        helper.make_tensor_value_info("tokens", TensorProto.FLOAT, shape),
        helper.make_tensor_value_info("mask", TensorProto.BOOL, shape[:2]),
    ]
    output = write_moe(graph, moe.weights(), tokens="tokens", mask="mask").tokens
    model = graph.model(inputs=inputs, outputs={"made": (output, shape)})
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(model.SerializeToString(), options)


@torch.inference_mode()
def routing_share() -> None:
    moe = MoE(CONFIG).eval()
    for num in (64, 1024):
        tokens_BTD, mask_BT = batch(num)
        shares, layers = [], []
        for _ in range(15):
            routing = cpu_seconds(lambda: moe.router(tokens_BTD[0]))  # noqa: B023
            layers.append(cpu_seconds(lambda: moe(tokens_BTD, mask_BT)))  # noqa: B023
            shares.append(routing / layers[-1])
        print(
            f"{num:5} tokens: layer {1e3 * statistics.median(layers):6.2f} ms, "
            f"routing {statistics.median(shares):5.1%} of it"
        )


class Machine:
    """What a round of this machine could reach, measured beside the contestants."""

    def __init__(self, *, megabytes: int = 256) -> None:
        self.buffer = torch.randn(megabytes * 2**18)
        self.square = torch.randn(1024, 1024)
        self.read = self.rate = self.onednn_rate = 0.0

    def measure(self) -> None:
        self.read = self.buffer.nbytes / cpu_seconds(self.buffer.sum)
        self.rate = 2 * 1024**3 / cpu_seconds(lambda: self.square @ self.square)
        by_onednn = cpu_seconds(lambda: product_by_onednn(self.square, self.square))
        self.onednn_rate = 2 * 1024**3 / by_onednn

    def evict(self) -> None:
        self.buffer.sum()

    def roofs(self, moe: MoE, load_E: Tensor) -> tuple[float, float]:
        """Seconds: the greater of the active products and the bytes of the experts hit.

        The products at the rate of torch's own, then of oneDNN's, which the loop is made of.
        """
        weights = 2 * moe.config.width * moe.config.hidden
        bytes_hit = float((load_E > 0).sum()) * weights * 4
        products = 2 * float(load_E.sum()) * weights
        reading = bytes_hit / self.read
        return max(reading, products / self.rate), max(reading, products / self.onednn_rate)


def read_once(moe: MoE, load_E: Tensor) -> None:
    """Nothing but the sum of the very weights that a call needs."""
    for at in load_E.nonzero().squeeze(1).tolist():
        moe.experts.widen_EDH[at].sum()
        moe.experts.narrow_EHD[at].sum()


Run = Callable[[int, Tensor, Tensor], object]


def contestants() -> tuple[list[MoE], dict[str, Run]]:
    """The copies, and forms that take (copy, tokens, mask)."""
    copies = [MoE(CONFIG).eval() for _ in range(COPIES)]

    def layer(form: str) -> Run:
        alike = [MoE(replace(CONFIG, form=form)).eval() for _ in range(COPIES)]  # type: ignore[arg-type]
        for one, other in zip(alike, copies, strict=True):
            one.router, one.experts.widen_EDH = other.router, other.experts.widen_EDH
            one.experts.narrow_EHD = other.experts.narrow_EHD
        return lambda at, tokens_BTD, mask_BT: alike[at](tokens_BTD, mask_BT)

    def served(quantised: bool) -> Run:
        sessions = [session_of(moe, quantised=quantised) for moe in copies]

        def run(at: int, tokens_BTD: Tensor, mask_BT: Tensor) -> object:
            feed = {"tokens": tokens_BTD.numpy(), "mask": mask_BT.numpy()}
            return sessions[at].run(None, feed)

        return run

    forms = {
        f"layer, {form}": layer(form) for form in ("auto", "grouped", "streamed", "loop", "dense")
    }
    forms |= {"served, float32": served(False), "served, 8 bit": served(True)}
    return copies, forms


def experts_alone(copies: list[MoE]) -> tuple[Run, Callable[[int, Tensor], None]]:
    """The experts with the routing given beforehand."""
    given: list[dict[str, Tensor]] = [{}]

    def prepare(at: int, tokens_ND: Tensor) -> None:
        found = copies[at].router(tokens_ND)._asdict()
        given[0] = {name: found[name] for name in ("ids_NK", "gates_NK", "chosen_NK")}

    return lambda at, tokens_BTD, _: copies[at].experts(tokens_BTD[0], **given[0]), prepare


class Times(NamedTuple):
    """A contestant's rounds: seconds, and how many times a bound."""

    seconds: list[float]
    of_roof: list[float]
    of_onednn_roof: list[float]
    of_reading: list[float]


@torch.inference_mode()
def roofline() -> None:
    torch.manual_seed(0)
    copies, forms = contestants()
    forms["experts alone, auto"], prepare = experts_alone(copies)
    machine, turn = Machine(), count()
    for num in SIZES:
        times = {name: Times([], [], [], []) for name in forms}
        for _ in range(60 if num == 1 else 25 if num < 1024 else 9):
            machine.measure()
            at, (tokens_BTD, mask_BT) = next(turn) % COPIES, batch(num)
            other, warm = (at + 1) % COPIES, batch(1)
            load_E = copies[at].router(tokens_BTD[0]).load_E
            roofs = machine.roofs(copies[at], load_E)
            machine.evict()
            read_once(copies[other], torch.ones(2))  # not the code
            reading = cpu_seconds(lambda: read_once(copies[at], load_E))  # noqa: B023
            for name, run in forms.items():
                if name == "layer, dense" and num > 1:
                    continue
                machine.evict()
                for _ in range(2):  # so that only the weights are cold, not the code
                    prepare(other, warm[0][0])
                    run(other, *warm)
                prepare(at, tokens_BTD[0])
                taken = cpu_seconds(lambda: run(at, tokens_BTD, mask_BT))  # noqa: B023
                bounds = (1.0, *roofs, reading)
                for found, bound in zip(times[name], bounds, strict=True):
                    found.append(taken / bound)
        _report(num, times, machine)


def _report(num: int, times: dict[str, Times], machine: Machine) -> None:
    print(
        f"{num} tokens; last round {machine.read / 1e9:.0f} GB/s, {machine.rate / 1e9:.0f} GFLOP/s,"
        f" by oneDNN {machine.onednn_rate / 1e9:.0f}"
    )
    for name, found in times.items():
        if found.seconds:
            taken, *ratios = (statistics.median(values) for values in found)
            print(
                f"  {name:20} {1e3 * taken:8.2f} ms, {ratios[0]:5.2f} x the roofline, "
                f"{ratios[1]:5.2f} x with oneDNN's products, {ratios[2]:5.2f} x one reading"
            )
    dense, chosen = times["layer, dense"].seconds, times["layer, auto"].seconds
    if dense:
        ratio = median_ratio(dense, chosen)
        print(f"  all 128 experts take {ratio:.0f} times as long as the chosen")


@torch.inference_mode()
def sweep() -> None:
    tokens_BTD, mask_BT = batch(64, 128)
    layers = dict(_sizes())
    times: dict[int, list[float]] = {num: [] for num in layers}
    for _ in range(15):
        for num, moe in layers.items():
            times[num].append(cpu_seconds(lambda: moe(tokens_BTD, mask_BT)))  # noqa: B023
    for num, moe in layers.items():
        total = sum(weight.numel() for weight in moe.parameters())
        active = num * 128 + float(moe(tokens_BTD, mask_BT).num_active) * 2 * 128 * 64
        print(
            f"{num:5} experts: {statistics.median(times[num]) * 1e3:6.2f} ms for 64 tokens, "
            f"{total / 1e6:6.2f} M parameters, {active / total:6.1%} of them used by a token"
        )
    growth = np.median(np.divide(times[1024], times[8]))
    print(f"  128 times the experts: {growth:.1f} times as long")


def _sizes() -> Iterator[tuple[int, MoE]]:
    for num in (8, 16, 32, 64, 128, 256, 512, 1024):
        torch.manual_seed(num)
        moe = MoE(MoEConfig(width=128, hidden=64, num_experts=num, balance_rate=0.0)).eval()
        for _ in range(100):  # hold 3.2 for this number of experts
            out = moe(*batch(512, 128))
            moe.adapt(out.load_E, float(out.num_active))
        yield num, moe
