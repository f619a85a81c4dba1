"""What a training step costs in memory and time: a loss in chunks, GradCache, states made again.

Peak memory is the process's own resident peak (VmHWM, set back before each measurement) above what
it held before. N pairs, M embedding width.
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.common import memory
from triptych.encoders.towers.transformer import Transformer, TransformerConfig
from triptych.training.gradcache import Tower, TowerOutput, backward
from triptych.training.losses import cross_modal, joint, sigmoid

T = TypeVar("T")

PAIRS, WIDTH, ROWS = 4096, 512, 256
DEPTH, HIDDEN, MICRO = 8, 1024, 256  # of the tower that GradCache is measured with
TEXTS, TOKENS = 128, 32


def main() -> None:
    torch.set_num_threads(1)
    found = compare("info_nce")
    if "--json" in sys.argv:
        print(json.dumps(found))
        return
    print(f"{PAIRS:,} pairs x {WIDTH}, forward and backward, chunks of {ROWS}, one thread")
    print(f"{'':12}{'whole MB':>10}{'chunks MB':>11}{'share':>8}{'difference':>12}{'time':>7}")
    for form in FORMS:
        row = found if form == "info_nce" else compare(form)
        cells = f"{row['whole'] / 1e6:10.0f}{row['chunked'] / 1e6:11.0f}{row['share']:8.2f}"
        print(f"{form:12}{cells}{row['difference']:12.1e}{row['time']:6.1f}x", flush=True)
    gradcache()
    checkpointing()


def compare(form: str) -> dict[str, float]:
    """Peak bytes of the whole loss and of the chunked one, and how much their gradients differ."""
    torch.manual_seed(0)
    inputs = [functional.normalize(torch.randn(PAIRS, WIDTH), dim=-1) for _ in range(2)]
    small = [tensor[:ROWS] for tensor in inputs]
    for rows in (None, ROWS // 2):
        _gradients(form, small, rows=rows)  # what torch sets up once is nobody's peak
    times, peaks, grads = [], [], []
    for rows in (ROWS, None):
        start = time.process_time()
        peak, found = peak_bytes(lambda rows=rows: _gradients(form, inputs, rows=rows))
        times.append(time.process_time() - start)
        peaks.append(peak)
        grads.append(found)
    worst = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(*grads, strict=True))
    return {
        "whole": peaks[1],
        "chunked": peaks[0],
        "share": peaks[0] / peaks[1],
        "difference": worst,
        "time": times[0] / times[1],
    }


def _gradients(form: str, inputs: list[Tensor], *, rows: int | None) -> list[Tensor]:
    leaves = [tensor.clone().requires_grad_() for tensor in inputs]
    loss = FORMS[form](*leaves, rows)
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


def _info_nce(pictures_NM: Tensor, texts_NM: Tensor, rows: int | None) -> Tensor:
    group_N = torch.arange(len(pictures_NM))
    scale = torch.tensor(20.0)
    return cross_modal(
        pictures_NM, texts_NM, group_I=group_N, group_T=group_N, scale=scale, rows=rows
    )


def _joint(pictures_NM: Tensor, texts_NM: Tensor, rows: int | None) -> Tensor:
    group_N = torch.arange(len(pictures_NM) // 2).repeat(2)
    half = len(group_N) // 2
    all_NM = torch.cat([pictures_NM[:half], texts_NM[:half]])
    return joint(all_NM, group_N=group_N, scale=torch.tensor(20.0), rows=rows)


def _sigmoid(pictures_NM: Tensor, texts_NM: Tensor, rows: int | None) -> Tensor:
    group_N = torch.arange(len(pictures_NM))
    scale, bias = torch.tensor(10.0), torch.tensor(-10.0)
    return sigmoid(
        pictures_NM, texts_NM, group_I=group_N, group_T=group_N, scale=scale, bias=bias, rows=rows
    )


FORMS: dict[str, Callable[[Tensor, Tensor, int | None], Tensor]] = {
    "info_nce": _info_nce,
    "sigmoid": _sigmoid,
    "joint": _joint,
}


def gradcache() -> None:
    """The same for two towers of linear layers, in one pass and in micro-batches."""
    torch.manual_seed(0)
    towers = [_tower(), _tower()]
    inputs = [torch.randn(PAIRS, WIDTH) for _ in towers]

    def step(micro: int, rows: int | None) -> None:
        for tower in towers:
            tower.zero_grad()
        sides = [_side(t, x, micro=micro) for t, x in zip(towers, inputs, strict=True)]
        backward(sides, lambda p, t: _info_nce(p, t, rows))

    print(f"\nGradCache, two towers of {DEPTH} layers, {PAIRS:,} pairs")
    rows: list[tuple[str, int, int | None]] = [
        ("one pass", PAIRS, None),
        (f"micro-batches of {MICRO}", MICRO, None),
        ("... and the loss in chunks", MICRO, ROWS),
    ]
    step(MICRO, ROWS)
    for name, micro, chunk in rows:
        start = time.process_time()
        peak, _ = peak_bytes(lambda m=micro, c=chunk: step(m, c))
        print(f"  {name:28}{peak / 1e6:7.0f} MB{time.process_time() - start:7.1f} s of a core")


def checkpointing() -> None:
    """A step of the text tower with the states of its blocks kept, and made again."""
    print(f"\nThe text tower, {TEXTS} texts of {TOKENS} pieces")
    ids_BT = torch.randint(0, 1000, (TEXTS, TOKENS))
    for name, again in (("states kept", False), ("made again on the way back", True)):
        torch.manual_seed(0)
        tower = Transformer(TransformerConfig(vocabulary=1000, checkpoint=again))
        mask_BT = torch.ones_like(ids_BT, dtype=torch.bool)
        tower(ids_BT[:1], mask_BT[:1]).sum().backward()
        start = time.process_time()
        peak, _ = peak_bytes(lambda t=tower, m=mask_BT: t(ids_BT, m).square().mean().backward())
        print(f"  {name:28}{peak / 1e6:7.0f} MB{time.process_time() - start:7.1f} s of a core")


def _tower() -> nn.Module:
    layers: list[nn.Module] = []
    for _ in range(DEPTH // 2):
        layers += [nn.Linear(WIDTH, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, WIDTH)]
    return nn.Sequential(*layers)


def _side(tower: nn.Module, inputs_NM: Tensor, *, micro: int) -> Tower:
    def forward(start: int, stop: int) -> TowerOutput:
        return TowerOutput(functional.normalize(tower(inputs_NM[start:stop]), dim=-1))

    return Tower(forward=forward, size=len(inputs_NM), micro=micro)


def peak_bytes(work: Callable[[], T]) -> tuple[int, T]:
    """How far this process's resident memory rises above where it stands, and the call's result."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # what was freed and kept would hide a part of the peak
    Path("/proc/self/clear_refs").write_text("5")  # proc(5): the peak starts anew
    before = memory()
    result = work()
    return memory("VmHWM") - before, result


if __name__ == "__main__":
    main()
