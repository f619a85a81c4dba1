"""What a run says: lines of JSON, TensorBoard, a progress bar, and curves at the end.

Steps that are told twice (an interrupted run) stand twice in the log; the later one counts.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tensorboardX import SummaryWriter
from tqdm import tqdm

LOG = logging.getLogger(__name__)
LINES, FIGURES = "log.jsonl", "figures.jsonl"
_NAMED = ("emoji.en@1", "emoji.zh@1", "emoji.de@1", "emoji.hi@1", "fashion@10")


class RunLog:
    """The log of one stage, in its folder."""

    def __init__(self, folder: Path, *, steps: int, done: int) -> None:
        self._folder = folder
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=done)
        self._bar = tqdm(total=steps, initial=done, desc=folder.name, unit="step", disable=None)

    def step(self, step: int, record: Mapping[str, object] | None) -> None:
        """Move the bar; write the record where there is one."""
        self._bar.update(step - self._bar.n)
        if record is not None:
            self._write(LINES, "train", {"step": step, **record})

    def figures(self, step: int, figures: Mapping[str, float]) -> None:
        """Write what was measured on dev."""
        self._write(FIGURES, "dev", {"step": step, **figures})
        LOG.info("step %d on dev: %s", step, dict(figures))

    def _write(self, name: str, group: str, record: Mapping[str, object]) -> None:
        with (self._folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        for key, value in record.items():
            if isinstance(value, int | float) and key != "step":
                self._writer.add_scalar(
                    f"{group}/{key.replace('@', '_at_')}", value, int(str(record["step"]))
                )

    def close(self) -> None:
        self._writer.close()
        self._bar.close()


def read_log(path: Path) -> list[dict[str, object]]:
    """Return the records in the order of their steps, each step once.

    A line that is no record is passed over: a power cut or a full disk tore it, and the run that
    went on since would end without its curves.
    """
    if not path.exists():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        with suppress(ValueError):
            records.append(json.loads(line))
    return [by_step for _, by_step in sorted({r["step"]: r for r in records}.items())]


def draw_curves(folder: Path, picture: Path) -> None:
    """Draw the loss of every set, the four terms, the experts and the figures on dev as one PNG."""
    lines, figures = read_log(folder / LINES), read_log(folder / FIGURES)
    canvas = Figure(figsize=(13, 8), layout="constrained")
    axes = canvas.subplots(2, 2)
    for each in (axes[0, 0], axes[1, 1]):
        each.set_prop_cycle(color=colormaps["tab20"](range(20)))  # eleven sets, as many figures
    for name in sorted({str(line["set"]) for line in lines}):
        some = [line for line in lines if line["set"] == name]
        _draw(axes[0, 0], some, "loss", name, ".-")
    axes[0, 0].set_title("loss of one batch, by set")
    for name in ("contrastive", "classification", "sparsity", "regularisation"):
        _draw(axes[0, 1], lines, name, name)
    axes[0, 1].set(title="the four terms, unweighted", yscale="log")
    _draw(axes[1, 0], lines, "num_active", "active experts")
    axes[1, 0].set_title("mean number of active experts")
    for name in sorted({key for record in figures for key in record} - {"step"}):
        if name.endswith(("t2i@1", "t2i@10", "i2t@1")) or name in _NAMED:
            _draw(axes[1, 1], figures, name, name, "o-")
    axes[1, 1].set_title("on dev, percent")
    for each in axes.flat:
        each.set_xlabel("step")
        if each.lines:
            each.legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))  # beside the lines
        else:
            each.set_axis_off()
            each.set_title("")
    canvas.savefig(picture, dpi=110)


def _draw(
    axis: Axes, records: list[dict[str, object]], name: str, label: str, form: str = "-"
) -> None:
    """Draw what the records have of a name, if it is anything."""
    some = [record for record in records if name in record]
    if some:
        steps = [int(str(record["step"])) for record in some]
        values = [float(str(record[name])) for record in some]
        axis.plot(steps, values, form, label=label, linewidth=0.8)
