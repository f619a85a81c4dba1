"""The table of the rungs, and the seeds' claims beside what was found."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from benchmarks.common import alternate
from benchmarks.ladder.features import CHANNELS, PLACES, WIDTH
from benchmarks.ladder.model import ASIDE, EXPERTS, RUNGS, Ladder, Rung
from triptych.encoders.towers.states import TokenStates

Record = Mapping[str, Any]
RECALLS = ("t2i@1", "t2i@10", "i2t@1", "i2t@10", "first_caption@1", "rerank@1")
TOKENS, FIRST, ROUNDS = 14, 50, 30
REACHED = 0.9  # of the dual tower's last recall@10: the fixed recall whose step is asked for


def report(records: Sequence[Record]) -> str:
    """Return everything as text; rungs without a run are left out."""
    rungs = (*RUNGS, *ASIDE)
    runs = {rung.name: [r for r in records if r["rung"] == rung.name] for rung in rungs}
    there = [rung for rung in rungs if runs[rung.name]]
    if not there:
        return "No run yet."
    parts = [_recalls(there, runs), _costs(there, runs), _convergence(there, runs)]
    return "\n\n".join([*parts, _claims(runs)])


def _recalls(rungs: Sequence[Rung], runs: Mapping[str, Sequence[Record]]) -> str:
    some = runs[rungs[0].name][0]
    head = (
        f"Flickr8k dev, percent, mean and standard deviation over seeds; {some['steps']} steps of "
        f"{some['batch']} pairs each\n"
        f"{'':26}{'words to picture':^20}{'picture to words':^20}{'first captions':^24}\n"
        f"{'':23}seeds{'@1':>9}{'@10':>10}{'@1':>10}{'@10':>10}{'@1':>10}{'reranked @1':>14}"
    )
    lines = []
    for rung in rungs:
        cells = [_mean_and_spread(runs[rung.name], key) for key in RECALLS]
        lines.append(f"{rung.name:26}{len(runs[rung.name]):2}" + "".join(f"{c:>11}" for c in cells))
    return "\n".join([head, *lines])


def _mean_and_spread(records: Sequence[Record], key: str) -> str:
    values = [r[key] for r in records if key in r]
    if not values:
        return "-"
    spread = f"±{statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread}"


def _costs(rungs: Sequence[Rung], runs: Mapping[str, Sequence[Record]]) -> str:
    head = (
        f"Behind the frozen towers, one thread, medians of {ROUNDS} rounds in turns\n"
        f"{'':26}{'parameters':>12}{'active':>10}{'MB':>7}{'a text ms':>11}{'a picture ms':>14}"
        f"{f'rerank {FIRST} ms':>14}{'training s':>12}"
    )
    times = _times(rungs)
    lines = []
    for rung in rungs:
        total, active, size = weigh(rung, runs[rung.name])
        text, picture, rerank = (
            times.get((rung.name, what)) for what in ("text", "picture", "pair")
        )
        trained = statistics.mean(r["training_cpu_s"] for r in runs[rung.name])
        pair = "-" if rerank is None else f"{rerank:.1f}"
        lines.append(
            f"{rung.name:26}{total:12,}{active:10,}{size / 1e6:7.1f}{text:11.2f}{picture:14.2f}"
            f"{pair:>14}{trained:12.0f}"
        )
    return "\n".join([head, *lines])


def weigh(rung: Rung, records: Sequence[Record]) -> tuple[int, int, int]:
    """Return the parameters behind an embedding, those that a token meets, and bytes in float32.

    A masked matrix is counted as its active numbers and a bit for every place.
    """
    model = Ladder(rung)
    own = model.embedding_parameters()
    masked = {name for layer in model.layers().values() for name in layer} if rung.sparse else set()
    used = statistics.mean(r["num_active"] for r in records) / EXPERTS if rung.experts else 1.0
    total = active = size = 0.0
    for name, parameter in own.items():
        density = _density(name, records) if name in masked else 1.0
        kept = parameter.numel() * density
        total += parameter.numel()
        active += kept * (used if "experts" in name else 1.0)
        size += 4 * kept + (parameter.numel() / 8 if name in masked else 0.0)
    return round(total), round(active), round(size)


def _density(name: str, records: Sequence[Record]) -> float:
    """Of one tensor; runs in which all are alike say that of the whole."""
    return statistics.mean(r.get("densities", {}).get(name, r["density"]) for r in records)


def _times(rungs: Sequence[Rung]) -> dict[tuple[str, str], float]:
    """Milliseconds of one text, one picture, one query's candidates; weights do not matter."""
    torch.manual_seed(0)
    words_BTD, mask_BT = torch.randn(1, TOKENS, WIDTH), torch.ones(1, TOKENS, dtype=torch.bool)
    places_BPC = torch.randn(1, PLACES, CHANNELS)
    contestants: dict[tuple[str, str], Callable[[], object]] = {}
    for rung in rungs:
        model = Ladder(rung).eval()
        contestants[rung.name, "text"] = lambda m=model: m.text(words_BTD, mask_BT)
        contestants[rung.name, "picture"] = lambda m=model: m.picture(places_BPC)
        if rung.cross:
            text = model.text(words_BTD, mask_BT).states
            places = model.picture(places_BPC.expand(FIRST, -1, -1)).states
            text, places = (TokenStates(s.tokens_BTD.detach(), s.mask_BT) for s in (text, places))
            contestants[rung.name, "pair"] = lambda m=model, t=text, p=places: m.scorer(t, p)
    with torch.inference_mode():
        found = alternate(contestants, rounds=ROUNDS)  # type: ignore[arg-type]
    return {name: 1e3 * statistics.median(times) for name, times in found.items()}  # type: ignore[misc]


def _convergence(rungs: Sequence[Rung], runs: Mapping[str, Sequence[Record]]) -> str:
    target = _target(runs)
    head = (
        f"Steps to recall@10 of {target:.1f} (of {REACHED:.0%} of the dual tower's last), and the "
        f"mean norm of each layer's gradient\n{'':26}{'steps':>11}"
        f"{'enter':>9}{'middle':>9}{'pool':>9}"
    )
    lines = []
    for rung in rungs:
        steps = [reached(r["curve"], target) for r in runs[rung.name]]
        said = "never" if None in steps else f"{statistics.mean(s for s in steps if s):.0f}"
        norms = [
            statistics.mean(g[layer] for r in runs[rung.name] for g in r["gradients"])
            for layer in ("enter", "middle", "pool")
        ]
        lines.append(f"{rung.name:26}{said:>11}" + "".join(f"{norm:9.2f}" for norm in norms))
    return "\n".join([head, *lines])


def _target(runs: Mapping[str, Sequence[Record]]) -> float:
    return REACHED * statistics.mean(r["curve"][-1][1] for r in runs[RUNGS[0].name])


def reached(curve: Sequence[Sequence[float]], target: float) -> float | None:
    """Return the step at which a curve of (step, recall) first reaches `target`, interpolated."""
    before = (0.0, 0.0)
    for step, value in curve:
        if value >= target:
            return before[0] + (step - before[0]) * (target - before[1]) / (value - before[1])
        before = (step, value)
    return None


def _claims(runs: Mapping[str, Sequence[Record]]) -> str:
    dual, *_, moe, sparse = (runs[rung.name] for rung in RUNGS)
    alike, *hubs = (runs[rung.name] for rung in ASIDE)
    lines = ["Claimed or asked for, and found (same seed against same seed, mean and spread)"]

    def line(what: str, asked: str, found: str) -> None:
        lines.append(f"  {what:62}{asked:>10}{found:>18}")

    for rung in RUNGS[1:]:
        what = f"recall@1 by embedding over the dual tower: {rung.name}"
        line(what, "+10 %", _gain(runs[rung.name], dual, "t2i@1", "t2i@1"))
    for rung in RUNGS[1:]:
        what = f"cross-modal accuracy, reranked, over the dual tower: {rung.name}"
        line(what, "+23 %", _gain(runs[rung.name], dual, "rerank@1", "first_caption@1"))
    for rung, found in zip(ASIDE[1:], hubs, strict=True):
        what = f"recall@1 by embedding over the dual tower: {rung.name}"
        line(what, "+10 %", _gain(found, dual, "t2i@1", "t2i@1"))
        if rung.matched:
            what = f"cross-modal accuracy, reranked, over the dual tower: {rung.name}"
            line(what, "+23 %", _gain(found, dual, "rerank@1", "first_caption@1"))
    for rung, found in ((RUNGS[-1], sparse), (ASIDE[0], alike)):
        if moe and found:
            _sparse_lines(line, rung, found, moe)
    target = _target(runs) if dual else 0.0
    for rung in RUNGS[1:]:
        steps = [reached(r["curve"], target) for r in runs[rung.name]]
        if dual and steps and None not in steps:
            first = statistics.mean(reached(r["curve"], target) or 0.0 for r in dual)
            change = statistics.mean(s for s in steps if s is not None) / first - 1
            line(f"steps to the fixed recall: {rung.name}", "-40 %", f"{100 * change:+.0f} %")
    return "\n".join(lines)


def _sparse_lines(
    line: Callable[[str, str, str], None],
    rung: Rung,
    sparse: Sequence[Record],
    dense: Sequence[Record],
) -> None:
    kept = _ratios(sparse, dense, "t2i@10", "t2i@10")
    line(
        f"recall@10 kept at 30 % of the weights: {rung.name}", "98 %", _percent(kept, signed=False)
    )
    before, after = weigh(RUNGS[-2], dense), weigh(rung, sparse)
    line("  bytes, over dense", "-45 %", f"{100 * (after[2] / before[2] - 1):+.0f} %")
    line(
        "  weights that a token meets, over dense", "", f"{100 * (after[1] / before[1] - 1):+.0f} %"
    )


def _gain(records: Sequence[Record], base: Sequence[Record], key: str, base_key: str) -> str:
    return _percent([ratio - 1 for ratio in _ratios(records, base, key, base_key)], signed=True)


def _ratios(
    records: Sequence[Record], base: Sequence[Record], key: str, base_key: str
) -> list[float]:
    by_seed = {r["seed"]: r[base_key] for r in base}
    return [r[key] / by_seed[r["seed"]] for r in records if r["seed"] in by_seed and key in r]


def _percent(values: Sequence[float], *, signed: bool) -> str:
    if not values:
        return "-"
    sign = "+" if signed else ""
    spread = f" ±{100 * statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * statistics.mean(values):{sign}.1f}{spread} %"
